"""The care of a study database over its years: copied elsewhere, brought up to date, made smaller.

Copies carry what our tables and Optuna's say of a study; the schema of both is this release's.
Each change is one transaction of our tables; Optuna's trials follow and, where a kill fell between
the two, are made again when the study is resumed.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.engine import make_url

from s3search.errors import StudyConflict, nearest
from s3search.study.database.engine import (
    connected,
    insert_missing,
    open_engine,
    redacted,
    schema_of,
)
from s3search.study.database.lease import check_free
from s3search.study.database.tables import (
    EVALUATIONS,
    EXTENSIONS,
    JOBS,
    LEASES,
    NOTES,
    PROPOSALS,
    SCHEDULES,
    STUDIES,
)
from s3search.study.optuna.renumbering import renumber_attributes
from s3search.study.optuna.storage import close_rdb, closed_after, open_rdb

_OF_A_STUDY = (PROPOSALS, EVALUATIONS, JOBS, NOTES, EXTENSIONS)  # their rows name their study
_CHUNK = 1000  # rows at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was copied of one study."""

    study: str
    rows: dict[str, int]  # by table
    trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunable:
    """What pruning removes, or has removed."""

    studies: tuple[str, ...]
    rows: dict[str, int]  # by table
    schedules: int  # that no study names then
    bytes_freed: int | None  # of a SQLite file, once done


def copy_studies(
    url: str, target: str, names: Sequence[str], announce: Callable[[Copied], None]
) -> None:
    """Copies studies (all of them where ``names`` is empty) to another database, one by one;
    ``announce`` gets each that is there.

    Raises `StudyConflict` before anything is written where a name is unknown here or taken there.
    """
    if make_url(url) == make_url(target):
        raise StudyConflict(f"--to: {redacted(target)} is the database to copy from")
    with connected(url) as source:
        chosen = _chosen(source, url, names)
    with connected(target, create=True) as destination:
        taken = sorted(set(chosen) & set(_ids(destination)))
    if taken:
        raise StudyConflict(
            f"--to: {redacted(target)} has a study {taken[0]!r} already; prune it there first, "
            "or copy the other studies by name"
        )
    for name, study_id in chosen.items():
        rows = _copy_rows(url, target, study_id)
        announce(Copied(study=name, rows=rows, trials=_copy_trials(url, target, name)))


def upgrade(url: str) -> tuple[str | None, str]:
    """Brings the schema up to this release's; versions before and after."""
    before = schema_of(url)
    open_engine(url, create=True).dispose()
    close_rdb(open_rdb(url))  # makes or checks Optuna's own tables
    after = schema_of(url)
    assert after is not None
    return before, after


def prunable(url: str, names: Sequence[str]) -> Prunable:
    """What `prune` would remove; nothing is written."""
    with connected(url) as connection:
        return _counted(connection, _chosen(connection, url, names) if names else {})


def prune(url: str, names: Sequence[str]) -> Prunable:
    """Removes studies and the schedules that no study names, and gives the space back (SQLite).

    Raises `StudyConflict` while a driver runs one of them.
    """
    prunable(url, names)  # a wrong name or database is an error before anything is opened to write
    for name in names:
        check_free(url, name)
    engine = open_engine(url, create=True)
    size = _file_size(url)
    try:
        with engine.begin() as connection:
            studies = _chosen(connection, url, names) if names else {}
            found = _counted(connection, studies)
            ids = list(studies.values())
            for table in (*_OF_A_STUDY, LEASES):
                connection.execute(table.delete().where(table.c.study_id.in_(ids)))
            connection.execute(STUDIES.delete().where(STUDIES.c.id.in_(ids)))
            connection.execute(SCHEDULES.delete().where(SCHEDULES.c.id.not_in(_named([]))))
        with closed_after(open_rdb(url)) as storage:
            for name in studies:
                with contextlib.suppress(KeyError):  # killed before it had one
                    optuna.delete_study(study_name=name, storage=storage)
        if size is not None:
            with engine.connect() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.execute("vacuum")  # on the bare connection: not inside a transaction
                raw.execute("pragma wal_checkpoint(truncate)")
    finally:
        engine.dispose()
    after = _file_size(url)
    n_bytes = None if size is None or after is None else max(size - after, 0)
    return Prunable(
        studies=found.studies, rows=found.rows, schedules=found.schedules, bytes_freed=n_bytes
    )


def _counted(connection: sa.Connection, studies: dict[str, int]) -> Prunable:
    ids = list(studies.values())
    rows = {
        table.name: _count(connection, table, table.c.study_id.in_(ids)) for table in _OF_A_STUDY
    }
    loose = _count(connection, SCHEDULES, SCHEDULES.c.id.not_in(_named(ids)))
    return Prunable(studies=tuple(studies), rows=rows, schedules=loose, bytes_freed=None)


def _count(connection: sa.Connection, table: sa.Table, where: Any) -> int:
    return int(
        connection.execute(select(sa.func.count()).select_from(table).where(where)).scalar_one()
    )


def _named(without: Sequence[int]) -> Any:
    """The schedules that studies name, but for those ``without``."""
    columns = [table.c for table in (PROPOSALS, EVALUATIONS)]
    return sa.union(
        *(select(c.schedule_id).where(c.study_id.not_in(list(without))) for c in columns)
    )


def _copy_rows(url: str, target: str, study_id: int) -> dict[str, int]:
    """Our tables' rows of one study, in one transaction there; how many of each."""
    counts: dict[str, int] = {}
    with connected(url) as reading, connected(target, create=True) as writing:
        study = reading.execute(select(STUDIES).where(STUDIES.c.id == study_id)).mappings().one()
        own = {k: v for k, v in study.items() if k != "id"}
        made = writing.execute(STUDIES.insert().values(own).returning(STUDIES.c.id))
        new_id = made.scalar_one()
        known = set(writing.execute(select(SCHEDULES.c.id)).scalars())
        used = {
            name
            for table in (PROPOSALS, EVALUATIONS)
            for name in reading.execute(
                select(table.c.schedule_id).where(table.c.study_id == study_id).distinct()
            ).scalars()
        }
        wanted = sorted(used - known)
        for i in range(0, len(wanted), _CHUNK):
            some = select(SCHEDULES).where(SCHEDULES.c.id.in_(wanted[i : i + _CHUNK]))
            insert_missing(writing, SCHEDULES, reading.execute(some).mappings().all())
        for table in _OF_A_STUDY:
            rows = reading.execute(
                select(table).where(table.c.study_id == study_id).order_by(table.c.id)
            ).mappings()
            counts[table.name] = 0
            for some_rows in rows.partitions(_CHUNK):
                renamed = [
                    {k: v for k, v in row.items() if k != "id"} | {"study_id": new_id}
                    for row in some_rows
                ]
                _insert(writing, table, renamed)
                counts[table.name] += len(renamed)
    return counts


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[Any, Any]]) -> None:
    values = [dict(row) for row in rows]
    if values:
        connection.execute(table.insert(), values)


def _copy_trials(url: str, target: str, name: str) -> int:
    """Optuna's study with its trials, notes, graphs and lists of artifacts; how many trials."""
    with closed_after(open_rdb(url)) as source, closed_after(open_rdb(target)) as destination:
        try:
            optuna.copy_study(from_study_name=name, from_storage=source, to_storage=destination)
        except KeyError:  # killed before it had one: made again on resume
            return 0
        renumber_attributes(source, destination, name)
        return destination.get_n_trials(destination.get_study_id_from_name(name))


def _chosen(connection: sa.Connection, url: str, names: Sequence[str]) -> dict[str, int]:
    """Studies by name, all of them where none is named."""
    ids = _ids(connection)
    for name in names:
        if name not in ids:
            hint = nearest(name, ids) if ids else "the database holds no study yet"
            raise StudyConflict(f"there is no study {name!r} in {redacted(url)}; {hint}")
    return {name: ids[name] for name in names or ids}


def _ids(connection: sa.Connection) -> dict[str, int]:
    rows = connection.execute(select(STUDIES.c.name, STUDIES.c.id).order_by(STUDIES.c.name))
    return {row.name: row.id for row in rows}


def _file_size(url: str) -> int | None:
    """Bytes of a SQLite file; None for any other database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database).stat().st_size
