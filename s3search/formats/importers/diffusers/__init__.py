"""Scheduler configs of diffusers; the library itself is not needed."""

from s3search.formats.importers.diffusers.reader import SCHEDULERS, read, schedule_of
from s3search.formats.importers.diffusers.solvers import INEXACT

__all__ = ["INEXACT", "SCHEDULERS", "read", "schedule_of"]
