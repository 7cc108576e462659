"""How far a study is, from its database alone: what another machine sees of a running search.

Sums and minima are taken by the database, so that a look at 50,000 trials costs as little as one
at 50.  A schedule that was published counts as a baseline, whoever proposed it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func, select

from s3search.search.direction import Direction
from s3search.search.questions import SEARCHING, Rung
from s3search.search.trial import BASELINE, Origin
from s3search.study.database.store import StudyStore
from s3search.study.database.tables import EVALUATIONS, PROPOSALS, SCHEDULES, STUDIES
from s3search.study.metric_words import MetricWords
from s3search.study.results.budget import budget_of
from s3search.study.results.exported import ranked
from s3search.study.results.frame import best_of, evaluations_frame, most_validated, validated
from s3search.study.results.gains import GAINS, gain_warnings, gains_of
from s3search.study.results.progress import (
    WARNINGS,
    Progress,
    Quality,
    RunToday,
    Spend,
    quality_of,
    seconds_left,
    whole_share,
    with_validation,
)
from s3search.study.results.recent import RecentAnswer, answers_of, images_per_second, n_workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One look at a study."""

    study: str
    state: str  # searching, validating, done, interrupted, failed
    progress: Progress
    silent_seconds: float | None  # since the newest answer of a worker; None before the first

    @property
    def is_running(self) -> bool:
        """Whether it runs, as far as its driver could say; one that was killed could not."""
        return self.state in ("searching", "validating")


def look(store: StudyStore) -> Watched:
    """How far a study is now."""
    state, since = _state(store)
    answers, totals, jobs = answers_of(store), _totals(store), store.job_totals()
    newest = answers[-1].at if answers else None
    now = datetime.now(UTC).replace(tzinfo=None)
    now = max(now, since, newest or now)  # the driver's clock may be ahead of this one
    is_running = state in ("searching", "validating")
    rate = images_per_second(answers, since, now) if is_running else 0.0
    asked, heard = store.config.cluster.workers, n_workers(answers, now)
    workers = heard if asked == "auto" else asked  # how many there are the driver knows
    busy = min(heard, workers) if is_running else 0
    spend = _spend(totals, jobs)
    elapsed = (now - since).total_seconds()
    search, budget = store.config.search, budget_of(store, elapsed=elapsed if is_running else None)
    done, of, n_validated = round(budget.images / search.n_images), budget.evaluations, 0
    left: float | None = 0.0
    if state == "validating":  # how many there will be is not known here
        n_validated = _n_validated(store, totals)
        done, of = n_validated, None
    else:
        left = seconds_left(
            search,
            images=None if of is None else of * search.n_images - budget.images,
            images_per_second=rate,
            worker_seconds=sum(each.seconds for each in spend.values()),
            workers_busy=busy,
            elapsed=elapsed,
        )
    size = store.config.held_out_images
    is_done = state == "done"
    to_validate = 0 if is_done else max(0, _most_validated(store) - n_validated) * size
    best, best_baseline = bests_of(store)
    held_out, held_out_baseline = held_out_of(store)
    failed = sum(row["count"] for row in totals if row["state"] == "failed")
    progress = Progress(
        stage=_stage(store, state, answers),
        done=done,
        total=of,
        best=best,
        best_baseline=best_baseline,
        held_out=held_out,
        held_out_baseline=held_out_baseline,
        predictor=predictor_of(store),
        failed=failed + round(sum(each["failed"] for each in jobs.values())),
        images_per_second=rate,
        seconds_left=with_validation(left, to_validate, rate) if is_running else None,
        workers_busy=busy,
        workers=workers if is_running else 0,
        spend=spend,
        budget=budget.words,
        share=budget.share,
        warnings=warnings_of(store),
        gains=gains_of(store.notes(GAINS), store.config.direction),
        whole=whole_share(budget.share, budget.images, n_validated * size, to_validate),
        today=today_of(store),
        words=MetricWords.of(store.config.metric),
    )
    silent = None if newest is None else (now - newest).total_seconds()
    return Watched(study=store.name, state=state, progress=progress, silent_seconds=silent)


def spend_of(store: StudyStore) -> dict[str, Spend]:
    """What each rung and each kind of job cost so far."""
    return _spend(_totals(store), store.job_totals())


def held_out_of(store: StudyStore) -> tuple[dict[int, float], dict[int, float]]:
    """Held-out values of the found winner and of the best baseline, by NFE."""
    scored = validated(evaluations_frame(store, of_validated=True), store.config)
    found: dict[int, float] = {}
    published: dict[int, float] = {}
    for nfe in {row.nfe for row in scored}:
        best, baseline = best_of([row for row in scored if row.nfe == nfe])
        if best is not None:
            found[nfe] = best.value
        if baseline is not None:
            published[nfe] = baseline.value
    return found, published


def _state(store: StudyStore) -> tuple[str, datetime]:
    """The state, and since when."""
    (row,) = store.read(
        lambda study: select(STUDIES.c.state, STUDIES.c.updated_at).where(STUDIES.c.id == study)
    )
    return row["state"], row["updated_at"]


def _totals(store: StudyStore) -> Sequence[Any]:
    """Count, network calls and seconds by rung, state and number of images."""
    group = (EVALUATIONS.c.rung, EVALUATIONS.c.state, EVALUATIONS.c.n_images)
    return store.read(
        lambda study: (
            select(
                *group,
                func.count().label("count"),
                func.coalesce(func.sum(EVALUATIONS.c.network_calls), 0).label("network_calls"),
                func.sum(EVALUATIONS.c.seconds).label("seconds"),
            )
            .where(EVALUATIONS.c.study_id == study)
            .group_by(*group)
        )
    )


def _spend(totals: Sequence[Any], jobs: dict[str, dict[str, float]]) -> dict[str, Spend]:
    kinds = [{"rung": kind, **each} for kind, each in jobs.items()]
    spend: dict[str, Spend] = {}
    for row in (*totals, *kinds):
        before = spend.get(row["rung"], Spend())
        spend[row["rung"]] = Spend(
            before.count + round(row["count"]),
            before.network_calls + round(row["network_calls"]),
            before.seconds + float(row["seconds"]),
        )
    return spend


def _most_validated(store: StudyStore) -> int:
    """How many schedules are validated at most, by the published ones proposed so far."""
    rows = store.read(
        lambda study: (
            select(PROPOSALS.c.origin, SCHEDULES.c.nfe)
            .join(SCHEDULES, SCHEDULES.c.id == PROPOSALS.c.schedule_id)
            .where(PROPOSALS.c.study_id == study, PROPOSALS.c.origin.startswith(BASELINE))
        )
    )
    solvers: dict[int, list[str | None]] = {nfe: [] for nfe in store.config.space.nfe}
    for row in rows:
        solvers.setdefault(row["nfe"], []).append(Origin.of_text(row["origin"]).solver)
    return sum(most_validated(store.config, known) for known in solvers.values())


def _n_validated(store: StudyStore, totals: Sequence[Any]) -> int:
    size = store.config.held_out_images
    validation = [row for row in totals if row["rung"] == Rung.VALIDATION.value]
    return sum(row["count"] for row in validation if row["n_images"] == size)


def _stage(store: StudyStore, state: str, answers: Sequence[RecentAnswer]) -> str:
    """As the driver calls it: by the newest answer while it searches."""
    if state == "validating":
        return "validation"
    if state != "searching" or not answers:
        return state
    newest = answers[-1]
    if newest.name not in SEARCHING:
        return newest.name
    origins = store.read(
        lambda study: select(PROPOSALS.c.origin).where(
            PROPOSALS.c.study_id == study, PROPOSALS.c.schedule_id == newest.schedule_id
        )
    )
    is_baseline = any(Origin.of_text(row["origin"]).is_baseline for row in origins)
    return "baselines" if is_baseline else "search"


def bests_of(store: StudyStore) -> tuple[dict[int, float], dict[int, float]]:
    """The best value at the search rung by NFE, of what was found and of the baselines, but for
    what is vetoed.
    """

    if store.config.guards:
        return _feasible_bests(store)
    vetoed = list(store.vetoes())
    best = func.min if store.config.direction is Direction.MINIMIZE else func.max

    def bests(study: int) -> sa.Select[Any]:
        baselines = select(PROPOSALS.c.schedule_id).where(
            PROPOSALS.c.study_id == study, PROPOSALS.c.origin.startswith(BASELINE)
        )
        side = sa.case((EVALUATIONS.c.schedule_id.in_(baselines), 1), else_=0).label("side")
        rows = select(EVALUATIONS.c.nfe, side, EVALUATIONS.c.value).where(
            EVALUATIONS.c.study_id == study,
            EVALUATIONS.c.rung == Rung.SEARCH.value,
            EVALUATIONS.c.state == "complete",
            EVALUATIONS.c.schedule_id.not_in(vetoed),
        )
        each = rows.subquery()
        found = select(each.c.nfe, each.c.side, best(each.c.value).label("value"))
        return found.group_by(each.c.nfe, each.c.side)

    sides: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for row in store.read(bests):
        sides[row["side"]][row["nfe"]] = row["value"]
    return sides


def _feasible_bests(store: StudyStore) -> tuple[dict[int, float], dict[int, float]]:
    """As `bests_of`, of what keeps the study's guards, which no query knows."""
    rows, direction = ranked(evaluations_frame(store)), store.config.direction
    sides: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for nfe in sorted(set(rows["nfe"])):
        of_nfe = rows[rows["nfe"] == nfe]
        for side in (0, 1):
            best = direction.best(of_nfe["value"][of_nfe["is_baseline"] == bool(side)])
            if best is not None:
                sides[side][int(nfe)] = float(best)
    return sides


def today_of(store: StudyStore) -> dict[int, RunToday]:
    """What runs today at each number of calls, as far as it is measured.

    Two queries: databases without statistics of a table join the two by all pairs of their rows.
    """
    proposed = store.read(
        lambda study: select(PROPOSALS.c.schedule_id, PROPOSALS.c.origin).where(
            PROPOSALS.c.study_id == study, PROPOSALS.c.origin.startswith(BASELINE)
        )
    )
    origins: dict[str, list[Origin]] = {}
    for row in proposed:
        origin = Origin.of_text(row["origin"])
        if origin.is_stock:
            origins.setdefault(row["schedule_id"], []).append(origin)
    counted = origins.keys() - store.vetoes().keys()
    measured = store.read(
        lambda study: select(
            EVALUATIONS.c.schedule_id, EVALUATIONS.c.nfe, EVALUATIONS.c.value
        ).where(
            EVALUATIONS.c.study_id == study,
            EVALUATIONS.c.rung == Rung.SEARCH.value,
            EVALUATIONS.c.state == "complete",
            EVALUATIONS.c.schedule_id.in_(counted),
        )
    )
    found: dict[int, RunToday] = {}
    direction = store.config.direction
    for row in measured:
        for origin in origins[row["schedule_id"]]:
            today = RunToday.of(origin, row["value"])
            found[row["nfe"]] = today.better(found.get(row["nfe"]), direction)
    return found


def warnings_of(store: StudyStore) -> tuple[str, ...]:
    """What the check before the search warned of, and what of the search came to nothing."""
    checked = [m for _, content in store.notes(WARNINGS) for m in content["messages"]]
    return (*checked, *gain_warnings(store.notes(GAINS)))


def predictor_of(store: StudyStore) -> dict[int, Quality]:
    """How the predictor did at the latest calibration of each NFE."""
    noted = [quality_of(kind, content) for kind, content in store.notes("calibration")]
    return dict(each for each in noted if each is not None)
