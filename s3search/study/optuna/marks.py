"""What trials of a study say of being exported: a user attribute, which Optuna and its dashboard
show.

Optuna changes no attribute of a finished trial, so the rows are written here, as those of trials
are (`s3search.study.optuna.tables`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from s3search.study.optuna.tables import ATTRIBUTES, STUDIES, TRIALS, trials_with

EXPORTED = "exported"
"""The attribute of the trials that are exported, or rank first in Optuna without being it."""


def numbers_of(
    connection: sa.Connection, study_name: str, schedule_ids: Sequence[str]
) -> dict[str, int]:
    """The first trial's number of each schedule that has one."""
    if not sa.inspect(connection).has_table(ATTRIBUTES.name):
        return {}
    query = _trials(study_name, schedule_ids).order_by(TRIALS.c.number.desc())
    rows = connection.execute(query)
    return {json.loads(row.value_json): int(row.number) for row in rows}


def write_marks(connection: sa.Connection, study_name: str, marks: Mapping[str, str]) -> None:
    """Gives the trials of these schedules their marks, by schedule id, and takes those of all
    others; the transaction is the caller's.
    """
    own = (
        sa.select(TRIALS.c.trial_id)
        .join(STUDIES, STUDIES.c.study_id == TRIALS.c.study_id)
        .where(STUDIES.c.study_name == study_name)
    )
    is_mark = (ATTRIBUTES.c.key == EXPORTED) & ATTRIBUTES.c.trial_id.in_(own)
    connection.execute(ATTRIBUTES.delete().where(is_mark))
    rows = [
        {
            "trial_id": row.trial_id,
            "key": EXPORTED,
            "value_json": json.dumps(marks[json.loads(row.value_json)]),
        }
        for row in connection.execute(_trials(study_name, list(marks)))
    ]
    if rows:
        connection.execute(ATTRIBUTES.insert(), rows)


def _trials(study_name: str, schedule_ids: Sequence[str]) -> sa.Select[Any]:
    """Id, number and schedule id, as JSON, of the trials of these schedules."""
    of_these = ATTRIBUTES.c.value_json.in_([json.dumps(each) for each in schedule_ids])
    return trials_with("schedule_id", study_name).where(of_these)
