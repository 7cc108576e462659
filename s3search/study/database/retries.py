"""A database that goes away for a while: what it cut off is done again, within bounds.

A server that restarts, or a network that is cut, fails the transaction under way and every attempt
to connect until it is back.  A call decorated with `ridden_out` is then made again, whole, after a
pause that doubles, for `PATIENCE_SECONDS` in all.

A COMMIT whose answer is lost may have been done or not.  So what is decorated must leave the same
rows when it is done twice: it looks before it adds.
"""

import functools
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

_log = logging.getLogger(__name__)
_is_riding_out: ContextVar[bool] = ContextVar("is_riding_out", default=False)


def ridden_out(call: Callable[P, T]) -> Callable[P, T]:
    """The call, made again while the database is away; one that makes others is made again as a
    whole.
    """

    @functools.wraps(call)
    def persistent(*args: P.args, **kwargs: P.kwargs) -> T:
        if _is_riding_out.get():
            return call(*args, **kwargs)
        with without_waiting():
            return persist(functools.partial(call, *args, **kwargs))

    return persistent


@contextmanager
def without_waiting() -> Iterator[None]:
    """Calls within fail at once: for what is done on the way out, after something else failed."""
    token = _is_riding_out.set(True)
    try:
        yield
    finally:
        _is_riding_out.reset(token)


def persist(
    call: Callable[[], T],
    *,
    patience: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What ``call`` returns once the database lets it; its last error after ``patience``
    seconds.  Says on stderr that it waits.
    """
    chance = random.Random()
    pause, began = _FIRST_PAUSE, None
    while True:
        try:
            answer = call()
        except (sa.exc.SQLAlchemyError, StorageInternalError) as error:
            now = clock()
            began = now if began is None else began
            if not is_passing(error) or now - began + pause > patience:
                raise
            if now == began:
                _log.warning(
                    "the database does not answer (%s); trying again for up to %.0f s",
                    reason(error),
                    patience,
                )
            sleep(pause * chance.uniform(0.5, 1.0))  # not all drivers at once
            pause = min(2.0 * pause, _LONGEST_PAUSE)
        else:
            if began is not None:
                _log.warning("the database answers again after %.1f s", clock() - began)
            return answer


def is_passing(error: BaseException | None) -> bool:
    """Whether the database, and not what was asked of it, is at fault."""
    if isinstance(error, StorageInternalError):  # Optuna's word for any error of SQLAlchemy
        return is_passing(error.__cause__)
    if isinstance(error, sa.exc.PendingRollbackError):  # of a session that was cut off
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):  # a file is there or not, but it may be locked
        return "locked" in str(error.orig)
    broken = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    return broken or error.connection_invalidated


def reason(error: BaseException) -> str:
    """The first line of what the database's driver said."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    said = getattr(cause, "orig", None) or cause or error
    return (str(said).strip().splitlines() or [type(said).__name__])[0]
