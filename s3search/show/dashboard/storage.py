"""Optuna's storage, opened to look at a study or to change it."""

from collections.abc import Container
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


def open_storage(url: str, *, writable: bool) -> RDBStorage:
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
