"""Optuna's trials, read with one statement a table.

Optuna's own reading makes an object of its mapper for each of the twenty rows that a trial of ours
has; at ten thousand trials that is most of the time that its dashboard needs to open a study.  The
rows are those of `optuna_tables.SCHEMA`; nothing here is for another one.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial

from s3search.study.optuna.tables import (
    ATTRIBUTES,
    INTERMEDIATE_VALUES,
    PARAMETERS,
    SYSTEM_ATTRIBUTES,
    TRIALS,
    VALUES,
)

_INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

_Rows = Iterable[Any]


def read_trials(
    connection: sa.Connection, study_id: int, *, after: int = -1, also: Collection[int] = ()
) -> list[FrozenTrial]:
    """Trials of a study with an id above ``after`` or among ``also``, by their id; the transaction
    is the caller's.

    A trial that was finished when this began is complete in what it returns.
    """
    own = TRIALS.c.study_id == study_id
    if after >= 0:
        own &= (TRIALS.c.trial_id > after) | TRIALS.c.trial_id.in_(list(also))
    # NOTE: the trials first: a row of one that finishes meanwhile is then more, not less
    query = sa.select(TRIALS).where(own).order_by(TRIALS.c.trial_id)
    heads = connection.execute(query).all()
    wanted = sa.select(TRIALS.c.trial_id).where(own)

    def rows(table: sa.Table, *columns: str) -> _Rows:
        chosen = [table.c[name] for name in ("trial_id", *columns)]
        (key,) = table.primary_key.columns
        return connection.execute(
            sa.select(*chosen).where(table.c.trial_id.in_(wanted)).order_by(key)
        )

    values = _values(rows(VALUES, "objective", "value", "value_type"))
    steps = _values(
        rows(INTERMEDIATE_VALUES, "step", "intermediate_value", "intermediate_value_type")
    )
    kinds, parameters = _parameters(
        rows(PARAMETERS, "param_name", "param_value", "distribution_json")
    )
    attributes = _attributes(rows(ATTRIBUTES, "key", "value_json"))
    system = _attributes(rows(SYSTEM_ATTRIBUTES, "key", "value_json"))
    return [
        FrozenTrial(
            number=head.number,
            state=head.state,
            value=None,
            values=[value for _, value in sorted(found.items())]
            if (found := values.get(head.trial_id))
            else None,
            datetime_start=_local(head.datetime_start),
            datetime_complete=_local(head.datetime_complete),
            params=parameters.get(head.trial_id, {}),
            distributions=kinds.get(head.trial_id, {}),
            user_attrs=attributes.get(head.trial_id, {}),
            system_attrs=system.get(head.trial_id, {}),
            intermediate_values=steps.get(head.trial_id, {}),
            trial_id=head.trial_id,
        )
        for head in heads
    ]


def _values(rows: _Rows) -> dict[int, dict[int, float]]:
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for trial, place, value, kind in rows:
        found[trial][place] = _INFINITE.get(kind.name, value)
    return found


def _attributes(rows: _Rows) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial, key, text in rows:
        found[trial][key] = json.loads(text)
    return found


def _parameters(
    rows: _Rows,
) -> tuple[dict[int, dict[str, BaseDistribution]], dict[int, dict[str, Any]]]:
    """Distributions and values by trial and name; trials share the few distributions there are."""
    known: dict[str, BaseDistribution] = {}
    kinds: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    values: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial, name, value, text in rows:
        distribution = known.get(text)
        if distribution is None:
            distribution = known[text] = json_to_distribution(text)
        kinds[trial][name] = distribution
        values[trial][name] = distribution.to_external_repr(value)
    return kinds, values


def _local(utc: datetime | None) -> datetime | None:
    """Optuna's tables have UTC, its trials local times, both without a zone."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
