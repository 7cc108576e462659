"""Optuna's storage on a database, made safe for several processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.storages import RDBStorage

from s3search.errors import StudyConflict
from s3search.study.database.engine import connect_arguments, make_safe_for_processes, redacted


def open_rdb(
    url: str,
    *,
    writes: bool = True,
    kind: type[RDBStorage] = RDBStorage,
    arguments: dict[str, Any] | None = None,
) -> RDBStorage:
    """The storage, whose tables are made where they are missing; raises `StudyConflict` for a
    schema of another version.
    """
    try:
        storage = kind(url, engine_kwargs=arguments or connect_arguments(url))
    except RuntimeError as error:  # Optuna's word for it
        raise StudyConflict(f"storage: {redacted(url)}: {error}") from error
    make_safe_for_processes(storage.engine, writes=writes)
    storage.engine.dispose()
    return storage


def close_rdb(storage: RDBStorage) -> None:
    """Gives all connections back."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def closed_after(storage: RDBStorage) -> Iterator[RDBStorage]:
    """The storage, for a while."""
    try:
        yield storage
    finally:
        close_rdb(storage)
