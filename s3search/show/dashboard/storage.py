"""Optuna's storage, opened to look at a study or to change it."""

import json
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from s3search.errors import StudyConflict
from s3search.study.database.engine import (
    connect_arguments,
    connected,
    parsed_url,
    reading_url,
    redacted,
)
from s3search.study.optuna import tables as optuna_tables
from s3search.study.optuna.reading import read_trials
from s3search.study.optuna.storage import open_rdb

_MOST_NAMED = 1000  # trials by their ids in one statement; SQLite takes 32,766


class QuickStorage(RDBStorage):
    """Optuna's storage, which reads many trials with few statements; a database of another schema
    than ours is read as Optuna does.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any]) -> None:
        super().__init__(url, engine_kwargs=engine_kwargs)
        self._is_known = self.get_current_version() == optuna_tables.SCHEMA
        self._held: dict[tuple[int, str], Any] | None = None

    @contextmanager
    def at_once(self, also: Callable[[sa.Connection], None]) -> Iterator[None]:
        """Keeps what is written of studies' attributes meanwhile, and writes it in one transaction
        at the end, with what ``also`` writes: whoever looks, and a kill, find all of it or none.
        """
        if not self._is_known:
            yield
            return
        self._held = {}
        try:
            yield
            with self.engine.begin() as connection:
                _write_attributes(connection, self._held)
                also(connection)
        finally:
            self._held = None

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Now, or with the others of `at_once`."""
        if self._held is None:
            super().set_study_system_attr(study_id, key, value)
        else:
            self._held[study_id, key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As they will be, within `at_once`."""
        held = {key: value for (own, key), value in (self._held or {}).items() if own == study_id}
        return {**super().get_study_system_attrs(study_id), **held}

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """What `get_all_trials` and Optuna's cache of finished trials ask: the trials above an id,
        and the earlier ones that were not finished when they asked last.
        """
        found = []
        if self._is_known and states is None:
            is_long = len(included_trial_ids) > _MOST_NAMED
            after = -1 if is_long else trial_id_greater_than
            with self.engine.begin() as connection:
                found = read_trials(connection, study_id, after=after, also=included_trial_ids)
        if found:
            return found
        return super()._get_trials(  # it also knows which study is not there
            study_id, states, included_trial_ids, trial_id_greater_than
        )


def _write_attributes(connection: sa.Connection, wanted: Mapping[tuple[int, str], Any]) -> None:
    table = optuna_tables.STUDY_ATTRIBUTES
    ids = {study_id for study_id, _ in wanted}
    query = sa.select(table.c.study_id, table.c.key).where(table.c.study_id.in_(ids))
    known = {(row.study_id, row.key) for row in connection.execute(query)}
    for (study_id, key), value in wanted.items():
        content = {"value_json": json.dumps(value)}
        if (study_id, key) in known:
            where = (table.c.study_id == study_id, table.c.key == key)
            connection.execute(table.update().where(*where).values(content))
        else:
            row = {"study_id": study_id, "key": key, **content}
            connection.execute(table.insert().values(row))


def open_storage(url: str, *, writable: bool) -> QuickStorage:
    """Optuna's storage; unless writable the database itself refuses changes.

    Raises `InvalidConfig` for a URL that leads nowhere and `StudyConflict` for a database without
    trials.
    """
    _check_has_trials(url)
    arguments = connect_arguments(url)
    is_sqlite = parsed_url(url).get_backend_name() == "sqlite"
    if not writable and not is_sqlite:
        read_only = {"options": "-c default_transaction_read_only=on"}
        arguments["connect_args"] = arguments.get("connect_args", {}) | read_only
    read = reading_url(parsed_url(url)).render_as_string(hide_password=False)
    opened = url if writable else read
    storage = open_rdb(opened, writes=writable, kind=QuickStorage, arguments=arguments)
    assert isinstance(storage, QuickStorage)  # the kind that was asked for
    if is_sqlite and not writable:

        @event.listens_for(storage.engine, "connect")
        def _only_look(connection: Any, _record: Any) -> None:
            connection.execute("pragma query_only = 1")

    return storage


def _check_has_trials(url: str) -> None:
    """A database that is only looked at gets no tables of Optuna's by being looked at."""
    with connected(url) as connection:
        if not sa.inspect(connection).has_table("studies"):
            raise StudyConflict(
                f"{redacted(url)} holds no trial yet; come back when the first schedule of a "
                "study is measured"
            )
