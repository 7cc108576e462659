"""What the front door returns: what a search found, and how good one schedule is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from s3search.errors import InvalidConfig, StudyConflict, nearest
from s3search.formats.exporters import Exported, ExportRequest, export_schedule
from s3search.metrics.intervals import interval_of
from s3search.schedules.schedule import Schedule
from s3search.search.direction import Direction
from s3search.search.questions import Measurement
from s3search.show.terminal.rungs import lacking_lines
from s3search.study.database.engine import redacted
from s3search.study.database.store import StudyStore
from s3search.study.metric_words import MetricWords
from s3search.study.results.comparison import comparison_of
from s3search.study.results.export import best_schedule
from s3search.study.results.exported import exported_first
from s3search.study.results.frame import evaluations_frame, status_of, validated, why_nothing
from s3search.study.results.table import validated_table
from s3search.study.results.watching import warnings_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = (
    *("nfe", "name", "is_winner", "distance", "score", "low", "high", "n_images"),
    *("times_winner", "second_distance", "second_score"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SearchResult:
    """What `s3search.search` returns: schedules, how good they are, and ways to use them.

    >>> found.schedule.save("schedule.json")
    >>> found.table[["name", "distance", "low", "high"]]
    """

    name: str  # of the study
    storage: str | None  # URL of the database, without a password; None: it was not kept
    schedules: Mapping[int, Schedule]  # the validated winner of each number of network calls
    table: pd.DataFrame  # see `s3search.study.results.table.validated_table`
    comparison: Mapping[str, Any]  # what `s3search compare --json` prints
    status: Mapping[str, Any]  # what `s3search status --json` prints
    warnings: tuple[str, ...]  # of the check of the model before the search
    _reason: str  # why there is no schedule, where there is none
    _ems: Path | None  # file of the statistics that schedules with v3 steps need

    @classmethod
    def of(cls, store: StudyStore, *, is_kept: bool) -> Self:
        """All of a study that is done; ``is_kept``: its database outlives the search."""
        frame = evaluations_frame(store)
        scored = exported_first(store, validated(frame, store.config))
        ems = store.config.statistics.ems
        return cls(
            name=store.name,
            storage=redacted(store.config.storage.url) if is_kept else None,
            schedules={
                nfe: best_schedule(store, nfe, frame)[0]
                for nfe in sorted({row.nfe for row in scored})
            },
            table=validated_table(scored, MetricWords.of(store.config.metric)),
            comparison=comparison_of(store, frame),
            status=status_of(store, frame),
            warnings=warnings_of(store),
            _reason="" if scored else why_nothing(store, frame),
            _ems=None if ems is None else Path(ems),
        )

    @property
    def schedule(self) -> Schedule:
        """The validated winner; of several numbers of network calls that of the largest.

        It may be a published solver's, if none that was found is better.  Raises `StudyConflict`
        if nothing is validated, or all of it vetoed.
        """
        return self._of(None)

    def save(self, path: str | Path, nfe: int | None = None) -> None:
        """Writes the winner, with its compiled table and where it comes from, as a schedule
        file.
        """
        self.export("json", path, nfe)

    def export(
        self,
        form: str,
        path: str | Path,
        nfe: int | None = None,
        *,
        pipeline: str | Path | None = None,
    ) -> Exported:
        """Writes the winner for a runtime, "json", "diffusers" (a folder), "k-diffusion" or
        "comfyui"; the files, and what is lost there (``.report``).

        ``pipeline``, of diffusers alone, is the folder of the pipeline that it is to run in.
        """
        request = ExportRequest(
            schedule=self._of(nfe),
            output=Path(path),
            ems=self._ems,
            pipeline=None if pipeline is None else Path(pipeline),
        )
        return export_schedule(form, request)

    def plot(self, nfe: int | None = None) -> "Figure":
        """A matplotlib figure: the winner's noise levels and steps, and held-out values with their
        intervals.
        """
        from s3search.show.pictures.held_out import found_figure  # noqa: PLC0415  # slow to import

        schedule = self._of(nfe)
        words = MetricWords.said_by(self.comparison)
        return found_figure(schedule, self.table, f"{self.name}: NFE {schedule.nfe}", words)

    def __repr__(self) -> str:
        """For each number of network calls the winner's value, and what may be claimed."""
        if not self.schedules:
            return f"SearchResult of {self.name!r}: {self._reason}"
        lines = [f"  NFE {nfe}: {_said(own)}" for nfe, own in self.schedules.items()]
        warnings = [f"  {each}" for each in lacking_lines(self.status["parts"])]
        warnings += [f"  warning: {each}" for each in self.warnings]
        return "\n".join([f"SearchResult of {self.name!r}", *lines, *warnings])

    def _repr_html_(self) -> str:
        """For notebooks: the same lines, and the table's main columns."""
        known = [each for each in _SHOWN if each in self.table]
        shown = self.table[[each for each in known if not self.table[each].isna().all()]]
        table = shown.to_html(index=False, float_format="{:.4f}".format, border=0)
        return f"<pre>{escape(repr(self))}</pre>{table}"

    def _of(self, nfe: int | None) -> Schedule:
        if not self.schedules:
            raise StudyConflict(self._reason)
        wanted = max(self.schedules) if nfe is None else nfe
        if wanted not in self.schedules:
            known = [str(each) for each in self.schedules]
            raise InvalidConfig(f"{nfe=}: nothing was found there; {nearest(str(nfe), known)}")
        return self.schedules[wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `s3search.evaluate` returns: a distance or a score, and all that it means nothing
    without.
    """

    value: float
    standard_error: float | None  # over other noise; None where it costs too much
    interval: tuple[float, float] | None  # 95 %, over other noise
    metric: str  # "frechet"
    extractor: str  # or the score's name
    n_images: int
    noise_seed: int
    reference_digest: str
    reference_n: int | None  # None of a file of statistics that does not say
    model_fingerprint: str
    schedule_id: str
    nfe: int
    network_calls: int  # of all images together
    measurement: Measurement = field(repr=False)  # with seconds, device, code version
    direction: Direction = Direction.MINIMIZE  # of the metric

    @classmethod
    def of(cls, found: Measurement) -> Self:
        """The measurement in short; it must have a value."""
        assert found.estimate is not None
        return cls(
            value=found.estimate,
            standard_error=found.standard_error,
            interval=interval_of(found.estimate, found.standard_error, found.replicates),
            metric=str(found.metric),
            direction=found.direction,
            extractor=str(found.extractor),
            n_images=found.n_images,
            noise_seed=found.question.noise_seed,
            reference_digest=str(found.reference_digest),
            reference_n=found.reference_n,
            model_fingerprint=str(found.model_fingerprint),
            schedule_id=found.trial.id,
            nfe=found.trial.nfe,
            network_calls=found.network_calls,
            measurement=found,
        )


def _said(schedule: Schedule) -> str:
    """The value of a winner, and what may be claimed of it, from its provenance."""
    held_out = schedule.provenance["held_out"]
    between = held_out["interval_95"]
    spread = "" if between is None else f" ({between[0]:.4f} to {between[1]:.4f})"
    noun = MetricWords.said_by(schedule.provenance).noun
    said = f"{noun} {held_out['value']:.4f}{spread} of {held_out['n_images']:,} held-out images"
    return "\n    ".join([said, *schedule.provenance["claim"]["says"]])
