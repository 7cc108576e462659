"""A new SQLite database takes a dozen migrations of ours and thirty statements of Optuna's: here
they are run once, and what they leave is written at once from then on.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from optuna.storages import RDBStorage
from sqlalchemy import Engine

from s3search.study.database import engine as opening
from s3search.study.optuna.storage import close_rdb, open_rdb


def write_new_databases_at_once_in(patch: pytest.MonkeyPatch) -> None:
    """Where this process is to make tables, all of them are there already."""
    with TemporaryDirectory(prefix="s3search-new-") as folder:
        own, optunas = (Path(folder) / name for name in ("own.db", "optunas.db"))
        opening.open_engine(f"sqlite:///{own}", create=True).dispose()
        close_rdb(open_rdb(f"sqlite:///{optunas}"))
        scripts = {table: _script(file) for table, file in (("s3search", own), ("", optunas))}
    migrate, make = opening._bring_up_to_date, RDBStorage.__init__

    def migrated(engine: Engine, url: str, *, create: bool, may_be_older: bool) -> None:
        if create:
            _write(scripts["s3search"], url, "s3search_alembic_version")
        migrate(engine, url, create=create, may_be_older=may_be_older)

    def made(storage: RDBStorage, url: str, *arguments: Any, **others: Any) -> None:
        _write(scripts[""], url, "version_info")
        make(storage, url, *arguments, **others)

    patch.setattr(opening, "_bring_up_to_date", migrated)
    patch.setattr(RDBStorage, "__init__", made)


def _script(file: Path) -> str:
    """The statements that make a database as this one is."""
    with closing(sqlite3.connect(file)) as connection:
        _begin, *statements, _commit = connection.iterdump()
    return "\n".join(each for each in statements if "sqlite_sequence" not in each)


def _write(script: str, url: str, table: str) -> None:
    """Runs the statements unless the table, which is among what they make, is there; what is wrong
    with the file is left to others to say.
    """
    parsed = opening.parsed_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.query:
        return
    known = f"select count(*) from sqlite_master where name = '{table}'"
    with (
        suppress(sqlite3.DatabaseError),
        closing(sqlite3.connect(parsed.database, isolation_level=None, timeout=1)) as connection,
    ):
        if connection.execute(known).fetchone() == (0,):
            connection.executescript(f"pragma synchronous=off; begin immediate; {script}; commit")
