"""What workers answered lately, as the database has it: how fast, and how many of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from s3search.search.questions import Rung
from s3search.study.database.store import StudyStore
from s3search.study.database.tables import EVALUATIONS, JOBS
from s3search.study.results.progress import RECENT_RESULTS, RECENT_SECONDS

LOOKED_AT = 500  # the newest answers of each kind

_PATIENCE = 3  # a worker silent for so many times the seconds of its last answer is not busy


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentAnswer:
    """One answer of a worker, failures among them."""

    name: str  # rung, or kind of job
    schedule_id: str | None  # None: of a job
    worker: str
    images: float
    seconds: float
    at: datetime  # UTC


def answers_of(store: StudyStore) -> list[RecentAnswer]:
    """The newest ones, the latest last."""
    nfe = sum(store.config.space.nfe) / len(store.config.space.nfe)  # of jobs it is not known
    named = [
        (row["rung"], row["schedule_id"], row["n_images"], row)
        for row in _newest(store, EVALUATIONS)
        if row["rung"] != Rung.SECOND_METRIC.value  # whose images are the validation's
    ]
    named += [(row["kind"], None, row["network_calls"] / nfe, row) for row in _newest(store, JOBS)]
    found = [
        RecentAnswer(
            name=name,
            schedule_id=schedule_id,
            worker=row["worker"],
            images=images,
            seconds=row["seconds"],
            at=row["created_at"],
        )
        for name, schedule_id, images, row in named
    ]
    return sorted(found, key=lambda each: each.at)[-LOOKED_AT:]


def images_per_second(answers: Sequence[RecentAnswer], since: datetime, now: datetime) -> float:
    """The rate of the last minute, or of the newest few answers, but not of before ``since``."""
    if not answers:
        return 0.0
    start = now - timedelta(seconds=RECENT_SECONDS)
    first = answers[-RECENT_RESULTS:][0]
    if first.at < start:  # long evaluations
        start = first.at - timedelta(seconds=first.seconds)
    elif len(answers) == LOOKED_AT:  # very short ones
        start = max(start, answers[0].at)
    start = max(start, since)
    images = sum(each.images for each in answers if each.at > start)
    return images / (now - start).total_seconds() if now > start else 0.0


def n_workers(answers: Sequence[RecentAnswer], now: datetime) -> int:
    """Workers that have answered lately, by how long their answers take."""
    return len(
        {
            each.worker
            for each in answers
            if (now - each.at).total_seconds() <= max(RECENT_SECONDS, _PATIENCE * each.seconds)
        }
    )


def _newest(store: StudyStore, table: sa.Table) -> Sequence[Any]:
    names = ("rung", "schedule_id", "n_images", "kind", "network_calls")
    columns = [table.c[name] for name in names if name in table.c]
    columns += [table.c.worker, table.c.seconds, table.c.created_at]
    return store.read(
        lambda study: (
            select(*columns)
            .where(table.c.study_id == study)
            .order_by(table.c.id.desc())
            .limit(LOOKED_AT)
        )
    )
