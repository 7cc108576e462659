"""The dashboard's storage reads quickly what Optuna's own reads."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from s3search.show.dashboard import storage as module
from s3search.show.dashboard.storage import open_storage
from s3search.study.database.engine import open_engine
from s3search.study.optuna import tables as optuna_tables

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "z": FloatDistribution(1e-3, 10.0, log=True),
    "a": IntDistribution(0, 10, step=2),
    "kind": CategoricalDistribution((None, True, "x", 2.5)),
}


@pytest.fixture
def database(url: str) -> str:
    """A database with our tables and no study."""
    open_engine(url, create=True).dispose()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return url


@contextmanager
def _closing(storage: RDBStorage) -> Iterator[RDBStorage]:
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _finished(state: TrialState, *values: float, kind: object = "x") -> FrozenTrial:
    return create_trial(
        state=state,
        values=list(values) or None,
        params={"z": 0.125, "a": 4, "kind": kind},
        distributions=DISTRIBUTIONS,
        user_attrs={"text": "é", "number": 3, "list": [1.5, None]},
        system_attrs={"constraints": [0.5, -1.0]},  # infeasible
        intermediate_values={2: math.nan, 1: math.inf, 5: -math.inf, 4: 0.1},
    )


def _fill(study: optuna.Study, folder: Path) -> None:
    """Trials of each state; the running one, which has an artifact, stays before finished ones."""
    running = study.ask({"z": DISTRIBUTIONS["z"]})
    running.set_user_attr("so far", {"deep": [1]})
    upload_artifact(
        artifact_store=FileSystemArtifactStore(folder),
        file_path=__file__,
        study_or_trial=running,
    )
    for trial in (
        _finished(TrialState.COMPLETE, 0.1, 5.0),
        _finished(TrialState.COMPLETE, math.inf, -math.inf, kind=None),
        _finished(TrialState.FAIL),
        _finished(TrialState.PRUNED, kind=True),
        create_trial(state=TrialState.COMPLETE, values=[1.0, 2.0]),
    ):
        study.add_trial(trial)
    study.enqueue_trial({"z": 1.0})


def _same(found: BaseStorage, expected: BaseStorage, study_id: int) -> int:
    """Compares all trials, with the order of what Optuna keeps in order; how many they are."""
    trials, others = (each.get_all_trials(study_id) for each in (found, expected))
    # NOTE: NaN is not equal to itself, and Optuna reads attributes in no order
    assert [_told(trial) for trial in trials] == [_told(trial) for trial in others]
    return len(trials)


def _told(trial: FrozenTrial) -> list[str]:
    words = [trial.number, trial._trial_id, trial.state, trial.values, trial.params]
    words += [trial.distributions, trial.datetime_start, trial.datetime_complete]
    attributes = (trial.user_attrs, trial._system_attrs, trial.intermediate_values)
    return [*map(repr, words), *(repr(sorted(each.items())) for each in attributes)]


def test_trials_are_those_of_optuna_while_more_come(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _closing(RDBStorage(database)) as own:
        studies = [
            optuna.create_study(storage=own, study_name=name, directions=["minimize"] * 2)
            for name in ("t", "u")
        ]
        for study in studies:
            _fill(study, tmp_path)
        with _closing(open_storage(database, writable=False)) as quick:
            remembering = optuna.storages.get_storage(quick)
            for study in studies:
                assert _same(quick, own, study._study_id) == 7
                assert _same(remembering, own, study._study_id) == 7
            one, other = studies
            for study in (one, other, one):
                study.add_trial(_finished(TrialState.COMPLETE, 0.2, 5.0))
            one.tell(0, [0.3, 5.0])
            assert _same(remembering, own, one._study_id) == 9
            assert _same(remembering, own, other._study_id) == 8
            monkeypatch.setattr(module, "_MOST_NAMED", 0)
            other.tell(0, state=TrialState.FAIL)
            other.add_trial(_finished(TrialState.FAIL))
            assert _same(remembering, own, other._study_id) == 9


def test_a_database_of_another_schema_is_left_to_optuna(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _closing(RDBStorage(database)) as own:
        study = optuna.create_study(storage=own, directions=["minimize"] * 2)
        _fill(study, tmp_path)
        monkeypatch.setattr(optuna_tables, "SCHEMA", "of a later Optuna")
        monkeypatch.delattr(module, "read_trials")
        with _closing(open_storage(database, writable=False)) as quick:
            assert _same(quick, own, study._study_id) == 7


def test_a_study_without_trials_and_one_that_is_not_there(database: str) -> None:
    with _closing(RDBStorage(database)) as own:
        study = optuna.create_study(storage=own)
        with _closing(open_storage(database, writable=False)) as quick:
            assert quick.get_all_trials(study._study_id) == []
            with pytest.raises(KeyError):
                quick.get_all_trials(study._study_id + 1)
