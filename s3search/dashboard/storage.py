"""Optuna's storage, opened to look at a study or to change it."""

from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url

from s3search.errors import StudyConflict
from s3search.study.database import (
    connect_arguments,
    make_safe_for_processes,
    open_engine,
    redacted,
)


def open_storage(url: str, *, writable: bool) -> RDBStorage:
    """Optuna's storage; unless writable the database itself refuses changes.

    Raises `InvalidConfig` for a URL that leads nowhere and `StudyConflict` for a database without
    trials.
    """
    _check_has_trials(url)
    arguments = connect_arguments(url)
    is_sqlite = make_url(url).get_backend_name() == "sqlite"
    if not writable and not is_sqlite:
        read_only = {"options": "-c default_transaction_read_only=on"}
        arguments["connect_args"] = arguments.get("connect_args", {}) | read_only
    try:
        storage = RDBStorage(url, engine_kwargs=arguments)
    except RuntimeError as error:  # Optuna's word for a schema of another version
        raise StudyConflict(f"storage: {redacted(url)}: {error}") from error
    make_safe_for_processes(storage.engine, writes=writable)
    if is_sqlite and not writable:

        @event.listens_for(storage.engine, "connect")
        def _only_look(connection: Any, _record: Any) -> None:
            connection.execute("pragma query_only = 1")

    storage.engine.dispose()
    return storage


def _check_has_trials(url: str) -> None:
    """A database that is only looked at gets no tables of Optuna's by being looked at."""
    engine = open_engine(url, create=False)
    try:
        if not sa.inspect(engine).has_table("studies"):
            raise StudyConflict(
                f"{redacted(url)} holds no trial yet; come back when the first schedule of a "
                "study is measured"
            )
    finally:
        engine.dispose()
