"""What a study's database says: every question that is asked of it, and nothing that writes."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.engine import Engine

from s3search.schedules.schedule import Schedule
from s3search.search.questions import HELD_OUT_SOLVES, SEARCHING, Answer, Job, Rung
from s3search.search.trial import Trial
from s3search.study.database.retries import ridden_out
from s3search.study.database.rows import answer_of, trial_of
from s3search.study.database.tables import (
    EVALUATIONS,
    JOBS,
    NOTES,
    PROPOSALS,
    SCHEDULES,
    STUDIES,
)
from s3search.study.file.config import parse_config
from s3search.study.optuna.marks import numbers_of
from s3search.study.vetoes import Veto, vetoes_of


class StudyReader:
    """One study in one database, as its rows say."""

    def __init__(self, engine: Engine, url: str, row: Any) -> None:
        self._engine = engine
        self._id: int = row.id
        self.name: str = row.name
        stored = {**json.loads(row.config), "storage": {"url": url}}
        self.config = parse_config(stored, source=f"study {row.name!r}")
        self.space: dict[str, Any] = json.loads(row.space)

    @ridden_out
    def trials(self) -> list[Trial]:
        """All trials in order, their schedules unread: there may be tens of thousands."""
        names = ("number", "schedule_id", "origin", "parents")
        columns = (PROPOSALS.c[name] for name in names)
        query = (
            select(*columns, SCHEDULES.c.nfe, SCHEDULES.c.plan_key)
            .join(SCHEDULES, SCHEDULES.c.id == PROPOSALS.c.schedule_id)
            .where(PROPOSALS.c.study_id == self._id)
        )
        rows = self._all(query.order_by(PROPOSALS.c.number))
        return [trial_of(row, functools.partial(self.schedule, row.schedule_id)) for row in rows]

    @ridden_out
    def values(self, rung: Rung, n_images: int) -> dict[str, float | None]:
        """Values by schedule id of one rung and size, None if failed."""
        query = select(EVALUATIONS.c.schedule_id, EVALUATIONS.c.value).where(
            EVALUATIONS.c.study_id == self._id,
            EVALUATIONS.c.rung == rung.value,
            EVALUATIONS.c.n_images == n_images,
        )
        return {row.schedule_id: row.value for row in self._all(query)}

    @ridden_out
    def n_pending(self) -> int:
        """Proposals without a result at the search rung; a resumed driver runs them first."""
        measured = select(EVALUATIONS.c.schedule_id).where(
            EVALUATIONS.c.study_id == self._id, EVALUATIONS.c.rung.in_(SEARCHING)
        )
        query = select(sa.func.count()).where(
            PROPOSALS.c.study_id == self._id, PROPOSALS.c.schedule_id.not_in(measured)
        )
        return int(self._scalar(query))

    @ridden_out
    def has_trials(self) -> bool:
        """Whether a search has proposed anything."""
        query = select(PROPOSALS.c.number).where(PROPOSALS.c.study_id == self._id).limit(1)
        return bool(self._all(query))

    @ridden_out
    def schedule(self, schedule_id: str) -> Schedule:
        """The schedule behind an id of this study."""
        query = select(SCHEDULES.c.content).where(SCHEDULES.c.id == schedule_id)
        return Schedule.from_dict(json.loads(self._scalar(query)))

    @ridden_out
    def measured(self) -> Sequence[Any]:
        """The rows of all measurements in order, with what a search that is run again must know of
        them.
        """
        names = ["schedule_id", "rung", "n_images", "noise_seed", "value", "error", "path"]
        names += ["seconds", "standard_error", "guards"]
        query = select(*(EVALUATIONS.c[name] for name in names))
        of_study = query.where(EVALUATIONS.c.study_id == self._id)
        return self._all(of_study.order_by(EVALUATIONS.c.id))

    @ridden_out
    def answered(self, questions: Sequence[Job]) -> dict[str, Answer]:
        """The answers that there are, by the questions' keys."""
        asked = {question.key: question for question in questions}
        query = select(JOBS).where(JOBS.c.study_id == self._id, JOBS.c.digest.in_(asked))
        return {row.digest: answer_of(row, asked[row.digest]) for row in self._all(query)}

    @ridden_out
    def answers(self, kind: str) -> list[Any]:
        """The answers to all questions of a kind, the latest last."""
        query = select(JOBS.c.result).where(
            JOBS.c.study_id == self._id, JOBS.c.kind == kind, JOBS.c.state == "complete"
        )
        return [json.loads(row.result) for row in self._all(query.order_by(JOBS.c.id))]

    @ridden_out
    def job_totals(self) -> dict[str, dict[str, float]]:
        """Count, image-calls and seconds of each kind of job, failures among them."""
        query = (
            select(
                JOBS.c.kind,
                sa.func.count().label("count"),
                sa.func.sum(sa.case((JOBS.c.state == "failed", 1), else_=0)).label("failed"),
                sa.func.sum(JOBS.c.network_calls).label("network_calls"),
                sa.func.sum(JOBS.c.seconds).label("seconds"),
            )
            .where(JOBS.c.study_id == self._id)
            .group_by(JOBS.c.kind)
            .order_by(JOBS.c.kind)
        )
        rows = self.read(lambda _: query)
        return {
            row["kind"]: {key: float(row[key]) for key in row if key != "kind"} for row in rows
        }

    @ridden_out
    def job_costs(self) -> Sequence[Any]:
        """(kind, network_calls, created_at) of every job, in order."""
        query = select(JOBS.c.kind, JOBS.c.network_calls, JOBS.c.created_at)
        return self.read(lambda study: query.where(JOBS.c.study_id == study).order_by(JOBS.c.id))

    @ridden_out
    def notes(self, kind: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """(kind, content) of what was noted, in order."""
        query = select(NOTES.c.kind, NOTES.c.content).where(NOTES.c.study_id == self._id)
        if kind is not None:
            query = query.where(NOTES.c.kind == kind)
        rows = self._all(query.order_by(NOTES.c.id))
        return [(row.kind, json.loads(row.content)) for row in rows]

    @ridden_out
    def vetoes(self) -> dict[str, Veto]:
        """What a person has rejected, by schedule id."""
        with self._engine.begin() as connection:
            return vetoes_of(connection, self.name)

    @ridden_out
    def trial_numbers(self, schedule_ids: Sequence[str]) -> dict[str, int]:
        """Optuna's numbers of the first trials of schedules, by their ids, as far as there are."""
        with self._engine.begin() as connection:
            return numbers_of(connection, self.name, schedule_ids)

    @ridden_out
    def measured_with(self, *, second: bool = False) -> tuple[str, str, str] | None:
        """Model fingerprint, reference digest and extractor of the first evaluation (of the
        second metric's first one); None without one.
        """
        of_second = EVALUATIONS.c.rung == Rung.SECOND_METRIC.value
        query = (
            select(
                EVALUATIONS.c.model_fingerprint,
                EVALUATIONS.c.reference_digest,
                EVALUATIONS.c.extractor,
            )
            .where(
                EVALUATIONS.c.study_id == self._id,
                EVALUATIONS.c.state == "complete",
                of_second if second else sa.not_(of_second),
            )
            .order_by(EVALUATIONS.c.id)
            .limit(1)
        )
        return next(((row[0], row[1], row[2]) for row in self._all(query)), None)

    @ridden_out
    def seconds_spent(self) -> float:
        """Worker seconds of all evaluations, failed ones too."""
        query = select(sa.func.coalesce(sa.func.sum(EVALUATIONS.c.seconds), 0.0))
        seconds = float(self._scalar(query.where(EVALUATIONS.c.study_id == self._id)))
        return seconds + sum(each["seconds"] for each in self.job_totals().values())

    @ridden_out
    def images_spent(self) -> float:
        """Images of all evaluations and jobs but the validation's; jobs do not say their numbers
        of calls.  Failed ones too.
        """
        nfe = sum(self.config.space.nfe) / len(self.config.space.nfe)
        totals = self.job_totals().items()
        jobs = sum(own["network_calls"] for kind, own in totals if kind != HELD_OUT_SOLVES)
        rungs = (*SEARCHING, Rung.FINALS.value)
        query = select(sa.func.coalesce(sa.func.sum(EVALUATIONS.c.n_images), 0)).where(
            EVALUATIONS.c.study_id == self._id, EVALUATIONS.c.rung.in_(rungs)
        )
        return int(self._scalar(query)) + jobs / nfe

    def _all(self, query: sa.Select[Any]) -> Sequence[Any]:
        with self._engine.begin() as connection:
            return connection.execute(query).all()

    def _scalar(self, query: sa.Select[Any]) -> Any:
        with self._engine.begin() as connection:
            return connection.execute(query).scalar_one()

    @ridden_out
    def read(self, query: Callable[[int], sa.Select[Any]]) -> Sequence[Any]:
        """The rows of a query made for the id of this study, as mappings."""
        with self._engine.begin() as connection:
            return connection.execute(query(self._id)).mappings().all()

    @staticmethod
    def row_names() -> list[str]:
        """The columns of `rows`."""
        return [*EVALUATIONS.c.keys(), "number", "origin"]

    @ridden_out
    def rows(self, *, of_validated: bool = False) -> list[dict[str, Any]]:
        """Every evaluation (``of_validated``: of the validated schedules) with its first
        proposal's number and origin where it has one; for `frame`.
        """
        evaluations = select(EVALUATIONS).where(EVALUATIONS.c.study_id == self._id)
        columns = (PROPOSALS.c.schedule_id, PROPOSALS.c.number, PROPOSALS.c.origin)
        proposals = select(*columns).where(PROPOSALS.c.study_id == self._id)
        if of_validated:
            validated = select(EVALUATIONS.c.schedule_id).where(
                EVALUATIONS.c.study_id == self._id,
                EVALUATIONS.c.rung == Rung.VALIDATION.value,
            )
            evaluations = evaluations.where(EVALUATIONS.c.schedule_id.in_(validated))
            proposals = proposals.where(PROPOSALS.c.schedule_id.in_(validated))
        with self._engine.begin() as connection:
            rows = connection.execute(evaluations.order_by(EVALUATIONS.c.id)).all()
            latest_first = connection.execute(proposals.order_by(PROPOSALS.c.number.desc()))
            first = {key: (number, origin) for key, number, origin in latest_first}
        # NOTE: joined here; without an index on both columns SQLite takes time quadratic in trials
        names = self.row_names()
        key = names.index("schedule_id")
        joined = ((*row, *first.get(row[key], (None, None))) for row in rows)
        return [dict(zip(names, each, strict=True)) for each in joined]

    @property
    @ridden_out
    def state(self) -> str:
        """searching, validating, done, interrupted or failed."""
        query = select(STUDIES.c.state).where(STUDIES.c.id == self._id)
        return str(self._scalar(query))
