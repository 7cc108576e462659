"""The care of a study database over its years: copied elsewhere, brought up to date, made smaller.

Copies carry what our tables and Optuna's say of a study; the schema of both is this release's.
A study is copied, or removed, in one transaction of all these tables: after a kill it is there
whole, as before, or not at all, and the same command does what is left.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.engine import Engine

from s3search.errors import StudyConflict, nearest
from s3search.study.database.engine import (
    connected,
    insert_missing,
    open_engine,
    opened,
    parsed_url,
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
from s3search.study.optuna.copying import (
    copy_trials,
    has_tables,
    is_a_mirror,
    n_trials,
    optuna_schema,
    remove_trials,
)
from s3search.study.optuna.storage import close_rdb, open_rdb
from s3search.study.vetoes import keep_vetoes, vetoes_of

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
    url: str,
    target: str,
    names: Sequence[str],
    announce: Callable[[Copied], None],
    carry: Callable[[str], object] = lambda _: None,
) -> None:
    """Copies studies (all of them where ``names`` is empty) to another database, one by one;
    ``announce`` gets each that is there, ``carry`` each name before: what lies beside the
    databases is to be there when the study is.

    Raises `StudyConflict` before anything is written where a name is unknown here or taken there.
    """
    if parsed_url(url) == parsed_url(target):
        raise StudyConflict(f"--to: {redacted(target)} is the database to copy from")
    with opened(url) as source:
        with source.begin() as connection:
            chosen = _chosen(_ids(connection), url, names)
        with opened(target, create=True) as destination:
            close_rdb(open_rdb(target))  # makes Optuna's tables
            _check_optuna(source, destination, url)
            _check_names_are_free(destination, target, list(chosen))
            for name, study_id in chosen.items():
                carry(name)
                announce(_copy(source, destination, name, study_id))


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
        return _counted(connection, names, _to_remove(connection, url, names))


def prune(url: str, names: Sequence[str]) -> Prunable:
    """Removes studies and the schedules that no study names, and gives the space back (SQLite);
    also what a prune of an earlier release that was killed left of a study in Optuna's tables.

    Raises `StudyConflict` while a driver runs one of them.
    """
    prunable(url, names)  # a wrong name or database is an error before anything is opened to write
    for name in names:
        check_free(url, name)
    with opened(url, create=True) as engine:
        size = _file_size(url)
        with engine.connect() as connection:
            has_trials = has_tables(connection)
        if has_trials:
            close_rdb(open_rdb(url))  # checks Optuna's schema
        with engine.begin() as connection:
            studies = _to_remove(connection, url, names)
            found = _counted(connection, names, studies)
            ids = list(studies.values())
            for table in (*_OF_A_STUDY, LEASES):
                connection.execute(table.delete().where(table.c.study_id.in_(ids)))
            connection.execute(STUDIES.delete().where(STUDIES.c.id.in_(ids)))
            connection.execute(SCHEDULES.delete().where(SCHEDULES.c.id.not_in(_named([]))))
            remove_trials(connection, names)
        if size is not None:
            with engine.connect() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.execute("vacuum")  # on the bare connection: not inside a transaction
                raw.execute("pragma wal_checkpoint(truncate)")
    after = _file_size(url)
    n_bytes = None if size is None or after is None else max(size - after, 0)
    return Prunable(
        studies=found.studies, rows=found.rows, schedules=found.schedules, bytes_freed=n_bytes
    )


def _to_remove(connection: sa.Connection, url: str, names: Sequence[str]) -> dict[str, int]:
    """The studies of these names; of what a cut prune left in Optuna's tables there is none."""
    left = [name for name in names if has_tables(connection) and is_a_mirror(connection, name)]
    known = _ids(connection)
    return _chosen(known, url, [n for n in names if n in known or n not in left]) if names else {}


def _counted(connection: sa.Connection, names: Sequence[str], studies: dict[str, int]) -> Prunable:
    ids = list(studies.values())
    rows = {
        table.name: _count(connection, table, table.c.study_id.in_(ids)) for table in _OF_A_STUDY
    }
    loose = _count(connection, SCHEDULES, SCHEDULES.c.id.not_in(_named(ids)))
    return Prunable(studies=tuple(names), rows=rows, schedules=loose, bytes_freed=None)


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


def _copy(source: Engine, destination: Engine, name: str, study_id: int) -> Copied:
    """One study, as it is at one moment here, in one transaction there."""
    with source.connect() as reading, destination.begin() as writing:
        if source.dialect.name == "postgresql":  # SQLite's readers see one moment anyway
            reading.execution_options(isolation_level="REPEATABLE READ")
        study = reading.execute(select(STUDIES).where(STUDIES.c.id == study_id)).mappings().one()
        own = {k: v for k, v in study.items() if k != "id"}
        made = writing.execute(STUDIES.insert().values(own).returning(STUDIES.c.id))
        new_id = made.scalar_one()
        _copy_schedules(reading, writing, study_id)
        rows = _copy_rows(reading, writing, study_id, new_id)
        trials = copy_trials(reading, writing, name)
        keep_vetoes(writing, new_id, vetoes_of(writing, name))
    return Copied(study=name, rows=rows, trials=trials)


def _copy_schedules(reading: sa.Connection, writing: sa.Connection, study_id: int) -> None:
    """The schedules that a study names, as far as they are not there yet."""
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


def _copy_rows(
    reading: sa.Connection, writing: sa.Connection, study_id: int, new_id: int
) -> dict[str, int]:
    """Our tables' rows of one study; how many of each."""
    counts: dict[str, int] = {}
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


def _check_names_are_free(engine: Engine, url: str, names: Sequence[str]) -> None:
    with engine.begin() as connection:
        taken = sorted(set(names) & set(_ids(connection)))
        if taken:
            raise StudyConflict(
                f"--to: {redacted(url)} has a study {taken[0]!r} already; prune it there "
                "first, or copy the other studies by name"
            )
        for name in names:
            count = n_trials(connection, name)
            if count:
                raise StudyConflict(
                    f"--to: {redacted(url)} has {count} trials of Optuna's under the name "
                    f"{name!r}, which belong to no study of s3search; remove them there "
                    f"(`s3search storage prune {name} --yes` if a killed prune left them)"
                )
        remove_trials(connection, names)  # without a trial they are nobody's


def _chosen(ids: Mapping[str, int], url: str, names: Sequence[str]) -> dict[str, int]:
    """Studies by name, all of them where none is named."""
    for name in names:
        if name not in ids:
            hint = nearest(name, ids) if ids else "the database holds no study yet"
            raise StudyConflict(f"there is no study {name!r} in {redacted(url)}; {hint}")
    return {name: ids[name] for name in names or ids}


def _ids(connection: sa.Connection) -> dict[str, int]:
    rows = connection.execute(select(STUDIES.c.name, STUDIES.c.id).order_by(STUDIES.c.name))
    return {row.name: row.id for row in rows}


def _check_optuna(source: Engine, destination: Engine, url: str) -> None:
    """Raises `StudyConflict` where Optuna's tables are of another version here than there."""
    with source.begin() as here, destination.begin() as there:
        found, wanted = optuna_schema(here), optuna_schema(there)
    if found not in {None, wanted}:
        raise StudyConflict(
            f"storage: {redacted(url)} has Optuna's schema {found}, the Optuna that is installed "
            f"makes {wanted}; bring it up to date first: `optuna storage upgrade`"
        )


def _file_size(url: str) -> int | None:
    """Bytes of a SQLite file; None for any other database."""
    parsed = parsed_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database).stat().st_size
