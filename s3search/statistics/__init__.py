"""Statistics of a model and its data: measured once, kept in a file, used by many schedules."""

from s3search.rules.ems import EmsStatistics
from s3search.statistics.ems import NodeGrid, estimate_ems
from s3search.statistics.gaussian import GaussianStatistics, gaussian_statistics

__all__ = [
    "EmsStatistics",
    "GaussianStatistics",
    "NodeGrid",
    "estimate_ems",
    "gaussian_statistics",
]
