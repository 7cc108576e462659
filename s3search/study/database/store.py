"""The study database: one Optuna study per search, and our own tables beside it.

The driver is the only writer.  Every change is one transaction in our tables first; the Optuna
trial follows (`s3search.study.optuna.mirror`).  An evaluation is unique by (study, schedule, rung,
images, noise seed), so nothing is ever counted twice.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.engine import Engine

from s3search.errors import LeaseLost, S3SearchError, StudyConflict, nearest
from s3search.search.questions import Answer, Measurement
from s3search.search.space import SpaceConfig
from s3search.search.trial import Trial
from s3search.study.database.engine import (
    connected,
    insert_missing,
    insert_or_leave,
    open_engine,
    redacted,
)
from s3search.study.database.lease import Lease
from s3search.study.database.reader import StudyReader
from s3search.study.database.retries import ridden_out, without_waiting
from s3search.study.database.rows import (
    answer_row,
    measurement_row,
    now,
    schedule_rows,
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
from s3search.study.file.config import StudyConfig
from s3search.study.metric_words import MetricWords
from s3search.study.optuna.copying import n_trials
from s3search.study.optuna.mirror import DATABASE_ERRORS, Objective, OptunaMirror
from s3search.study.vetoes import Veto, keep_vetoes, vetoes_of

_FOUND_LATER = ("mean_image", "ems", "jump", "layers")  # unset in spaces of earlier releases
_BEFORE_TARGETS = {"target": "any", "data_bound": True}  # as spaces without these keys had it


class StudyStore(StudyReader):
    """One study in one database; open it with `create_or_resume` or `open_study`."""

    def __init__(self, engine: Engine, url: str, row: Any) -> None:
        super().__init__(engine, url, row)
        self._url = url
        table, n_images = self.config.metric, self.config.search.n_images
        objective = Objective(
            name=f"{MetricWords.of(table).short}@{n_images} ({table.named})",
            direction=self.config.direction,
        )
        self.mirror = OptunaMirror(engine, url, self.name, objective, self._write)
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
            self.keep_vetoes()

    @ridden_out
    def keep_vetoes(self) -> dict[str, Veto]:
        """What a person has rejected by now, by schedule id, kept in our own tables too."""
        with self._write() as connection:
            found = vetoes_of(connection, self.name)
            keep_vetoes(connection, self._id, found)
        return found

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
        schedules = self._new_schedules(list(trials.values()))
        with self._write() as connection:
            insert_missing(connection, SCHEDULES, schedules)
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
        schedules = self._new_schedules([measured.trial])
        with self._write() as connection:
            insert_missing(connection, SCHEDULES, schedules)
            is_new = self._add_row(connection, measured)
            if measured.second is not None:
                self._add_row(connection, measured.second)
        self._stored.add(measured.trial.id)
        return is_new

    def _add_row(self, connection: sa.Connection, measured: Measurement) -> bool:
        insert = insert_or_leave(connection, EVALUATIONS).returning(EVALUATIONS.c.id)
        row = connection.execute(insert, measurement_row(self._id, measured)).first()
        return row is not None

    def _new_schedules(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """Rows of those that are new, made before a transaction begins: a trial of the study may
        have to read its schedule, in a transaction of its own.
        """
        return schedule_rows([trial for trial in trials if trial.id not in self._stored])

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
                _check_no_trials(connection, config)
                connection.execute(  # unless another driver came first, just now
                    insert_or_leave(connection, STUDIES).values(
                        name=config.study.name,
                        config=_stored(config.settled()),
                        space=json.dumps(space),
                        state="searching",
                        created_at=now(),
                        updated_at=now(),
                    )
                )
                row = _row(connection, config.study.name)
        store = StudyStore(engine, url, row)
        config = config.settled(store.config)
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


def open_study(url: str, name: str, *, may_be_older: bool = False) -> StudyStore:
    """An existing study, for reading; raises `InvalidConfig` or `StudyConflict` if it is not
    there.  ``may_be_older``: in a database of an older schema, too.
    """
    engine = open_engine(url, create=False, may_be_older=may_be_older)
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


@contextmanager
def stored_study(url: str, name: str) -> Iterator[StudyStore | None]:
    """The study as it is stored, before it is opened to write; None where there is none to read.

    It may be new or not readable: what is wrong is told when it is opened.  Of an older schema it
    has its file, its space, its notes, and what was measured with what.
    """
    try:
        store = open_study(url, name, may_be_older=True)
    except S3SearchError:
        yield None
        return
    with store:
        yield store


def study_names(url: str) -> list[str]:
    """Names of all studies in a database."""
    with connected(url) as connection:
        return list(connection.scalars(select(STUDIES.c.name).order_by(STUDIES.c.name)))


def _check_no_trials(connection: sa.Connection, config: StudyConfig) -> None:
    """Raises `StudyConflict` where a new study would take trials and vetoes of others for its
    own.
    """
    name = config.study.name
    count = n_trials(connection, name)
    if count:
        raise StudyConflict(
            f"study {name!r} is new, but Optuna has a study of that name with {count} trials in "
            f"{redacted(config.storage.url)}: an earlier one that was not removed whole, or "
            f"another program's; remove it (`s3search storage prune {name} --yes`, which takes "
            "only what s3search made), or give the new study another name"
        )


def _row(connection: sa.Connection, name: str) -> Any:
    return connection.execute(select(STUDIES).where(STUDIES.c.name == name)).first()


def _stored(config: StudyConfig) -> str:
    """The study file as the database keeps it: without its own URL, which may hold a password."""
    return config.model_dump_json(exclude={"storage"})


def space_fields(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The stored space, flat: a study of an earlier release has fields that came later at their
    defaults, which are off.
    """
    defaults = flat(SpaceConfig().model_dump(mode="json")) | _BEFORE_TARGETS
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
