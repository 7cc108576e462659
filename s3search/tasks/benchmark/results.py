"""What the studies of a benchmark say: a row for each method, number of calls, seed and budget.

Rows are read from the databases alone.  Network calls are those of everything that the search
did: images times calls of every measurement, whole, stopped early or of the finals, published
solvers where the search looks at them, failed ones in full, and the calls of proxies and of
polishing, forward and backward.  Only the measurement of the answer on held-out noise is left
out: it is the benchmark's, not the search's.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from s3search.files import write_text
from s3search.search.ladder import LadderRung
from s3search.search.questions import SEARCHING, Rung
from s3search.study.database.store import StudyStore, open_study, study_names
from s3search.study.file.config import StudyConfig
from s3search.study.results.claims import floors
from s3search.study.results.frame import best_of, evaluations_frame, finalists, validated
from s3search.tasks.benchmark.plan import PUBLISHED, database_url, databases

NOTE = "bench"
"""Kind of the notes that `s3search.tasks.benchmark.running` leaves in a study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement of the benchmark; None where there is no such number."""

    method: str
    algorithm: str
    ladder: str  # rungs joined by "+"; empty but for s3
    nfe: int
    seed: int
    budget: int | None  # measurements of n_images; None for the published solvers
    measured: int  # schedules, whole or stopped early
    network_calls: int  # image-calls
    wall_seconds: float
    worker_seconds: float
    driver_seconds: float
    driver_share: float | None  # of the wall seconds, with the one worker in this process
    held_out: float | None  # distance on held-out noise; None if nothing was found
    standard_error: float | None
    held_out_images: int
    n_images: int
    best_published: float | None  # on the same held-out noise
    real_images: float | None  # as many, resampled: the bias of these distances
    schedule_id: str | None
    study: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A method at one number of calls and one budget, over its seeds."""

    method: str
    nfe: int
    budget: int | None
    n_seeds: int
    n_found: int  # seeds with an answer; the distances are theirs
    network_calls: float  # median
    held_out: float | None  # median
    lowest: float | None
    highest: float | None
    best_published: float | None  # median
    real_images: float | None  # median
    driver_share: float | None  # median

    @property
    def is_published(self) -> bool:
        """Whether this is the best of the published solvers."""
        return self.method == PUBLISHED

    @property
    def gain(self) -> float | None:
        """The distance of the best published solver by this one, with the bias of both."""
        return self._ratio(0.0)

    @property
    def gain_less_bias(self) -> float | None:
        """The ratio of distances less what real images have; None where nothing is left."""
        return None if self.real_images is None else self._ratio(self.real_images)

    def _ratio(self, bias: float) -> float | None:
        if self.held_out is None or self.best_published is None or self.held_out <= bias:
            return None
        return (self.best_published - bias) / (self.held_out - bias)


def read_rows(folder: Path) -> list[Row]:
    """The rows of every finished measurement in a folder, whichever command made it."""
    rows = []
    for file in databases(folder):
        url = database_url(file)
        for name in study_names(url):
            with open_study(url, name) as store:
                rows += rows_of(store)
    published = {(r.nfe, r.seed): r.held_out for r in rows if r.method == PUBLISHED}
    return [
        Row(**(asdict(row) | {"best_published": published.get((row.nfe, row.seed))}))
        for row in rows
    ]


def rows_of(store: StudyStore) -> list[Row]:
    """A study's rows, one for each budget that was finished with its present validation."""
    notes = launches(store)
    frame = evaluations_frame(store)
    finished = {note["budget"]: note for note in notes if is_finished(note, store.config)}
    return [
        _row(store, frame, note, [n for n in notes if _size(n["budget"]) <= _size(budget)])
        for budget, note in finished.items()
    ]


def launches(store: StudyStore) -> list[dict[str, Any]]:
    """The notes of a study's launches."""
    return [content for _, content in store.notes(NOTE)]


def is_finished(note: Mapping[str, Any], config: StudyConfig) -> bool:
    """Whether this launch came to its end with as many held-out images."""
    return bool(note["finished"]) and note["held_out_images"] == config.held_out_images


def _size(budget: int | None) -> float:
    return math.inf if budget is None else budget


def _row(
    store: StudyStore,
    frame: pd.DataFrame,
    note: Mapping[str, Any],
    spent: Sequence[Mapping[str, Any]],
) -> Row:
    config, budget = store.config, note["budget"]
    is_s3 = config.search.algorithm == "s3"
    # proposals are numbered, and those of a smaller budget are the first of a larger one
    own = frame if is_s3 or budget is None else frame[frame["number"] < budget]
    answer = _answer(own, config, is_published=budget is None)
    searched = own[own["rung"] != Rung.VALIDATION.value]
    calls = searched["network_calls"].fillna(searched["n_images"] * searched["nfe"]).sum()
    jobs = sum(total["network_calls"] for total in store.job_totals().values())
    wall = sum(n["wall_seconds"] for n in spent)
    driver = sum(n["driver_seconds"] for n in spent)
    is_inline = config.cluster.address == "inline"
    return Row(
        method=note["method"],
        algorithm="" if budget is None else config.search.algorithm,
        ladder="+".join(r.value for r in config.search.ladder) if is_s3 else "",
        nfe=config.space.nfe[0],
        seed=config.study.seed,
        budget=budget,
        measured=int(searched["rung"].isin(SEARCHING).sum()),
        network_calls=round(calls + jobs),
        wall_seconds=wall,
        worker_seconds=sum(n["worker_seconds"] for n in spent),
        driver_seconds=driver,
        driver_share=driver / wall if is_inline and wall > 0 else None,
        held_out=None if answer is None else float(answer["value"]),
        standard_error=None if answer is None else _number(answer["standard_error"]),
        held_out_images=config.held_out_images,
        n_images=config.search.n_images,
        best_published=None,
        real_images=next((each["value"] for each in floors(store)), None),
        schedule_id=None if answer is None else str(answer["schedule_id"]),
        study=store.name,
    )


def _answer(own: pd.DataFrame, config: StudyConfig, *, is_published: bool) -> Any:
    """The validated evaluation of what the search would hand over; of the published solvers the
    lowest on held-out noise.
    """
    if is_published:
        best = best_of(validated(own, config))[1]
        chosen = [] if best is None else [best.schedule_id]
    else:
        chosen = finalists(own, config)[:1]
    is_it = (
        (own["rung"] == Rung.VALIDATION.value)
        & (own["n_images"] == config.held_out_images)
        & (own["state"] == "complete")
        & own["schedule_id"].isin(chosen)
    )
    found = own[is_it].to_dict("records")
    return found[0] if found else None


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """Medians over seeds by number of calls, method and budget, in the order of a table."""
    groups: dict[tuple[int, str, int | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.nfe, row.method, row.budget), []).append(row)
    found = [_summary(*key, group) for key, group in groups.items()]
    order = method_order([row.method for row in rows])
    return sorted(found, key=lambda s: (s.nfe, order.index(s.method), _size(s.budget)))


def method_order(labels: Sequence[str]) -> list[str]:
    """The published solvers, `s3` without and with its rungs, `s3`, the others by name."""
    names = [rung.value for rung in LadderRung]

    def place(label: str) -> tuple[int, int, str]:
        if label == PUBLISHED:
            return (0, 0, "")
        if label.startswith("s3 "):
            last = label.rsplit(maxsplit=1)[-1]
            return (1, names.index(last) if last in names else -1, "")
        return (2, 0, "") if label == "s3" else (3, 0, label)

    return sorted(set(labels), key=place)


def _summary(nfe: int, method: str, budget: int | None, rows: Sequence[Row]) -> Summary:
    values = [row.held_out for row in rows if row.held_out is not None]
    return Summary(
        method=method,
        nfe=nfe,
        budget=budget,
        n_seeds=len(rows),
        n_found=len(values),
        network_calls=median(row.network_calls for row in rows),
        held_out=_median(values),
        lowest=min(values, default=None),
        highest=max(values, default=None),
        best_published=_median([r.best_published for r in rows if r.best_published is not None]),
        real_images=_median([r.real_images for r in rows if r.real_images is not None]),
        driver_share=_median([r.driver_share for r in rows if r.driver_share is not None]),
    )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line per row; no number is an empty field."""
    names = [field.name for field in fields(Row)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    order = method_order([row.method for row in rows])
    key = {row: (row.nfe, order.index(row.method), _size(row.budget), row.seed) for row in rows}
    writer.writerows(asdict(row) for row in sorted(rows, key=key.__getitem__))
    write_text(path, text.getvalue())


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
