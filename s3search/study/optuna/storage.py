"""Optuna's own storage on a database, made safe for several processes, be they the first ones."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from s3search.errors import StudyConflict
from s3search.study.database.engine import connect_arguments, make_safe_for_processes, redacted

StorageT = TypeVar("StorageT", bound=RDBStorage)

_PATIENCE_SECONDS, _PAUSE_SECONDS = 60.0, 0.1


def open_rdb(
    url: str,
    *,
    writes: bool = True,
    kind: type[RDBStorage] = RDBStorage,
    arguments: dict[str, Any] | None = None,
) -> RDBStorage:
    """The storage, whose tables are made where they are missing; raises `StudyConflict` for a
    schema of another version.

    Optuna makes them table by table and fails where another process does so too: then the other
    one is waited for.
    """
    optuna.logging.get_logger("optuna").setLevel(optuna.logging.WARNING)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            storage = kind(url, engine_kwargs=arguments or connect_arguments(url))
            break
        except RuntimeError as error:  # Optuna's word for it
            raise StudyConflict(f"storage: {redacted(url)}: {error}") from error
        except (sa.exc.DBAPIError, StorageInternalError) as error:
            if not _is_beaten(error) or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
    make_safe_for_processes(storage.engine, writes=writes)
    storage.engine.dispose()
    return storage


def _is_beaten(error: BaseException | None) -> bool:
    """Whether another process made a table, a type or a row of it first, or is at it."""
    if isinstance(error, StorageInternalError):
        return _is_beaten(error.__cause__)
    if isinstance(error, sa.exc.IntegrityError):
        return True
    said = str(getattr(error, "orig", "")).lower()
    return "already exists" in said or "locked" in said


def close_rdb(storage: RDBStorage) -> None:
    """Gives all connections back."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def closed_after(storage: StorageT) -> Iterator[StorageT]:
    """The storage, for a while."""
    try:
        yield storage
    finally:
        close_rdb(storage)
