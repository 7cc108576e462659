"""Studies as pandas tables: every evaluation, who goes to validation, who won, and by how much."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

import pandas as pd

from s3search.metrics.intervals import interval_of
from s3search.search.direction import Direction
from s3search.search.finish import Candidate, choose_finalist
from s3search.search.guard import Guard, broken_of, excesses
from s3search.search.questions import Rung
from s3search.search.trial import Origin
from s3search.study.database.store import StudyStore
from s3search.study.file.config import StudyConfig
from s3search.study.metric_words import MetricWords
from s3search.study.results.budget import budget_of
from s3search.study.results.gains import gains_of
from s3search.study.results.rungs import parts_of, rung_rows
from s3search.study.vetoes import named_vetoes

_BEST_BASELINES = 3  # besides each solver at its best spacing
_OF_FINALISTS = [  # columns that `finalists` reads
    *("id", "schedule_id", "rung", "state", "vetoed", "nfe", "loss"),
    *("is_baseline", "is_stock", "solver", "breaks_guard"),
]
_OF_SCORED = [  # columns that `validated` reads
    *("id", "schedule_id", "rung", "state", "vetoed", "origin", "nfe", "n_images", "noise_seed"),
    *("value", "loss", "standard_error", "replicates", "block_value", "extractor"),
    *("reference_digest", "metric", "guards", "broken"),
]
_FLAGS = ("is_baseline", "is_stock", "vetoed")
_OF_PREDICTOR = ("predictor", "calibration")  # kinds of a search's notes


def evaluations_frame(store: StudyStore, *, of_validated: bool = False) -> pd.DataFrame:
    """One row per evaluation (``of_validated``: of the validated schedules), with its proposal's
    number and origin, its loss, and whether its schedule is vetoed, as they came.
    """
    vetoed, rows = store.vetoes(), []
    for row in store.rows(of_validated=of_validated):
        origin = Origin.of_text(row["origin"] or "")
        own = (origin.is_baseline, origin.is_stock, row["schedule_id"] in vetoed, origin.solver)
        rows.append((*row.values(), *own))
    frame = pd.DataFrame(rows, columns=[*store.row_names(), *_FLAGS, "solver"])
    frame["origin"] = frame["origin"].fillna("")
    sign = store.config.direction.loss(1.0)  # rows of a second metric are never compared by loss
    frame["loss"] = sign * frame["value"].astype(float)
    broken = _broken(frame, store.config.guards)
    frame["broken"] = pd.Series(broken, dtype=object)
    frame["breaks_guard"] = pd.Series([bool(each) for each in broken], dtype=bool)
    return frame.astype(dict.fromkeys(_FLAGS, bool))  # also where there is no row


def _broken(frame: pd.DataFrame, guards: Sequence[Guard]) -> list[tuple[str, ...]]:
    """The guards that each row breaks, beside the best published one of its images and noise that
    nobody vetoed.
    """
    if not guards:
        return [()] * len(frame)
    best: dict[tuple[Any, ...], tuple[float, list[float]]] = {}
    keys = list(
        frame[["nfe", "rung", "n_images", "noise_seed"]].itertuples(index=False, name=None)
    )
    values = [json.loads(each) if isinstance(each, str) else None for each in frame["guards"]]
    may_tell = frame["is_baseline"] & ~frame["vetoed"]
    for key, own, loss, tells in zip(keys, values, frame["loss"], may_tell, strict=True):
        if tells and own and (key not in best or loss < best[key][0]):
            best[key] = loss, own
    return [
        broken_of(guards, excesses(guards, own, best[key][1])) if own and key in best else ()
        for key, own in zip(keys, values, strict=True)
    ]


def finalists(frame: pd.DataFrame, config: StudyConfig) -> list[str]:
    """Ids of the schedules to validate, best first: the best found that keep the guards (as the
    finals rank them, where there were any), the best baselines, each baseline solver's best, all
    that are stock; nothing that is vetoed.
    """
    frame = frame[_OF_FINALISTS]  # every row that is taken out copies all its columns
    measured = _at(frame, Rung.SEARCH)
    finals = _at(frame, Rung.FINALS).set_index("schedule_id")
    again, broke = finals["loss"].to_dict(), set(finals.index[finals["breaks_guard"]])
    measured = measured.assign(finals=measured["schedule_id"].map(again))
    chosen: list[str] = []
    for _, group in measured.groupby("nfe"):
        ranked = group.sort_values(["finals", "loss", "id"])  # those without finals last
        is_broken = ranked["breaks_guard"] | ranked["schedule_id"].isin(broke)
        may_win = ~ranked["is_baseline"] & ~is_broken
        found = ranked[may_win].head(config.validation.finalists)
        is_peer = group["is_baseline"] & config.validation.baselines
        baselines = group[is_peer].sort_values(["loss", "id"])
        best, each = baselines.head(_BEST_BASELINES), baselines.drop_duplicates("solver")
        peers = pd.concat([best, each, baselines[baselines["is_stock"]]])
        chosen += [*found["schedule_id"], *peers["schedule_id"].drop_duplicates()]
    return chosen


def most_validated(config: StudyConfig, solvers: Sequence[str | None]) -> int:
    """How many schedules of one number of calls are `finalists` at most, where published ones of
    these solvers are measured; one entry for each schedule.
    """
    known = solvers if config.validation.baselines else ()
    peers = min(len(known), len(set(known)) + _BEST_BASELINES - 1)  # the best is its solver's best
    return config.validation.finalists + peers


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What a metric gives on held-out noise, and what it could be on other noise."""

    extractor: str  # or the score's name
    reference_digest: str
    value: float
    standard_error: float | None
    replicates: tuple[float, ...] | None  # none in rows of before they existed, or of few images
    kind: str = "frechet"
    direction: Direction = Direction.MINIMIZE

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval over other noise: of the replicates, else the normal one."""
        return interval_of(self.value, self.standard_error, self.replicates)

    @property
    def words(self) -> MetricWords:
        """What people read of it."""
        return MetricWords(kind=self.kind, direction=self.direction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A validated schedule: what the search thought of it and what held-out noise says."""

    schedule_id: str
    origin: Origin
    nfe: int
    search_value: float
    held_out: HeldOut
    second: HeldOut | None  # the same images in the second extractor
    n_images: int
    noise_seed: int
    search_n_images: int
    block_value: float | None
    guards: tuple[float, ...] = ()  # what each guard gives on held-out noise
    broken: tuple[str, ...] = ()  # the guards that it breaks there

    @property
    def name(self) -> str:
        """Where it comes from, for people."""
        return self.origin.name

    @property
    def is_baseline(self) -> bool:
        """Whether it was published."""
        return self.origin.is_baseline

    @property
    def value(self) -> float:
        """What the study's metric gives on held-out noise."""
        return self.held_out.value

    @property
    def loss(self) -> float:
        """The loss of `value`, the lower the better."""
        return self.held_out.direction.loss(self.value)

    @property
    def standard_error(self) -> float | None:
        """That of `value`, over other noise."""
        return self.held_out.standard_error

    @property
    def optimism(self) -> float | None:
        """By how much the search's value is better than those of as many images on held-out
        noise.
        """
        if self.block_value is None:
            return None
        return self.held_out.direction.loss(self.block_value - self.search_value)


def validated(frame: pd.DataFrame, config: StudyConfig, nfe: int | None = None) -> list[Scored]:
    """Every validated schedule that nobody vetoed by its held-out value, but of each NFE the
    winner first.

    What breaks a guard is no winner, and where everything does the best published one is.  Where
    finals were held, the winner is the one that they prefer unless held-out noise clearly
    contradicts (`s3search.search.finish.choose_finalist`), so that its held-out value was not
    chosen for being low.
    """
    counts = (frame["state"] == "complete") & ~frame["vetoed"]
    ids = frame["schedule_id"][counts & (frame["rung"] == Rung.VALIDATION.value)]
    if ids.empty:
        return []
    kept = frame.loc[counts & frame["schedule_id"].isin(ids), _OF_SCORED]  # few of many
    by_rung: dict[str, list[dict[Any, Any]]] = defaultdict(list)
    for row in kept.to_dict("records"):
        by_rung[row["rung"]].append(row)
    searched = {row["schedule_id"]: row for row in by_rung[Rung.SEARCH]}
    finals = {row["schedule_id"]: row["loss"] for row in by_rung[Rung.FINALS]}
    size = config.held_out_images
    again = [row for row in by_rung[Rung.SECOND_METRIC] if row["n_images"] == size]
    other = config.validation.metric
    of_second = Direction.MINIMIZE if other is None else other.settled_direction
    second = {row["schedule_id"]: _held_out(row, of_second) for row in again}
    held_out = [row for row in by_rung[Rung.VALIDATION] if row["n_images"] == size]
    scored = [
        _scored(
            row, searched[row["schedule_id"]], second.get(row["schedule_id"]), config.direction
        )
        for row in sorted(held_out, key=itemgetter("nfe", "loss", "id"))
        if nfe is None or row["nfe"] == nfe
    ]
    for each in sorted({row.nfe for row in scored}):
        of_nfe = [row for row in scored if row.nfe == each]
        unbroken = [row for row in of_nfe if not row.broken]
        of_nfe = unbroken or [row for row in of_nfe if row.is_baseline] or of_nfe
        winner = _winner(of_nfe, finals, config.study.seed)
        scored.remove(winner)
        scored.insert(next((i for i, row in enumerate(scored) if row.nfe == each), 0), winner)
    return sorted(scored, key=lambda row: row.nfe)


def _scored(
    row: dict[Any, Any], searched: dict[Any, Any], second: HeldOut | None, direction: Direction
) -> Scored:
    return Scored(
        schedule_id=row["schedule_id"],
        origin=Origin.of_text(row["origin"]),
        nfe=int(row["nfe"]),
        search_value=float(searched["value"]),
        held_out=_held_out(row, direction),
        second=second,
        n_images=int(row["n_images"]),
        noise_seed=int(row["noise_seed"]),
        search_n_images=int(searched["n_images"]),
        block_value=_number(row["block_value"]),
        guards=tuple(json.loads(row["guards"])) if isinstance(row["guards"], str) else (),
        broken=row["broken"],
    )


def _held_out(row: dict[Any, Any], direction: Direction) -> HeldOut:
    stored = row["replicates"]
    return HeldOut(
        extractor=row["extractor"],
        reference_digest=row["reference_digest"],
        value=float(row["value"]),
        standard_error=_number(row["standard_error"]),
        replicates=tuple(json.loads(stored)) if isinstance(stored, str) else None,
        kind=row["metric"],
        direction=direction,
    )


def _winner(scored: list[Scored], finals: dict[str, float], seed: int) -> Scored:
    """The first of ``scored``, sorted by value, or whom the finals prefer: of published ones they
    measure one at most, beside which guards hold.
    """
    found = [row for row in scored if not row.is_baseline and row.schedule_id in finals]
    known = [row for row in found if row.standard_error]
    best = scored[0]
    if len(known) < 2 or best not in known:
        return best
    candidates = [
        Candidate(
            search_value=finals[row.schedule_id],
            held_out_value=row.loss,
            standard_error=row.standard_error or 0.0,
        )
        for row in known
    ]
    return known[choose_finalist(candidates, seed=seed).index]


def why_nothing(store: StudyStore, frame: pd.DataFrame, nfe: int | None = None) -> str:
    """Why `validated` is empty, and what would do, as a sentence."""
    is_it = (frame["rung"] == Rung.VALIDATION.value) & (frame["state"] == "complete")
    is_it &= frame["n_images"] == store.config.held_out_images
    is_it &= True if nfe is None else frame["nfe"] == nfe
    known = store.vetoes()
    vetoed = [known[each] for each in frame[is_it]["schedule_id"].unique() if each in known]
    at = "" if nfe is None else f" at NFE {nfe}"
    if vetoed:
        return (
            f"study {store.name!r}: all {len(vetoed)} validated schedules{at} are vetoed: "
            f"{named_vetoes(vetoed)}; lift one with `s3search veto {store.name} TRIAL --lift`, or "
            "let `s3search launch` validate the next best ones"
        )
    return (
        f"study {store.name!r} has no validated schedule{at} yet (it is {store.state}); "
        "run `s3search launch` to its end first"
    )


def best_of(scored: Sequence[Scored]) -> tuple[Scored | None, Scored | None]:
    """The found schedule that comes first of those that keep the guards, and the best baseline,
    which is chosen for being good and need not be what the study's target can express.
    """
    found = next((s for s in scored if not s.is_baseline and not s.broken), None)
    return found, min((s for s in scored if s.is_baseline), key=lambda s: s.loss, default=None)


def solvers_at_their_best(scored: Sequence[Scored]) -> list[Scored]:
    """Each baseline solver's best held-out row, best first."""
    best: dict[str | None, Scored] = {}
    for row in sorted(scored, key=lambda row: row.loss):
        if row.is_baseline:
            best.setdefault(row.origin.solver, row)
    return list(best.values())


def status_of(store: StudyStore, frame: pd.DataFrame | None = None) -> dict[str, Any]:
    """How far a study is, what it found and what it cost, in plain data.

    ``frame`` is `evaluations_frame` where it is at hand, here and wherever else it is taken.
    """
    frame = evaluations_frame(store) if frame is None else frame
    search = frame[frame["rung"].isin([Rung.SEARCH.value, Rung.STOPPED.value])]
    jobs, notes, budget = store.job_totals(), store.notes(), budget_of(store)
    made = frame[(frame["state"] == "complete") & (frame["rung"] != Rung.SECOND_METRIC.value)]
    best: dict[str, Any] = {}
    direction = store.config.direction
    scored = validated(frame, store.config)
    for nfe in store.config.space.nfe:
        measured = _at(frame[frame["nfe"] == nfe], Rung.SEARCH)
        may_win = ~measured["is_baseline"] & ~measured["breaks_guard"]
        found, baseline = best_of([row for row in scored if row.nfe == nfe])
        best[str(nfe)] = {
            "search": direction.best(measured["value"][may_win]),
            "search_baseline": direction.best(measured["value"][measured["is_baseline"]]),
            "held_out": None if found is None else found.value,
            "held_out_baseline": None if baseline is None else baseline.value,
        }
    return {
        "study": store.name,
        "state": store.state,
        "metric": store.config.metric.kind,
        "direction": store.config.direction.value,
        "evaluations": int((~search["is_baseline"]).sum()),
        "budget": store.config.search.evaluations,
        "budget_words": budget.words,
        "budget_share": budget.share,
        "budget_images": budget.images,
        "measured": len(search),
        "baselines": int(search["is_baseline"].sum()),
        "left_race": int((frame["rung"] == Rung.STOPPED.value).sum()),
        "failed": int((frame["state"] == "failed").sum()) + round(_sum(jobs, "failed")),
        "validated": int((frame["rung"] == Rung.VALIDATION.value).sum()),
        "pending": store.n_pending(),
        "best": best,
        "vetoed": [asdict(each) for each in store.vetoes().values()],
        "network_calls": int(frame["network_calls"].fillna(0).sum())
        + round(_sum(jobs, "network_calls")),
        "ledger": _ledger(frame, jobs),
        "ladder": rung_rows(frame, notes, jobs),
        "parts": parts_of(notes),
        "gains": gains_of(notes, direction),
        "predictor": [{"kind": kind, **note} for kind, note in notes if kind in _OF_PREDICTOR],
        "images": int(made["n_images"].sum()),
        "worker_seconds": float(frame["seconds"].sum()) + _sum(jobs, "seconds"),
    }


def _ledger(frame: pd.DataFrame, jobs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What each rung cost: how often, image-calls of the network, seconds of workers."""
    rungs = {
        str(rung): {
            "count": len(rows),
            "network_calls": int(rows["network_calls"].fillna(0).sum()),
            "seconds": float(rows["seconds"].sum()),
        }
        for rung, rows in frame.groupby("rung")
    }
    for kind, total in jobs.items():
        rungs[kind] = {
            "count": round(total["count"]),
            "network_calls": round(total["network_calls"]),
            "seconds": total["seconds"],
        }
    return rungs


def _sum(jobs: dict[str, dict[str, float]], key: str) -> float:
    return sum(each[key] for each in jobs.values())


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _at(frame: pd.DataFrame, rung: Rung) -> pd.DataFrame:
    """What was measured on a rung, but for what is vetoed."""
    is_it = (frame["rung"] == rung.value) & (frame["state"] == "complete")
    return frame[is_it & ~frame["vetoed"]]
