"""The Optuna study of a search: one trial for every proposal that has a result.

It is a mirror.  Our own tables are the truth, so trials may be written late, many in one
transaction: at most `_SECONDS` or `_TRIALS` behind while results come, and all of them when the
driver flushes or the study is closed, by an interruption or a failure too.  What a kill cut off is
missing in Optuna alone, and is added on resume.  A trial is known by its proposal's number and is
never written twice.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from s3search.search.direction import Direction
from s3search.search.questions import Measurement, Rung
from s3search.search.trial import Trial
from s3search.study.database.retries import ridden_out
from s3search.study.optuna import tables as optuna_tables
from s3search.study.optuna.marks import write_marks
from s3search.study.optuna.storage import close_rdb, open_rdb
from s3search.study.optuna.summary import DISTRIBUTIONS, summary
from s3search.study.optuna.tables import CONSTRAINTS, NUMBER_ATTRIBUTE

DATABASE_ERRORS = (DBAPIError, StorageInternalError)

Begin = Callable[[], AbstractContextManager[Connection]]

_SECONDS = 1.0
_TRIALS = 256


@dataclass(frozen=True, slots=True)
class _Optuna:
    study: optuna.Study
    storage: RDBStorage
    schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a study is judged by, as Optuna shows it: a name and a direction."""

    name: str
    direction: Direction = Direction.MINIMIZE


class OptunaMirror:
    """The Optuna study ``name``, made when it is first asked for; flush it before the engine is
    disposed of.  ``begin`` opens the transactions that write.
    """

    def __init__(
        self, engine: Engine, url: str, name: str, objective: Objective, begin: Begin
    ) -> None:
        self._engine, self._url, self._name, self._begin = engine, url, name, begin
        self._metrics = {objective.name: objective.direction, "NFE": Direction.MINIMIZE}
        self._optuna: _Optuna | None = None
        self._known: set[int] | None = None  # None: only the database knows
        self._pending: dict[int, FrozenTrial] = {}
        self._flushed_at = time.monotonic()

    @ridden_out
    def open(self) -> None:
        """Makes the study where there is none, so that it is seen before its first trial."""
        self._opened()

    @ridden_out
    def numbers(self) -> set[int]:
        """Numbers of the proposals that have their trial, in the database or soon."""
        return self._written() | self._pending.keys()

    @ridden_out
    def add(
        self, number: int, trial: Trial, measured: Measurement, broken: Sequence[float] = ()
    ) -> None:
        """Adds what was measured on the search's noise as one trial, unless it has one; the number
        and the origin are those of the first trial that named this schedule, and ``broken`` says
        by how much it breaks each guard.
        """
        if number in self._pending or number in self._written():
            return
        self._pending[number] = _optuna_trial(number, trial, measured, broken)
        is_late = time.monotonic() - self._flushed_at >= _SECONDS
        if is_late or len(self._pending) >= _TRIALS:
            self.flush()

    @ridden_out
    def flush(self) -> None:
        """Writes all trials that wait, in their order; what fails waits on."""
        known = self._written() if self._pending else set()
        waiting = {n: trial for n, trial in self._pending.items() if n not in known}
        if waiting:
            self._known = None  # an error may hide a commit that was made: then it is read again
            self._write(list(waiting.values()))
            self._known = known | waiting.keys()
        self._pending.clear()
        self._flushed_at = time.monotonic()

    @ridden_out
    def mark(self, marks: Mapping[str, str]) -> None:
        """Says at the trials of these schedules, by their ids, whether they are exported; a
        database of an unknown schema is left as it is.
        """
        self.flush()
        if self._opened().schema == optuna_tables.SCHEMA:
            with self._begin() as connection:
                write_marks(connection, self._name, marks)

    def close(self) -> None:
        """Gives the connections back; what was not flushed is left to the next run."""
        if self._optuna is not None:
            close_rdb(self._optuna.storage)
            self._optuna = None

    def _write(self, trials: Sequence[FrozenTrial]) -> None:
        found = self._opened()
        if found.schema == optuna_tables.SCHEMA:
            with self._begin() as connection:
                optuna_tables.insert_trials(connection, self._name, trials)
        else:
            with self._begin():  # raises where another driver has the study
                pass
            for trial in trials:
                found.study.add_trial(trial)

    def _written(self) -> set[int]:
        if self._known is None:
            self._opened()  # makes the tables
            query = optuna_tables.trials_with(NUMBER_ATTRIBUTE, self._name)
            with self._engine.begin() as connection:
                self._known = {json.loads(row.value_json) for row in connection.execute(query)}
        return self._known

    def _opened(self) -> _Optuna:
        if self._optuna is None:
            self._optuna = _open(self._url, self._name, self._metrics)
        return self._optuna


def _optuna_trial(
    number: int, trial: Trial, measured: Measurement, broken: Sequence[float] = ()
) -> FrozenTrial:
    """One trial; ``broken`` says by how much it breaks each guard, which Optuna calls a
    constraint: it is feasible where none is above 0.
    """
    attributes: dict[str, Any] = {
        NUMBER_ATTRIBUTE: number,
        "origin": trial.origin.text,
        "schedule_id": trial.id,
        "schedule": json.dumps(trial.schedule.to_dict()),
        "n_images": measured.question.n_images,
    }
    values, params = None, summary(trial.schedule, is_baseline=trial.origin.is_baseline)
    if measured.estimate is None:
        state = TrialState.FAIL
        attributes["error"] = measured.error
    else:
        attributes["standard_error"] = measured.standard_error
        if measured.rung is Rung.STOPPED:  # its value is of fewer images than the others'
            state = TrialState.PRUNED
            attributes["n_images"] = measured.n_images
            attributes["left_race_at"] = measured.estimate
        else:
            state = TrialState.COMPLETE
            values = [measured.estimate, float(trial.nfe)]
    return create_trial(
        state=state,
        values=values,
        params=params,
        distributions={name: DISTRIBUTIONS[name] for name in params},
        user_attrs=attributes,
        system_attrs={CONSTRAINTS: list(broken)} if broken else {},
    )


def _open(url: str, name: str, metrics: Mapping[str, Direction]) -> _Optuna:
    storage = open_rdb(url)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[direction.value for direction in metrics.values()],
            load_if_exists=True,
        )
        if study.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(list(metrics))
        return _Optuna(study, storage, storage.get_current_version())
    except BaseException:
        close_rdb(storage)
        raise
