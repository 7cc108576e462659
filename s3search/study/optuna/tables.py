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
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

SCHEMA = "v3.2.0.a"
NUMBER_ATTRIBUTE = "s3search:number"
"""The attribute of a trial that holds its proposal's number: who has it was mirrored by us."""

STUDIES: Any = models.StudyModel.__table__
STUDY_ATTRIBUTES: Any = models.StudySystemAttributeModel.__table__
"""What Optuna calls system attributes of a study: they are its own and dashboard's."""

TRIALS: Any = models.TrialModel.__table__
VALUES: Any = models.TrialValueModel.__table__
PARAMETERS: Any = models.TrialParamModel.__table__
ATTRIBUTES: Any = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES: Any = models.TrialSystemAttributeModel.__table__
INTERMEDIATE_VALUES: Any = models.TrialIntermediateValueModel.__table__

CONSTRAINTS = "constraints"
"""The system attribute of a trial that says by how much it breaks each constraint."""

_FINITE = models.TrialValueModel.TrialValueType.FINITE  # only what is finite stands in a number


def trials_with(key: str, study_name: str) -> sa.Select[Any]:
    """Id and number of a study's trials, and what they have in one attribute, as JSON."""
    return (
        sa.select(TRIALS.c.trial_id, TRIALS.c.number, ATTRIBUTES.c.value_json)
        .join(ATTRIBUTES, ATTRIBUTES.c.trial_id == TRIALS.c.trial_id)
        .join(STUDIES, STUDIES.c.study_id == TRIALS.c.study_id)
        .where(STUDIES.c.study_name == study_name, ATTRIBUTES.c.key == key)
    )


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
        {"trial_id": i, "objective": objective, "value": value, "value_type": _FINITE}
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
    of_system = [
        {"trial_id": i, "key": key, "value_json": json.dumps(value)}
        for i, trial in numbered
        for key, value in trial.system_attrs.items()
    ]
    for table, rows in (
        (VALUES, values),
        (PARAMETERS, parameters),
        (ATTRIBUTES, attributes),
        (SYSTEM_ATTRIBUTES, of_system),
    ):
        if rows:
            connection.execute(table.insert(), rows)


@functools.lru_cache(maxsize=64)
def _json_of(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def _utc(local: datetime | None) -> datetime | None:
    """Optuna's trials have local times, its tables UTC, both without a zone."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)
