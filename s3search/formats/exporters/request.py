"""What every exporter takes and answers."""

from dataclasses import dataclass
from pathlib import Path

from s3search.formats.exporters.report import LossReport
from s3search.rules import EmsStatistics
from s3search.schedules.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """A schedule and where it goes.

    ``ems`` is the file of the EMS statistics that the schedule names, if it names any;
    ``pipeline`` a diffusers pipeline's folder or its scheduler_config.json.
    """

    schedule: Schedule
    output: Path
    ems: Path | None = None
    pipeline: Path | None = None

    @property
    def statistics(self) -> EmsStatistics | None:
        """The statistics of ``ems``, where the schedule uses any."""
        is_used = self.ems is not None and self.schedule.statistics is not None
        return EmsStatistics.load(str(self.ems)) if is_used else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The files that were written, and what is lost in them."""

    files: tuple[Path, ...]
    report: LossReport
