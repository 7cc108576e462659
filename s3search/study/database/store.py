"""The study database: one Optuna study per search, and our own tables beside it.

The driver is the only writer.  Every change is one transaction in our tables first; the Optuna
trial follows (`s3search.study.optuna.mirror`).  An evaluation is unique by (study, schedule, rung,
images, noise seed), so nothing is ever counted twice.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.engine import Engine

from s3search.errors import LeaseLost, StudyConflict, nearest
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Answer, Job, Measurement, Rung
from s3search.search.space import SpaceConfig
from s3search.search.trial import Trial
from s3search.study.database.engine import insert_missing, insert_or_leave, open_engine, redacted
from s3search.study.database.lease import Lease
from s3search.study.database.retries import ridden_out, without_waiting
from s3search.study.database.rows import (
    answer_of,
    answer_row,
    measurement_row,
    now,
    schedule_rows,
    trial_of,
    trial_rows,
)
from s3search.study.database.tables import (
    EVALUATIONS,
    EXTENSIONS,
    JOBS,
    NOTES,
    PROPOSALS,
    SCHEDULES,
    STUDIES,
)
from s3search.study.file.config import StudyConfig, parse_config
from s3search.study.optuna.mirror import DATABASE_ERRORS, OptunaMirror
from s3search.study.vetoes import Veto, vetoes_of

_FOUND_LATER = ("mean_image", "ems", "jump", "layers")  # unset in spaces of earlier releases
_SEARCHING = (Rung.SEARCH.value, Rung.STOPPED.value)


class StudyStore:
    """One study in one database; open it with `create_or_resume` or `open_study`."""

    def __init__(self, engine: Engine, url: str, row: Any) -> None:
        self._engine = engine
        self._url = url
        self._id: int = row.id
        self.name: str = row.name
        stored = {**json.loads(row.config), "storage": {"url": url}}
        self.config = parse_config(stored, source=f"study {row.name!r}")
        self.space: dict[str, Any] = json.loads(row.space)
        metric = f"FD@{self.config.search.n_images} ({self.config.metric.features})"
        self.mirror = OptunaMirror(engine, url, self.name, metric, self._write)
        self._lease: Lease | None = None
        self._stored: set[str] = set()  # schedules that need not be added again

    def __enter__(self) -> "StudyStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with nullcontext() if kind is None else without_waiting():
                self.close()
        except (*DATABASE_ERRORS, LeaseLost):
            if kind is None:  # else it would hide what ended the run; a resume mirrors again
                raise

    def hold(self, *, takeover: bool = False) -> None:
        """Makes this the only driver of the study until `close`; raises `StudyConflict` if there
        is another one, unless this one is to take the study over.
        """
        if self._lease is None:
            self._lease = Lease.take(self._url, self._id, self.name, takeover=takeover)

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction that writes; raises `LeaseLost` if another driver has the study."""
        with self._engine.begin() as connection:
            if self._lease is not None:
                self._lease.check(connection)
            yield connection

    def close(self) -> None:
        """Mirrors what waits, and gives the study free and the connections back."""
        try:
            self.mirror.flush()
        finally:
            self.mirror.close()
            if self._lease is not None:
                self._lease.release()  # and kept: what comes later finds it gone
            self._engine.dispose()

    # -- the search ------------------------------------------------------------------------

    @ridden_out
    def add_trials(self, trials: Mapping[int, Trial]) -> None:
        """Records trials, by their numbers, before they are sent to workers."""
        rows = trial_rows(self._id, trials)
        if not rows:
            return
        with self._write() as connection:
            self._add_schedules(connection, list(trials.values()))
            inserted = connection.execute(insert_or_leave(connection, PROPOSALS), rows)
            if inserted.rowcount != len(rows):  # some are there: the answer of a commit was lost
                self._check_numbers(connection, rows)
        self._stored |= {row["schedule_id"] for row in rows}

    def _check_numbers(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        query = select(PROPOSALS.c.number, PROPOSALS.c.schedule_id).where(
            PROPOSALS.c.study_id == self._id,
            PROPOSALS.c.number.in_([row["number"] for row in rows]),
        )
        known = {row.number: row.schedule_id for row in connection.execute(query)}
        for row in rows:
            if known[row["number"]] != row["schedule_id"]:
                raise StudyConflict(
                    f"study {self.name!r}: proposal {row['number']} already exists; "
                    "another driver is running this study, stop one of them"
                )

    @ridden_out
    def add_measurement(self, measured: Measurement) -> bool:
        """Records what became of a question, and what the second metric says; False if the former
        was known already (it is not written again).
        """
        with self._write() as connection:
            self._add_schedules(connection, [measured.trial])
            is_new = self._add_row(connection, measured)
            if measured.second is not None:
                self._add_row(connection, measured.second)
        self._stored.add(measured.trial.id)
        return is_new

    def _add_row(self, connection: sa.Connection, measured: Measurement) -> bool:
        insert = insert_or_leave(connection, EVALUATIONS).returning(EVALUATIONS.c.id)
        row = connection.execute(insert, measurement_row(self._id, measured)).first()
        return row is not None

    def _add_schedules(self, connection: sa.Connection, trials: Sequence[Trial]) -> None:
        """Adds those that are new; drivers of other studies may be adding the same at this
        moment.
        """
        new = [trial for trial in trials if trial.id not in self._stored]
        insert_missing(connection, SCHEDULES, schedule_rows(new))

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
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(PROPOSALS.c.number)).all()
        return [trial_of(row, functools.partial(self.schedule, row.schedule_id)) for row in rows]

    @ridden_out
    def values(self, rung: Rung, n_images: int) -> dict[str, float | None]:
        """Values by schedule id of one rung and size, None if failed."""
        query = select(EVALUATIONS.c.schedule_id, EVALUATIONS.c.value).where(
            EVALUATIONS.c.study_id == self._id,
            EVALUATIONS.c.rung == rung.value,
            EVALUATIONS.c.n_images == n_images,
        )
        with self._engine.begin() as connection:
            return {row.schedule_id: row.value for row in connection.execute(query)}

    @ridden_out
    def n_pending(self) -> int:
        """Proposals without a result at the search rung; a resumed driver runs them first."""
        measured = select(EVALUATIONS.c.schedule_id).where(
            EVALUATIONS.c.study_id == self._id, EVALUATIONS.c.rung.in_(_SEARCHING)
        )
        query = select(sa.func.count()).where(
            PROPOSALS.c.study_id == self._id, PROPOSALS.c.schedule_id.not_in(measured)
        )
        with self._engine.begin() as connection:
            return int(connection.execute(query).scalar_one())

    @ridden_out
    def schedule(self, schedule_id: str) -> Schedule:
        """The schedule behind an id of this study."""
        query = select(SCHEDULES.c.content).where(SCHEDULES.c.id == schedule_id)
        with self._engine.begin() as connection:
            content = connection.execute(query).scalar_one()
        return Schedule.from_dict(json.loads(content))

    @ridden_out
    def measured(self) -> Sequence[Any]:
        """The rows of all measurements in order, with what a search that is run again must know of
        them.
        """
        names = ["schedule_id", "rung", "n_images", "value", "error", "path", "seconds"]
        names.append("standard_error")
        query = select(*(EVALUATIONS.c[name] for name in names))
        with self._engine.begin() as connection:
            of_study = query.where(EVALUATIONS.c.study_id == self._id)
            return connection.execute(of_study.order_by(EVALUATIONS.c.id)).all()

    # -- the workers' other jobs -----------------------------------------------------------

    @ridden_out
    def add_answer(self, answer: Answer) -> None:
        """Records the answer to a question; one that has an answer keeps it."""
        key = answer.question.key
        known = select(JOBS.c.id).where(JOBS.c.study_id == self._id, JOBS.c.digest == key)
        row = JOBS.insert().values(**answer_row(self._id, answer))
        with self._write() as connection:
            if connection.execute(known).first() is None:
                connection.execute(row)

    @ridden_out
    def answered(self, questions: Sequence[Job]) -> dict[str, Answer]:
        """The answers that there are, by the questions' keys."""
        asked = {question.key: question for question in questions}
        query = select(JOBS).where(JOBS.c.study_id == self._id, JOBS.c.digest.in_(asked))
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return {row.digest: answer_of(row, asked[row.digest]) for row in rows}

    @ridden_out
    def answers(self, kind: str) -> list[Any]:
        """The answers to all questions of a kind, the latest last."""
        query = select(JOBS.c.result).where(
            JOBS.c.study_id == self._id, JOBS.c.kind == kind, JOBS.c.state == "complete"
        )
        with self._engine.begin() as connection:
            found = connection.execute(query.order_by(JOBS.c.id)).scalars().all()
        return [json.loads(content) for content in found]

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
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return {
            row["kind"]: {key: float(row[key]) for key in row if key != "kind"} for row in rows
        }

    @ridden_out
    def job_costs(self) -> Sequence[Any]:
        """(kind, network_calls, created_at) of every job, in order."""
        query = select(JOBS.c.kind, JOBS.c.network_calls, JOBS.c.created_at)
        with self._engine.begin() as connection:
            of_study = query.where(JOBS.c.study_id == self._id).order_by(JOBS.c.id)
            return connection.execute(of_study).mappings().all()

    @ridden_out
    def add_note(self, kind: str, content: Mapping[str, Any]) -> None:
        """Keeps what a search learned about itself; the same note is kept once."""
        text = json.dumps(dict(content), sort_keys=True)
        digest = hashlib.sha256(f"{kind}{text}".encode()).hexdigest()[:32]
        known = select(NOTES.c.id).where(NOTES.c.study_id == self._id, NOTES.c.digest == digest)
        with self._write() as connection:
            if connection.execute(known).first() is None:
                row = {"study_id": self._id, "kind": kind, "digest": digest, "content": text}
                connection.execute(NOTES.insert().values(**row, created_at=now()))

    @ridden_out
    def notes(self, kind: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """(kind, content) of what was noted, in order."""
        query = select(NOTES.c.kind, NOTES.c.content).where(NOTES.c.study_id == self._id)
        if kind is not None:
            query = query.where(NOTES.c.kind == kind)
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(NOTES.c.id)).all()
        return [(row.kind, json.loads(row.content)) for row in rows]

    @ridden_out
    def vetoes(self) -> dict[str, Veto]:
        """What a person has rejected, by schedule id."""
        with self._engine.begin() as connection:
            return vetoes_of(connection, self.name)

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
        with self._engine.begin() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row[0], row[1], row[2])

    @ridden_out
    def seconds_spent(self) -> float:
        """Worker seconds of all evaluations, failed ones too."""
        query = select(sa.func.coalesce(sa.func.sum(EVALUATIONS.c.seconds), 0.0))
        with self._engine.begin() as connection:
            of_study = query.where(EVALUATIONS.c.study_id == self._id)
            seconds = float(connection.execute(of_study).scalar_one())
        return seconds + sum(each["seconds"] for each in self.job_totals().values())

    @ridden_out
    def images_searched(self) -> int:
        """Images of all evaluations but the validation's, failed ones too."""
        rungs = (*_SEARCHING, Rung.FINALS.value)
        query = select(sa.func.coalesce(sa.func.sum(EVALUATIONS.c.n_images), 0)).where(
            EVALUATIONS.c.study_id == self._id, EVALUATIONS.c.rung.in_(rungs)
        )
        with self._engine.begin() as connection:
            return int(connection.execute(query).scalar_one())

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
    def rows(self, *, of_validated: bool = False) -> Sequence[Any]:
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
            rows = connection.execute(evaluations.order_by(EVALUATIONS.c.id)).mappings().all()
            latest_first = proposals.order_by(PROPOSALS.c.number.desc())
            first = {row.schedule_id: row for row in connection.execute(latest_first)}
        # NOTE: joined here; without an index on both columns SQLite takes time quadratic in trials
        joined = []
        for row in rows:
            proposal = first.get(row["schedule_id"])
            known = (None, None) if proposal is None else (proposal.number, proposal.origin)
            joined.append({**row, "number": known[0], "origin": known[1]})
        return joined

    @property
    @ridden_out
    def state(self) -> str:
        """searching, validating, done, interrupted or failed."""
        query = select(STUDIES.c.state).where(STUDIES.c.id == self._id)
        with self._engine.begin() as connection:
            return str(connection.execute(query).scalar_one())

    @ridden_out
    def set_state(self, state: str) -> None:
        """Records how far the study is."""
        change = STUDIES.update().where(STUDIES.c.id == self._id)
        with self._write() as connection:
            connection.execute(change.values(state=state, updated_at=now()))

    @ridden_out
    def set_config(
        self,
        config: StudyConfig,
        space: dict[str, Any] | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> None:
        """Replaces the stored study file (a larger budget, another cluster); with an extension
        the space as well, which is kept beside it.
        """
        values = {"config": _stored(config), "updated_at": now()}
        with self._write() as connection:
            if space is not None and extension is not None:
                values["space"] = json.dumps(space)
                before = {"study_id": self._id, "space_before": json.dumps(self.space)}
                connection.execute(EXTENSIONS.insert().values(**extension, **before))
                self.space = space
            connection.execute(STUDIES.update().where(STUDIES.c.id == self._id).values(**values))
        self.config = config


def create_or_resume(
    config: StudyConfig,
    space: dict[str, Any],
    *,
    takeover: bool = False,
    extension: Mapping[str, Any] | None = None,
) -> StudyStore:
    """The study that ``config`` names, for its only driver: made if it is new, resumed if it is
    there; with ``extension``, a row to add of `s3search.study.extensions`, in another space.

    Raises `StudyConflict` if the stored study asks for something else than ``config``, or has
    another driver and this one is not to take it over.
    """
    url = config.storage.url
    engine = open_engine(url, create=True)
    try:
        with engine.begin() as connection:
            row = _row(connection, config.study.name)
            if row is None:
                connection.execute(
                    STUDIES.insert().values(
                        name=config.study.name,
                        config=_stored(config),
                        space=json.dumps(space),
                        state="searching",
                        created_at=now(),
                        updated_at=now(),
                    )
                )
                row = _row(connection, config.study.name)
        store = StudyStore(engine, url, row)
        _check_same(store, config, space, is_extended=extension is not None)
        try:
            store.hold(takeover=takeover)
            store.set_config(config, space, extension)
        except BaseException:
            store.close()
            raise
    except BaseException:
        engine.dispose()
        raise
    return store


def open_study(url: str, name: str) -> StudyStore:
    """An existing study, for reading; raises `InvalidConfig` or `StudyConflict` if it is not
    there.
    """
    engine = open_engine(url, create=False)
    try:
        with engine.begin() as connection:
            row = _row(connection, name)
            names = connection.execute(select(STUDIES.c.name)).scalars().all()
        if row is None:
            raise StudyConflict(
                f"there is no study {name!r} in {redacted(url)}; "
                + (nearest(name, names) if names else "the database holds no study yet")
            )
        return StudyStore(engine, url, row)
    except BaseException:
        engine.dispose()
        raise


def study_names(url: str) -> list[str]:
    """Names of all studies in a database."""
    engine = open_engine(url, create=False)
    with engine.begin() as connection:
        names = connection.execute(select(STUDIES.c.name).order_by(STUDIES.c.name)).scalars().all()
    engine.dispose()
    return list(names)


def _row(connection: sa.Connection, name: str) -> Any:
    return connection.execute(select(STUDIES).where(STUDIES.c.name == name)).first()


def _stored(config: StudyConfig) -> str:
    """The study file as the database keeps it: without its own URL, which may hold a password."""
    return config.model_dump_json(exclude={"storage"})


def space_fields(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The stored space, flat: a study of an earlier release has fields that came later at their
    defaults, which are off.
    """
    defaults = flat(SpaceConfig().model_dump(mode="json"))
    known = {key: value for key, value in flat(stored).items() if key not in _FOUND_LATER}
    return {key: defaults[key] for key in flat(asked) if key in defaults} | known


def _check_same(
    store: StudyStore, config: StudyConfig, space: dict[str, Any], *, is_extended: bool
) -> None:
    old, new = flat(store.config.identity), flat(config.identity)
    old |= {f"space.{key}": value for key, value in space_fields(store.space, space).items()}
    new |= {f"space.{key}": value for key, value in flat(space).items()}
    for key in sorted(old.keys() | new.keys()):
        if is_extended and key.startswith("space.") and not key.startswith("space.statistics"):
            continue
        if old.get(key) != new.get(key):
            raise StudyConflict(
                f"study {store.name!r} exists with {key} = {old.get(key)!r}, asked for "
                f"{new.get(key)!r}; only budgets, validation, storage and cluster may change, "
                "and the space grow: give the new study another name"
            )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested tables by their paths, "mutation.times"."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
