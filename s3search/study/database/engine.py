"""Opening a database: connections made safe for several processes, and the schema brought up to
date.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from s3search.errors import InvalidConfig, StudyConflict

_MIGRATIONS = Path(__file__).with_name("migrations")
_VERSION_TABLE = "s3search_alembic_version"
_BUSY_SECONDS = 60
_LIBPQ = {  # a dead connection fails within a minute, well within the patience of `retries`
    "connect_timeout": 10,  # seconds, of each address
    "keepalives": 1,
    "keepalives_idle": 20,  # of silence, then a probe; Linux' own default is two hours
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds that what was sent may stay unacknowledged
}
SECRETS = frozenset({"password", "sslpassword", "passwd"})  # keys of a URL's query


def open_engine(url: str, *, create: bool) -> Engine:
    """An engine on ``url`` whose schema is this release's.

    With ``create`` a missing or older schema is made or upgraded; without it a database that holds
    no study is an error, and
    nothing is written.  Raises `InvalidConfig` for a URL that leads nowhere and `StudyConflict`
    for another version.
    """
    engine = _engine(url, create=create)
    try:
        _bring_up_to_date(engine, url, create=create)
    except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
        engine.dispose()
        raise InvalidConfig(f"storage: cannot open {redacted(url)} ({_cause(error)})") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def connected(url: str, *, create: bool = False) -> Iterator[sa.Connection]:
    """One transaction on a database that is opened for it; as `open_engine` says."""
    engine = open_engine(url, create=create)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def schema_of(url: str) -> str | None:
    """Version of the schema as it stands, None without our tables; raises `InvalidConfig`."""
    engine = _engine(url, create=False)
    try:
        with engine.connect() as connection:
            return _current(connection)
    except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
        raise InvalidConfig(f"storage: cannot open {redacted(url)} ({_cause(error)})") from error
    finally:
        engine.dispose()


def redacted(url: str) -> str:
    """The URL without its password, in the query too, for messages."""
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        return "the storage URL"
    hidden = dict.fromkeys(SECRETS & parsed.query.keys(), "hidden")
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


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
    """SQLite only: write-ahead log, and write transactions that take their lock at once.

    Without the latter two processes that read before they write dead-lock or write over each
    other.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        if writes:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=normal")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def connect_arguments(url: str) -> dict[str, Any]:
    """Engine arguments for ``url``: how long SQLite waits for a lock, and dead connections noticed
    elsewhere, even where the network swallows what is sent.

    A URL's own query parameters of those names win.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _BUSY_SECONDS}}
    if parsed.get_driver_name() not in ("psycopg", "psycopg2"):
        return {"pool_pre_ping": True}
    own = {key: value for key, value in _LIBPQ.items() if key not in parsed.query}
    return {"pool_pre_ping": True, "connect_args": own}


def _engine(url: str, *, create: bool) -> Engine:
    try:
        parsed = make_url(url)
        engine = sa.create_engine(parsed, **connect_arguments(url))
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise InvalidConfig(
            f"storage: {redacted(url)} is no database URL ({error}); "
            "for example sqlite:///s3search.db or postgresql+psycopg://user@host/name"
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


def _bring_up_to_date(engine: Engine, url: str, *, create: bool) -> None:
    head, *older = _revisions()
    with engine.begin() as connection:
        current = _current(connection)
        if current == head:
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
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _current(connection: sa.Connection) -> str | None:
    options = {"version_table": _VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _cause(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if error.orig else str(error)
