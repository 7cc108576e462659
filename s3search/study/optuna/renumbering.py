"""What hangs on a study under its trials' ids, after the study was copied.

Optuna copies a study's attributes as they stand, and gives the copies of its trials ids of their
own.  Optuna dashboard keeps artifacts and notes of finished trials among the study's attributes,
under the ids of the trials: there they would belong to others.
"""

import re

import sqlalchemy as sa
from optuna.storages import RDBStorage

from s3search.study.optuna import tables as optuna_tables
from s3search.study.optuna.tables import STUDY_ATTRIBUTES, TRIALS

_OF_A_TRIAL = re.compile(
    r"(dashboard:(?:artifacts:)?)(\d+)(:.+)"
)  # as optuna-dashboard 0.21 has it


def renumber_attributes(source: RDBStorage, copy: RDBStorage, name: str) -> None:
    """Gives the attributes of a study's copy the ids that its trials have there; a database of an
    unknown schema is left as it is.
    """
    if copy.get_current_version() != optuna_tables.SCHEMA:
        return
    source_id, study_id = (each.get_study_id_from_name(name) for each in (source, copy))
    with source.engine.begin() as connection:
        before = _ids(connection, source_id)
    with copy.engine.begin() as connection:
        after = _ids(connection, study_id)
        ids = {old: after[number] for number, old in before.items() if number in after}
        table = STUDY_ATTRIBUTES
        query = sa.select(table).where(table.c.study_id == study_id)
        moved = [
            {**row, "key": f"{named[1]}{ids[int(named[2])]}{named[3]}"}
            for row in connection.execute(query).mappings()
            if (named := _OF_A_TRIAL.fullmatch(row["key"])) and int(named[2]) in ids
        ]
        if moved:
            (key,) = table.primary_key.columns
            for row in moved:
                connection.execute(table.delete().where(key == row[key.name]))
            connection.execute(table.insert(), moved)


def _ids(connection: sa.Connection, study_id: int) -> dict[int, int]:
    """Ids of a study's trials by their number."""
    query = sa.select(TRIALS.c.number, TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
    return {row.number: row.trial_id for row in connection.execute(query)}
