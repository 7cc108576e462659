"""The tables of Optuna's database that a mirrored trial has rows in, and those rows.

Optuna writes one trial at a time, with three SQL statements a parameter, and counts all earlier
trials for its number: 12 to 16 ms of the driver's own processor time, which a thread would not
take off it.  The same rows for many trials in five statements cost a fraction of a millisecond
each.  They are the rows of Optuna's schema `SCHEMA`, which has been the same since Optuna 3.2; the
mirror asks which schema it finds, and leaves any other to Optuna's own functions.
"""

import functools
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Column, DateTime, Enum, Float, ForeignKey, Integer, String, Table, Text

SCHEMA = "v3.2.0.a"
NUMBER_ATTRIBUTE = "s3search:number"
"""The attribute of a trial that holds its proposal's number: who has it was mirrored by us."""

_METADATA = sa.MetaData()
_KINDS = ("FINITE", "INF_POS", "INF_NEG")  # of a value; only what is finite stands in a number

STUDIES = Table(
    "studies",
    _METADATA,
    Column("study_id", Integer, primary_key=True),
    Column("study_name", String(512), nullable=False),
)
STUDY_ATTRIBUTES = Table(  # which Optuna calls system attributes: they are its own and dashboard's
    "study_system_attributes",
    _METADATA,
    Column("study_system_attribute_id", Integer, primary_key=True),
    Column("study_id", ForeignKey(STUDIES.c.study_id)),
    Column("key", String(512)),
    Column("value_json", Text),
)
TRIALS = Table(
    "trials",
    _METADATA,
    Column("trial_id", Integer, primary_key=True),
    Column("number", Integer),
    Column("study_id", ForeignKey(STUDIES.c.study_id)),
    Column("state", Enum(TrialState), nullable=False),
    Column("datetime_start", DateTime),  # both in UTC
    Column("datetime_complete", DateTime),
)
VALUES = Table(
    "trial_values",
    _METADATA,
    Column("trial_value_id", Integer, primary_key=True),
    Column("trial_id", ForeignKey(TRIALS.c.trial_id), nullable=False),
    Column("objective", Integer, nullable=False),
    Column("value", Float),
    Column("value_type", Enum(*_KINDS, name="trialvaluetype")),
)
PARAMETERS = Table(
    "trial_params",
    _METADATA,
    Column("param_id", Integer, primary_key=True),
    Column("trial_id", ForeignKey(TRIALS.c.trial_id)),
    Column("param_name", String(512)),
    Column("param_value", Float),
    Column("distribution_json", Text),
)
ATTRIBUTES = Table(
    "trial_user_attributes",
    _METADATA,
    Column("trial_user_attribute_id", Integer, primary_key=True),
    Column("trial_id", ForeignKey(TRIALS.c.trial_id)),
    Column("key", String(512)),
    Column("value_json", Text),
)
SYSTEM_ATTRIBUTES = Table(
    "trial_system_attributes",
    _METADATA,
    Column("trial_system_attribute_id", Integer, primary_key=True),
    Column("trial_id", ForeignKey(TRIALS.c.trial_id)),
    Column("key", String(512)),
    Column("value_json", Text),
)
INTERMEDIATE_VALUES = Table(
    "trial_intermediate_values",
    _METADATA,
    Column("trial_intermediate_value_id", Integer, primary_key=True),
    Column("trial_id", ForeignKey(TRIALS.c.trial_id), nullable=False),
    Column("step", Integer, nullable=False),
    Column("intermediate_value", Float),
    Column("intermediate_value_type", Enum(*_KINDS, "NAN", name="trialintermediatevaluetype")),
)


def attribute_values(connection: sa.Connection, study_name: str, key: str) -> list[Any]:
    """What all trials of a study have in one attribute, in no order."""
    query = (
        sa.select(ATTRIBUTES.c.value_json)
        .join(TRIALS, TRIALS.c.trial_id == ATTRIBUTES.c.trial_id)
        .join(STUDIES, STUDIES.c.study_id == TRIALS.c.study_id)
        .where(STUDIES.c.study_name == study_name, ATTRIBUTES.c.key == key)
    )
    return [json.loads(content) for content in connection.execute(query).scalars()]


def insert_trials(
    connection: sa.Connection, study_name: str, trials: Sequence[FrozenTrial]
) -> None:
    """Appends finished trials, whose values are finite, to a study in this order; the transaction
    is the caller's.
    """
    study = sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == study_name)
    # NOTE: held until the commit, as Optuna does: a trial's number is how many came before it
    study_id = connection.execute(study.with_for_update()).scalar_one()
    count = sa.select(sa.func.count(TRIALS.c.trial_id)).where(TRIALS.c.study_id == study_id)
    first = connection.execute(count).scalar_one()
    heads = [
        {
            "number": first + i,
            "study_id": study_id,
            "state": trial.state,
            "datetime_start": _utc(trial.datetime_start),
            "datetime_complete": _utc(trial.datetime_complete),
        }
        for i, trial in enumerate(trials)
    ]
    ids = TRIALS.insert().returning(TRIALS.c.trial_id, sort_by_parameter_order=True)
    numbered = list(zip(connection.execute(ids, heads).scalars(), trials, strict=True))
    values = [
        {"trial_id": i, "objective": objective, "value": value, "value_type": "FINITE"}
        for i, trial in numbered
        for objective, value in enumerate(trial.values or ())
    ]
    parameters = [
        {
            "trial_id": i,
            "param_name": name,
            "param_value": distribution.to_internal_repr(trial.params[name]),
            "distribution_json": _json_of(distribution),
        }
        for i, trial in numbered
        for name, distribution in trial.distributions.items()
    ]
    attributes = [
        {"trial_id": i, "key": key, "value_json": json.dumps(value)}
        for i, trial in numbered
        for key, value in trial.user_attrs.items()
    ]
    for table, rows in ((VALUES, values), (PARAMETERS, parameters), (ATTRIBUTES, attributes)):
        if rows:
            connection.execute(table.insert(), rows)


@functools.lru_cache(maxsize=64)
def _json_of(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def _utc(local: datetime | None) -> datetime | None:
    """Optuna's trials have local times, its tables UTC, both without a zone."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)
