"""A whole Optuna study copied to another database, or removed, inside the caller's transaction.

Optuna's own `copy_study` and `delete_study` commit one trial at a time: a kill leaves part of a
study, which nobody can tell from a small one.  Here the rows of all of Optuna's tables go with
ours, or none do.  The tables are those of the Optuna that is installed, whose storage has refused
a database of another schema before.

Optuna dashboard keeps artifacts and notes of finished trials among the study's attributes, under
the ids of the trials; the copies of the trials have ids of their own, and so have these keys.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from optuna.storages._rdb.models import BaseModel

from s3search.study.optuna.tables import NUMBER_ATTRIBUTE

_TABLES = {table.name: table for table in BaseModel.metadata.sorted_tables}  # parents first
_STUDIES, _TRIALS = _TABLES["studies"], _TABLES["trials"]
_ATTRIBUTES = _TABLES["trial_user_attributes"]
_OF_STUDY = [t for t in _TABLES.values() if "study_id" in t.c and t not in {_STUDIES, _TRIALS}]
_OF_TRIAL = [t for t in _TABLES.values() if "trial_id" in t.c and t is not _TRIALS]
_OF_A_TRIAL = re.compile(r"(dashboard:(?:artifacts:)?)(\d+)(:.+)")  # as optuna-dashboard 0.21
_CHUNK = 1000  # rows at a time

_Rows = Sequence[Mapping[Any, Any]]


def copy_trials(source: sa.Connection, target: sa.Connection, name: str) -> int:
    """Copies a study with its trials, notes, graphs and lists of artifacts; how many trials. None
    where the source has no such study: a search that was killed before it had one.
    """
    if not has_tables(source):
        return 0
    study_id = _study_id(source, name)
    if study_id is None:
        return 0
    study = sa.select(_STUDIES).where(_STUDIES.c.study_id == study_id)
    (new_id,) = _keyed(target, _STUDIES, source.execute(study).mappings().all())
    ids: dict[int, int] = {}
    trials = sa.select(_TRIALS).where(_TRIALS.c.study_id == study_id).order_by(_TRIALS.c.trial_id)
    for rows in source.execute(trials).mappings().partitions(_CHUNK):
        made = _keyed(target, _TRIALS, rows, study_id=new_id)
        ids |= dict(zip((row["trial_id"] for row in rows), made, strict=True))
    for table in _OF_STUDY:
        of_study = sa.select(table).where(table.c.study_id == study_id)
        found = [_renamed(row, ids) for row in source.execute(of_study).mappings()]
        _insert(target, table, found, study_id=new_id)
    for table in _OF_TRIAL:
        of_trials = (
            sa.select(table)
            .join(_TRIALS, _TRIALS.c.trial_id == table.c.trial_id)
            .where(_TRIALS.c.study_id == study_id)
            .order_by(*table.primary_key.columns)
        )
        for rows in source.execute(of_trials).mappings().partitions(_CHUNK):
            _insert(target, table, [{**r, "trial_id": ids[r["trial_id"]]} for r in rows])
    return len(ids)


def remove_trials(connection: sa.Connection, names: Iterable[str]) -> None:
    """Removes studies with all that hangs on them, as far as they are there."""
    if not has_tables(connection):
        return
    for name in names:
        study_id = _study_id(connection, name)
        if study_id is None:
            continue
        own = sa.select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study_id)
        for table in _OF_TRIAL:
            connection.execute(table.delete().where(table.c.trial_id.in_(own)))
        for table in (*_OF_STUDY, _TRIALS, _STUDIES):
            connection.execute(table.delete().where(table.c.study_id == study_id))


def n_trials(connection: sa.Connection, name: str) -> int | None:
    """How many trials a study of Optuna's has; None where there is no such study."""
    study_id = _study_id(connection, name) if has_tables(connection) else None
    if study_id is None:
        return None
    count = sa.select(sa.func.count()).where(_TRIALS.c.study_id == study_id)
    return int(connection.execute(count).scalar_one())


def is_a_mirror(connection: sa.Connection, name: str) -> bool:
    """Whether a study of Optuna's was written by this program, or holds no trial of anybody."""
    if n_trials(connection, name) == 0:
        return True
    own = (
        sa.select(_ATTRIBUTES.c.trial_id)
        .join(_TRIALS, _TRIALS.c.trial_id == _ATTRIBUTES.c.trial_id)
        .where(_ATTRIBUTES.c.key == NUMBER_ATTRIBUTE)
        .where(_TRIALS.c.study_id == _study_id(connection, name))
    )
    return connection.execute(own.limit(1)).first() is not None


def optuna_schema(connection: sa.Connection) -> str | None:
    """The version of Optuna's tables; None where there are none."""
    if not has_tables(connection):
        return None
    return MigrationContext.configure(connection).get_current_revision()


def has_tables(connection: sa.Connection) -> bool:
    """Whether a database has Optuna's tables."""
    return sa.inspect(connection).has_table(_STUDIES.name)


def _study_id(connection: sa.Connection, name: str) -> int | None:
    query = sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == name)
    found: int | None = connection.execute(query).scalar()
    return found


def _keyed(connection: sa.Connection, table: sa.Table, rows: _Rows, **changes: int) -> list[int]:
    """Inserts rows under keys of their own; these keys, in the order of the rows."""
    (key,) = table.primary_key.columns
    insert = table.insert().returning(key, sort_by_parameter_order=True)
    return list(connection.execute(insert, _without_key(table, rows, changes)).scalars())


def _insert(connection: sa.Connection, table: sa.Table, rows: _Rows, **changes: int) -> None:
    """Inserts rows under keys of their own, as far as there are any."""
    if rows:
        connection.execute(table.insert(), _without_key(table, rows, changes))


def _without_key(table: sa.Table, rows: _Rows, changes: Mapping[str, int]) -> list[dict[str, Any]]:
    (key,) = table.primary_key.columns
    return [{**{k: v for k, v in row.items() if k != key.name}, **changes} for row in rows]


def _renamed(row: Mapping[Any, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """An attribute of a study under the id that its trial has in the copy."""
    values = dict(row)
    named = _OF_A_TRIAL.fullmatch(str(row.get("key", "")))
    if named is not None and int(named[2]) in ids:
        values["key"] = f"{named[1]}{ids[int(named[2])]}{named[3]}"
    return values
