"""One driver per study: a lease in the database.

A driver holds the row of its study: a random token, renewed every `RENEW_SECONDS` by a thread with
a connection of its own.  The row is removed at the end, on Ctrl-C and on failure.  Whoever finds
one is refused, unless

- the process that holds it ran on this machine and is gone (a kill -9, then the same command);
- it was not renewed for `EXPIRED_SECONDS`, and is no process that runs on this machine;
- it is told to take the study over.

Times are the database's, so the clocks of the drivers' machines need not agree.  (SQLite's clock
is that of the process; it serves one machine.)

A driver that lost its lease must not write.  It asks inside every transaction that writes, and
keeps the row locked until that ends; a takeover changes the row, so it comes wholly before or
wholly after.  SQLite has one writer at a time anyway.
"""

import logging
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from s3search.errors import LeaseLost, S3SearchError, StudyConflict
from s3search.study.database.engine import (
    connect_arguments,
    connected,
    make_safe_for_processes,
    parsed_url,
    redacted,
)
from s3search.study.database.owners import Owner, is_gone, is_running, new_owner
from s3search.study.database.retries import ridden_out
from s3search.study.database.tables import LEASES, STUDIES

RENEW_SECONDS = 10.0
EXPIRED_SECONDS = 60.0
_JOIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who drives a study, by the row in the database."""

    owner: Owner
    started_at: datetime
    silent_seconds: float  # since it was renewed, by the database's clock

    def __str__(self) -> str:
        return (
            f"host {self.owner.host}, process {self.owner.pid}, "
            f"since {self.started_at:%Y-%m-%d %H:%M:%S} UTC, "
            f"last renewed {self.silent_seconds:.0f} s ago"
        )

    @property
    def left_it(self) -> str | None:
        """Why the lease is free although it is there; None if it is not."""
        if is_gone(self.owner):
            return "whose process is gone"
        # the clock may have jumped; a process of this machine can be asked itself
        if self.silent_seconds > EXPIRED_SECONDS and not is_running(self.owner):
            return "which is silent"
        return None


class Lease:
    """A study driven by this process, from `take` to `release`."""

    def __init__(self, url: str, study_id: int, study: str) -> None:
        self._engine = sa.create_engine(url, poolclass=NullPool, **connect_arguments(url))
        make_safe_for_processes(self._engine, writes=True)
        self._study = f"study {study!r}"
        self._where = f"{self._study} in {redacted(url)}"
        self._of_study = LEASES.c.study_id == study_id
        self._study_id = study_id
        self._owner = new_owner()
        self._file = _identity(url)
        self._url = url
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="s3search-lease", daemon=True)

    @classmethod
    def take(cls, url: str, study_id: int, study: str, *, takeover: bool = False) -> "Lease":
        """The lease of a study, renewed from now on; raises `StudyConflict` if another driver has
        it, unless this one is to take it over.
        """
        lease = cls(url, study_id, study)
        try:
            lease._enter(takeover=takeover)
        except BaseException:
            lease._engine.dispose()
            raise
        lease._thread.start()
        return lease

    def check(self, connection: Connection) -> None:
        """Raises `LeaseLost` if another driver has the study; else none gets it before the
        transaction of ``connection`` ends.
        """
        if self._is_replaced():
            raise LeaseLost(
                f"{self._where}: the file was deleted or replaced while this driver ran; what it "
                "measured went with it. This one stops; put the file back and run the same "
                "command to resume, or begin anew"
            )
        holds = sa.select(LEASES.c.owner).where(self._of_study).with_for_update(read=True)
        if connection.execute(holds).scalar() != self._owner.token:
            found = _holder(connection, self._of_study, sa.select(LEASES))
            by = "and ended" if found is None else f"({found})"
            raise LeaseLost(
                f"{self._where} was taken over by another driver {by} while this one was silent "
                "or on request; this one stops, and everything it wrote before is kept"
            )

    def release(self) -> None:
        """Gives the study free; without a database it expires by itself."""
        self._is_over.set()
        self._thread.join(_JOIN_SECONDS)
        if not self._is_replaced():
            with suppress(sa.exc.SQLAlchemyError), self._engine.begin() as connection:
                connection.execute(LEASES.delete().where(self._mine))
        self._engine.dispose()

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return sa.and_(self._of_study, LEASES.c.owner == self._owner.token)

    @ridden_out
    def _enter(self, *, takeover: bool) -> None:
        try:
            self._try_to_enter(takeover=takeover)
        except sa.exc.IntegrityError:  # another driver came first, just now
            self._try_to_enter(takeover=takeover)
        except sa.exc.OperationalError as error:
            if "lock timeout" not in str(error.orig):
                raise
            raise StudyConflict(
                f"{self._where} is locked by another connection, which has held its transaction "
                "for long: a driver that is paused, or one of an earlier release; end it, or its "
                "connection (`select pg_terminate_backend(pid) from pg_stat_activity where state "
                "= 'idle in transaction'`), then run the same command"
            ) from error

    def _try_to_enter(self, *, takeover: bool) -> None:
        owner = asdict(self._owner)
        owner["owner"] = owner.pop("token")
        with self._engine.begin() as connection:
            query = select(LEASES).with_for_update()
            found = _holder(connection, self._of_study, query)
            now = connection.execute(select(_clock(connection))).scalar_one()
            row = {**owner, "started_at": now, "renewed_at": now}
            if found is None:
                connection.execute(LEASES.insert().values(study_id=self._study_id, **row))
                return
            self._check_free(found, takeover=takeover)
            connection.execute(LEASES.update().where(self._of_study).values(**row))

    def _check_free(self, found: Holder, *, takeover: bool) -> None:
        if found.owner.token == self._owner.token:  # entered, but the answer was lost
            return
        why = "as asked" if takeover else found.left_it
        if why is None:
            raise StudyConflict(_refusal(self._where, found))
        # without its database: the log of a job is read by more people than know the head's
        _log.warning("%s: taken over from another driver, %s (%s)", self._study, why, found)

    def _keep(self) -> None:
        """Renews until the end, or until another driver has it: the next write will notice."""
        while not self._is_over.wait(RENEW_SECONDS):
            if self._is_replaced():  # to connect would make an empty one
                _log.warning("%s: its file was deleted or replaced; the driver stops", self._study)
                return
            with suppress(sa.exc.SQLAlchemyError):  # away; the lease lives on for a while
                if not self._renew():
                    return

    def _is_replaced(self) -> bool:
        return _identity(self._url) != self._file

    def _renew(self) -> bool:
        with self._engine.begin() as connection:
            renewed = LEASES.update().where(self._mine).values(renewed_at=_clock(connection))
            return connection.execute(renewed).rowcount == 1


def check_free(url: str, study: str) -> None:
    """Raises `StudyConflict` if another driver has the study; reads only, so that a second driver
    is refused before its workers start.  What is wrong with the database is not told here.
    """
    of_study = sa.and_(LEASES.c.study_id == STUDIES.c.id, STUDIES.c.name == study)
    try:
        with connected(url) as connection:
            found = _holder(connection, of_study, select(LEASES))
    except S3SearchError:
        return
    if found is not None and found.left_it is None:
        raise StudyConflict(_refusal(f"study {study!r} in {redacted(url)}", found))


def _holder(
    connection: Connection, of_study: sa.ColumnElement[bool], query: sa.Select[Any]
) -> Holder | None:
    row = connection.execute(query.where(of_study)).first()
    if row is None:
        return None
    now = connection.execute(select(_clock(connection))).scalar_one()
    owner = Owner(
        token=row.owner,
        host=row.host,
        machine=row.machine,
        pid=row.pid,
        process_start=row.process_start,
    )
    silent = (now - row.renewed_at).total_seconds()
    return Holder(owner=owner, started_at=row.started_at, silent_seconds=silent)


def _identity(url: str) -> tuple[int, int] | None:
    """Which file an SQLite database is; None where there is none, and for any other database."""
    parsed = parsed_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    try:
        found = Path(parsed.database).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _clock(connection: Connection) -> sa.ColumnElement[datetime]:
    """The database's time now, UTC."""
    if connection.dialect.name == "sqlite":  # in the form that SQLAlchemy writes
        return sa.func.strftime("%Y-%m-%d %H:%M:%f000", "now", type_=sa.DateTime)
    return sa.func.timezone("utc", sa.func.clock_timestamp(), type_=sa.DateTime)


def _refusal(where: str, holder: Holder) -> str:
    return (
        f"{where} is being run by another driver ({holder}); wait for it or stop it (what it "
        "measured is kept), or, if it is dead or out of reach, take the study over: "
        "`s3search launch STUDY.toml --takeover`"
    )
