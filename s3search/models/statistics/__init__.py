"""Statistics of a model and its data: measured once, kept in a file, used by many schedules."""

from s3search.models.statistics.ems import NodeGrid, estimate_ems
from s3search.models.statistics.gaussian import GaussianStatistics, gaussian_statistics
from s3search.rules.ems import EmsStatistics

__all__ = [
    "EmsStatistics",
    "GaussianStatistics",
    "NodeGrid",
    "estimate_ems",
    "gaussian_statistics",
]
