"""What a page says, in plain data, from the database alone."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from s3search.errors import StudyConflict
from s3search.schedules.schedule import Schedule
from s3search.search.predictor.proxy_correlation import number
from s3search.search.predictor.ranks import rank_correlation
from s3search.search.questions import Rung
from s3search.search.space.targets import ANY
from s3search.show.report.study_file import study_toml
from s3search.show.terminal.comparison import words_of
from s3search.study.database.store import StudyStore
from s3search.study.metric_words import FRECHET, MetricWords
from s3search.study.results.comparison import comparison_of
from s3search.study.results.export import best_schedule
from s3search.study.results.exported import exported_first
from s3search.study.results.frame import (
    Scored,
    best_of,
    evaluations_frame,
    status_of,
    validated,
    why_nothing,
)

_TOP_SCHEDULES = 6
_LINES = 3  # published solvers drawn beside a search
_ERRORS = 5
_AFTER_SEARCH = (Rung.VALIDATION.value, Rung.SECOND_METRIC.value, Rung.USER.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCurve:
    """The best value at the search rung against the network calls of the whole search."""

    nfe: int
    n_images: int
    found: tuple[tuple[int, float], ...]  # (calls, value) where it improved, and the end
    published: tuple[tuple[str, float], ...]  # each solver at its best, best first
    total_calls: int
    words: MetricWords = FRECHET

    @property
    def values(self) -> tuple[float, ...]:
        """All that is shown."""
        return tuple(value for _, value in (*self.found, *self.published))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """One batch of schedules that the predictor chose: predicted and measured."""

    nfe: int
    stage: int
    n: int
    spearman: float | None
    mean_abs_rank_error: float
    coverage: float
    ranks: tuple[tuple[float, float], ...]  # (predicted, measured), 0 best; empty in old studies


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxied:
    """What one proxy said of schedules, and their value at the search rung."""

    nfe: int
    proxy: str
    n_images: int
    pairs: tuple[tuple[float, float], ...]  # (said, measured)
    correlation: float | None  # of ranks of losses, over these pairs
    words: MetricWords = FRECHET


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A schedule that the page shows."""

    label: str
    name: str  # of a published solver with its spacing, or where a found one comes from
    schedule: Schedule
    value: float  # on held-out noise
    is_baseline: bool
    is_winner: bool
    words: MetricWords = FRECHET


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A row of the ledger; shares are of the whole study, 0 to 1."""

    name: str
    count: int
    network_calls: int
    calls_share: float
    seconds: float
    seconds_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Everything on the page but pictures of samples."""

    status: Mapping[str, Any]  # `status_of`
    comparison: Mapping[str, Any]  # `comparison_of`
    best: Mapping[int, tuple[Schedule, Scored]]  # by NFE, with provenance
    picks: Mapping[int, tuple[Pick, ...]]  # by NFE, best first; the best published among them
    progress: tuple[SearchCurve, ...]
    calibration: tuple[Calibrated, ...]
    proxies: tuple[Proxied, ...]
    costs: tuple[Cost, ...]
    errors: tuple[tuple[str, int], ...]  # the most frequent, with their count
    provenance: Mapping[str, str]
    code_version: str  # that measured the last evaluation
    study_file: str

    @property
    def words(self) -> MetricWords:
        """What people read of the metric."""
        return words_of(self.comparison)


def collect(store: StudyStore, frame: pd.DataFrame | None = None) -> Collected:
    """Everything that the database says; raises `StudyConflict` before validation."""
    frame = evaluations_frame(store) if frame is None else frame
    scored = exported_first(store, validated(frame, store.config))
    if not scored:
        raise StudyConflict(f"a report is about validated schedules: {why_nothing(store, frame)}")
    status, words = status_of(store, frame), MetricWords.of(store.config.metric)
    known = sorted({row.nfe for row in scored})
    jobs = store.job_costs()
    best = {nfe: best_schedule(store, nfe, frame) for nfe in known}
    return Collected(
        status=status,
        comparison=comparison_of(store, frame),
        best=best,
        picks={nfe: _picks(store, [row for row in scored if row.nfe == nfe]) for nfe in known},
        progress=tuple(progress_of(frame, jobs, nfe, words) for nfe in known),
        calibration=calibration_of(store.notes("calibration")),
        proxies=proxies_of(store.notes("ladder"), store.config.search.n_images, words),
        costs=costs_of(status["ledger"]),
        errors=_errors(frame),
        provenance=_provenance(store, frame, best),
        code_version=str(_complete(frame)["code_version"].iloc[-1]),
        study_file=study_toml(store.config),
    )


def progress_of(
    frame: pd.DataFrame,
    jobs: Sequence[Mapping[str, Any]],
    nfe: int,
    words: MetricWords = FRECHET,
) -> SearchCurve:
    """The search at one NFE; its calls are those of all NFE, polishing and proxies included, in
    the order in which they were spent.
    """
    searching = frame[~frame["rung"].isin(_AFTER_SEARCH)]
    calls_at, total = _calls_at(searching, jobs)
    rows = _complete(searching[~searching["vetoed"]])
    rows = rows[(rows["rung"] == Rung.SEARCH.value) & (rows["nfe"] == nfe)].sort_values("id")
    found: list[tuple[int, float]] = []
    own = rows[~rows["is_baseline"]]
    for row_id, value in zip(own["id"], own["value"], strict=True):
        if not found or words.direction.is_better(value, found[-1][1]):
            found.append((int(calls_at[row_id]), float(value)))
    if found:
        found.append((total, found[-1][1]))
    published = rows[rows["is_baseline"]].sort_values("value", ascending=words.is_minimized)
    published = published.drop_duplicates("solver")
    return SearchCurve(
        nfe=nfe,
        n_images=int(rows["n_images"].max()) if len(rows) else 0,
        found=tuple(found),
        published=tuple(
            zip(published["solver"][:_LINES], published["value"][:_LINES].map(float), strict=True)
        ),
        total_calls=total,
        words=words,
    )


def _calls_at(
    searching: pd.DataFrame, jobs: Sequence[Mapping[str, Any]]
) -> tuple[dict[int, float], int]:
    """Network calls that were spent when each evaluation, by id, was done; and all of them."""
    of_jobs = np.array([job["created_at"] for job in jobs], dtype="datetime64[us]")
    created = np.append(searching["created_at"].to_numpy(dtype="datetime64[us]"), of_jobs)
    calls = searching["network_calls"].astype(float).fillna(0.0)
    spent = np.array([*calls, *(job["network_calls"] or 0.0 for job in jobs)])
    ids = [*searching["id"], *(-1 for _ in jobs)]
    order = np.argsort(created, kind="stable")
    summed = np.cumsum(spent[order])
    calls_at = {ids[i]: float(each) for i, each in zip(order, summed, strict=True)}
    return calls_at, int(summed[-1]) if len(summed) else 0


def calibration_of(notes: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Calibrated, ...]:
    """The notes of kind `calibration`, by NFE, in order."""
    found = [
        Calibrated(
            nfe=note["nfe"],
            stage=note["stage"],
            n=note["n"],
            spearman=note["spearman"],
            mean_abs_rank_error=note["mean_abs_rank_error"],
            coverage=note["coverage"],
            ranks=tuple((pair[0], pair[1]) for pair in note.get("ranks", ())),
        )
        for _, note in notes
    ]
    return tuple(sorted(found, key=lambda each: each.nfe))


def proxies_of(
    notes: Sequence[tuple[str, Mapping[str, Any]]], n_images: int, words: MetricWords
) -> tuple[Proxied, ...]:
    """The latest notes of kind `ladder`, by NFE; those of older studies have no pairs.

    What was measured they know as a loss, and it becomes a value of the metric.
    """
    latest = {note["nfe"]: note.get("against_whole", {}) for _, note in notes}
    return tuple(
        Proxied(
            nfe=nfe,
            proxy=proxy,
            n_images=n_images,
            pairs=tuple((pair[0], words.direction.loss(pair[1])) for pair in pairs),
            correlation=number(rank_correlation(*np.array(pairs).T)),
            words=words,
        )
        for nfe, by_proxy in sorted(latest.items())
        for proxy, pairs in by_proxy.items()
        if pairs
    )


def costs_of(ledger: Mapping[str, Mapping[str, Any]]) -> tuple[Cost, ...]:
    """The ledger, the dearest first."""
    calls = sum(each["network_calls"] for each in ledger.values())
    seconds = sum(each["seconds"] for each in ledger.values())
    costs = [
        Cost(
            name=name,
            count=each["count"],
            network_calls=each["network_calls"],
            calls_share=each["network_calls"] / calls if calls else 0.0,
            seconds=each["seconds"],
            seconds_share=each["seconds"] / seconds if seconds else 0.0,
        )
        for name, each in ledger.items()
    ]
    return tuple(sorted(costs, key=lambda cost: -cost.seconds))


def _picks(store: StudyStore, scored: list[Scored]) -> tuple[Pick, ...]:
    found, published = best_of(scored)
    shown = [row for row in scored if not row.is_baseline][:_TOP_SCHEDULES]
    shown += [published] if published is not None else []
    winner = scored[0]
    return tuple(
        Pick(
            label=_label(row, found),
            name=row.name,
            schedule=store.schedule(row.schedule_id),
            value=row.value,
            is_baseline=row.is_baseline,
            is_winner=row is winner,
            words=row.held_out.words,
        )
        for row in sorted(shown, key=scored.index)
    )


def _label(row: Scored, found: Scored | None) -> str:
    if row.is_baseline:
        return f"best published: {row.name}"
    return "found by s3search" if row is found else f"found, {row.schedule_id[:8]}"


def _errors(frame: pd.DataFrame) -> tuple[tuple[str, int], ...]:
    failed = frame[frame["state"] == "failed"]["error"].dropna()
    return tuple(Counter(map(str, failed)).most_common(_ERRORS))


def _provenance(
    store: StudyStore, frame: pd.DataFrame, best: Mapping[int, tuple[Schedule, Scored]]
) -> dict[str, str]:
    config, done, words = store.config, _complete(frame), MetricWords.of(store.config.metric)
    other = None if config.validation.metric is None else MetricWords.of(config.validation.metric)
    of_second = done["rung"] == Rung.SECOND_METRIC.value
    named: dict[str, Iterable[Any]] = {
        "model": [config.model.loader],
        "model fingerprint": done["model_fingerprint"],
        "metric": done["metric"].map(lambda kind: _metric(kind, words)),
        words.judge: done[~of_second]["extractor"],
        (other or words).second_judge: done[of_second]["extractor"],
        words.compared: done[~of_second]["reference_digest"],
        "reference images": done["reference_n"].dropna().map(lambda n: f"{int(n):,}"),
        "search": [f"{config.search.algorithm}, seed {config.study.seed}"],
        "space": [config.space.preset],
        "target": [store.space.get("target") or ANY],
        "schedules tied to": [
            f"{each} (NFE {nfe})" for nfe, (own, _) in best.items() for each in own.tied_to
        ],
        "noise seed of the search": [str(config.search_noise_seed)],
        "noise seed of the validation": [str(config.validation_noise_seed)],
        "device": done["device"],
        "workers": [str(done["worker"].nunique())],
        "s3search": done["code_version"],
        "first and last evaluation (UTC)": [
            f"{when:%Y-%m-%d %H:%M}"
            for when in (done["created_at"].min(), done["created_at"].max())
        ],
    }
    texts = {key: ", ".join(dict.fromkeys(map(str, values))) for key, values in named.items()}
    return {key: text for key, text in texts.items() if text}


def _metric(kind: str, words: MetricWords) -> str:
    """A kind of metric, and which way is better where that is no matter of course."""
    is_said = kind == words.kind and words != FRECHET
    return f"{kind} ({words.which_is_better})" if is_said else kind


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    done = frame[frame["state"] == "complete"]
    return done[done["value"].map(lambda value: value is not None and math.isfinite(value))]
