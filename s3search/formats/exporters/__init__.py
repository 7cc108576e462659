"""Schedules in the formats of other runtimes, each with a report of what is lost there."""

from s3search.formats.exporters.formats import FORMATS, export_schedule
from s3search.formats.exporters.report import Approximation, LossReport
from s3search.formats.exporters.request import Exported, ExportRequest

__all__ = [
    "FORMATS",
    "Approximation",
    "ExportRequest",
    "Exported",
    "LossReport",
    "export_schedule",
]
