"""Scheduler configs of diffusers; the library itself is not needed."""

from s3search.formats.importers.diffusers.config import SDE
from s3search.formats.importers.diffusers.reader import (
    SCHEDULERS,
    adds_noise,
    read,
    schedule_of,
    without_noise,
)
from s3search.formats.importers.diffusers.run import INEXACT

__all__ = ["INEXACT", "SCHEDULERS", "SDE", "adds_noise", "read", "schedule_of", "without_noise"]
