"""Opening a database: connections made safe for several processes, and the schema brought up to
date.
"""

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from s3search.errors import InvalidConfig, StudyConflict

_MIGRATIONS = Path(__file__).with_name("migrations")
_VERSION_TABLE = "s3search_alembic_version"
_MAKING_TABLES = 0x73337365  # PostgreSQL's lock of who makes or upgrades our tables: "s3se"
_ENCODING = (
    "for example sqlite:///s3search.db or postgresql+psycopg://user:password@host/name, where "
    "'@', ':', '/', '?', '#' and '%' of a password are written %40, %3A, %2F, %3F, %23 and %25"
)
_BUSY_SECONDS = 60
_PAUSE_SECONDS = 0.05
_IDLE_SECONDS = 30  # that a transaction may do nothing; ours are short
_LOCK_SECONDS = 45  # longer: who is idle has been ended by then
_LIBPQ = {  # a dead connection fails within a minute, well within the patience of `retries`
    "connect_timeout": 10,  # seconds, of each address
    "keepalives": 1,
    "keepalives_idle": 20,  # of silence, then a probe; Linux' own default is two hours
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds that what was sent may stay unacknowledged
}
SECRETS = frozenset({"password", "sslpassword", "passwd"})  # keys of a URL's query
_SECRET = re.compile(  # up to the next key: a value that was not encoded may hold anything else
    rf"(?i)(?<=[?&])({'|'.join(sorted(SECRETS))})=.*?(?=&[\w.-]+=|$)", re.DOTALL
)
_USER = re.compile(r"([^:/@]*):(.*)@", re.DOTALL)  # to the last "@": the password may have some


def open_engine(url: str, *, create: bool, may_be_older: bool = False) -> Engine:
    """An engine on ``url`` whose schema is this release's.

    With ``create`` a missing or older schema is made or upgraded; without it a database that holds
    no study is an error, and nothing is written.  An older schema that ``may_be`` is left as it
    is: who reads it asks for no column that came later.  Raises `InvalidConfig` for a URL that
    leads nowhere and `StudyConflict` for another version.
    """
    engine = _engine(url, create=create)
    try:
        with _said_where(url):
            _bring_up_to_date(engine, url, create=create, may_be_older=may_be_older)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[Engine]:
    """What `open_engine` gives, for a while."""
    engine = open_engine(url, create=create)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def connected(url: str, *, create: bool = False) -> Iterator[sa.Connection]:
    """One transaction on a database that is opened for it; as `open_engine` says."""
    with opened(url, create=create) as engine, engine.begin() as connection:
        yield connection


def schema_of(url: str) -> str | None:
    """Version of the schema as it stands, None without our tables; raises `InvalidConfig`."""
    engine = _engine(url, create=False)
    try:
        with _said_where(url), engine.connect() as connection:
            return _current(connection)
    finally:
        engine.dispose()


@contextmanager
def _said_where(url: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
        raise InvalidConfig(
            f"storage: cannot open {redacted(url)} ({_cause(error, url)})"
        ) from error


def redacted(url: str) -> str:
    """The URL without its password, in the query too, for messages.

    It is hidden before anybody reads the URL: a password with an "@" or a "/" that was not encoded
    is hidden whole.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "the storage URL"
    if "sqlite" not in scheme:
        rest = _USER.sub(r"\1:***@", rest, count=1)
    return scheme + separator + _SECRET.sub(r"\1=hidden", rest)


def parsed_url(url: str) -> URL:
    """The parts of a database URL; raises `InvalidConfig` for what is none."""
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # whose own words repeat the URL
        raise InvalidConfig(f"storage: {redacted(url)} is no database URL; {_ENCODING}") from None
    if "@" in (parsed.host or ""):
        raise InvalidConfig(
            f"storage: {redacted(url)} has an '@' in its user or password; {_ENCODING}"
        )
    return parsed


def insert_missing(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[Any, Any]]
) -> None:
    """Inserts rows but for those whose key is taken, be it by a transaction under way.

    In the order of their ``id``, so that two transactions never wait for each other.
    """
    if rows:
        ordered = sorted((dict(row) for row in rows), key=lambda row: str(row["id"]))
        connection.execute(insert_or_leave(connection, table), ordered)


def insert_or_leave(
    connection: sa.Connection, table: sa.Table
) -> sqlite.Insert | postgresql.Insert:
    """An insert that leaves rows alone whose key is taken."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def make_safe_for_processes(engine: Engine, *, writes: bool) -> None:
    """On SQLite a write-ahead log, and write transactions that take their lock at once: without
    the latter two processes that read before they write dead-lock or write over each other.

    On PostgreSQL limits for locks and for transactions that nobody goes on with: a process that is
    paused within one, or whose machine sleeps, would keep all others waiting for ever.
    """
    if engine.dialect.name == "postgresql":
        event.listen(engine, "connect", _limit_waiting)
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        if writes:
            _use_log(connection)
            connection.execute("pragma synchronous=normal")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_log(connection: Any) -> None:
    """Switches to the write-ahead log; of many processes that do so on a new file SQLite lets one
    through and tells the others at once, whatever the time-out.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("pragma journal_mode=wal")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _limit_waiting(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"set idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
    cursor.execute(f"set lock_timeout = '{_LOCK_SECONDS}s'")
    cursor.close()
    connection.commit()


def connect_arguments(url: str) -> dict[str, Any]:
    """Engine arguments for ``url``: how long SQLite waits for a lock, and dead connections noticed
    elsewhere, even where the network swallows what is sent.

    A URL's own query parameters of those names win.
    """
    parsed = parsed_url(url)
    if parsed.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _BUSY_SECONDS}}
    if parsed.get_driver_name() not in ("psycopg", "psycopg2"):
        return {"pool_pre_ping": True}
    own = {key: value for key, value in _LIBPQ.items() if key not in parsed.query}
    return {"pool_pre_ping": True, "connect_args": own}


def _engine(url: str, *, create: bool) -> Engine:
    parsed = parsed_url(url)
    try:
        engine = sa.create_engine(
            parsed if create else reading_url(parsed), **connect_arguments(url)
        )
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise InvalidConfig(
            f"storage: {redacted(url)} is no database URL of a kind known here; {_ENCODING}"
        ) from error
    except ModuleNotFoundError as error:
        raise InvalidConfig(
            f"storage: {redacted(url)} needs {error.name!r}; pip install 'psycopg[binary]'"
        ) from error
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if file and not create and not Path(file).is_file():
        raise InvalidConfig(
            f"storage: there is no database file {file}; "
            "name it with --storage or $S3SEARCH_STORAGE, or launch a study first"
        )
    make_safe_for_processes(engine, writes=create)
    return engine


def reading_url(parsed: URL) -> URL:
    """The URL to read a database by: of an SQLite file that nobody can write here, such as one on
    a read-only mount, as a file that does not change.  SQLite would want to write beside it.

    Raises `InvalidConfig` where its last changes stand beside it still.
    """
    file = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
    if file is None or not file.is_file() or os.access(file.parent, os.W_OK):
        return parsed
    log = file.with_name(f"{file.name}-wal")
    if log.is_file() and log.stat().st_size:
        raise InvalidConfig(
            f"storage: {file} lies where nothing can be written, and its last changes are still "
            f"in {log.name}; open it once where it can be written (`s3search status`), or copy "
            "both files to such a place"
        )
    query = {**parsed.query, "immutable": "1", "uri": "true"}
    return parsed.set(database=f"file:{quote(str(file))}", query=query)


def _bring_up_to_date(engine: Engine, url: str, *, create: bool, may_be_older: bool) -> None:
    head, *older = _revisions()
    with engine.begin() as connection:
        if create and engine.dialect.name == "postgresql":  # SQLite has one writer anyway
            connection.execute(select(sa.func.pg_advisory_xact_lock(_MAKING_TABLES)))
        current = _current(connection)
        if current == head or (may_be_older and current in older):
            return
        if current is not None and current not in older:
            raise StudyConflict(
                f"storage: {redacted(url)} has schema version {current!r}, this release of "
                f"s3search knows versions up to {head!r}; use the release that wrote it"
            )
        if not create:
            found = "no s3search tables" if current is None else f"the older schema {current!r}"
            raise StudyConflict(
                f"storage: {redacted(url)} holds {found}; `s3search launch` makes them, "
                "`s3search storage upgrade` brings them up to date"
            )
        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@cache
def _revisions() -> tuple[str, ...]:
    """Every version of the schema that this release knows, the newest first: each is a module,
    and a process that opens many databases loads them once.
    """
    scripts = ScriptDirectory.from_config(_alembic())
    return tuple(script.revision for script in scripts.walk_revisions())


def _alembic() -> Config:
    config = Config()
    # alembic reads "%" as configparser does
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _current(connection: sa.Connection) -> str | None:
    options = {"version_table": _VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _cause(error: sa.exc.DBAPIError, url: str) -> str:
    said = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
    folder = Path(parsed_url(url).database or "").parent
    if "unable to open database file" in said and not folder.is_dir():
        return (
            f"{said}: there is no folder {folder}; a path from the root has four slashes, "
            "sqlite:////folder/s3search.db"
        )
    if "unable to open database file" in said or "readonly database" in said:
        said += ": the file or its folder cannot be written here; finished studies are read there"
    return said
