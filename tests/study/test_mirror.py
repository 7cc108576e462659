"""The Optuna study beside our tables: in order, exactly once, whatever happens to the driver."""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial

from s3search.search.direction import Direction
from s3search.search.questions import Measurement
from s3search.search.trial import Trial
from s3search.study.database.retries import without_waiting
from s3search.study.database.rows import measurement_of
from s3search.study.database.store import StudyStore, create_or_resume
from s3search.study.log import Log
from s3search.study.optuna import mirror as module
from s3search.study.optuna import tables as optuna_tables
from s3search.study.optuna.mirror import OptunaMirror
from s3search.study.optuna.tables import NUMBER_ATTRIBUTE
from tests.study.test_store import SCHEDULES, _config, _measurement, _trial

DATABASE_GONE = sa.exc.OperationalError("insert", {}, Exception("server closed the connection"))


Measured = tuple[int, Trial, Measurement]


def _results() -> list[Measured]:
    """A measured one, a failed one, and one that stopped early; not in the order of numbers."""
    whole, failed = _measurement(SCHEDULES[2], 0.5), _measurement(SCHEDULES[0], None)
    stopped = _measurement(SCHEDULES[1], 0.9, n_images=25)
    return [(2, _trial(2), whole), (0, _trial(0), failed), (1, _trial(1), stopped)]


def _measure(store: StudyStore, results: Sequence[Measured]) -> None:
    """As the log does it."""
    store.add_trials({number: trial for number, trial, _ in results})
    for number, trial, measured in results:
        assert store.add_measurement(measured)
        store.mirror.add(number, trial, measured)


def _mirror_what_is_stored(store: StudyStore) -> None:
    """As a resumed log does it."""
    by_schedule = {trial.id: trial for trial in store.trials()}
    for row in store.measured():
        trial = by_schedule[row.schedule_id]
        assert trial.number is not None
        question = _measurement(trial.schedule, None).question
        store.mirror.add(trial.number, trial, measurement_of(row, question, Direction.MINIMIZE))


def _loaded(url: str, name: str = "t") -> tuple[list[str] | None, list[FrozenTrial]]:
    """The names of the metrics, and the trials."""
    storage = optuna.storages.RDBStorage(url)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        return study.metric_names, study.get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _numbers(url: str, name: str = "t") -> list[int]:
    """Of the proposals, in the order of their trials, whose own numbers have no gap."""
    found = _loaded(url, name)[1]
    assert [trial.number for trial in found] == list(range(len(found)))
    return [trial.user_attrs[NUMBER_ATTRIBUTE] for trial in found]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written before it is flushed."""
    monkeypatch.setattr(module, "_SECONDS", math.inf)


@pytest.mark.usefixtures("slow")
def test_trials_come_in_the_order_of_results_and_once(url: str) -> None:
    with create_or_resume(_config(url), {}) as store:
        _measure(store, _results())
        assert store.mirror.numbers() == {0, 1, 2}
        _mirror_what_is_stored(store)  # they wait
        store.mirror.flush()
        assert _numbers(url) == [2, 0, 1]
        _mirror_what_is_stored(store)  # they are written
    with create_or_resume(_config(url), {}) as store:
        assert store.mirror.numbers() == {0, 1, 2}
        _mirror_what_is_stored(store)
    assert _numbers(url) == [2, 0, 1]


@pytest.mark.parametrize("schema", [optuna_tables.SCHEMA, "of a later Optuna"])
def test_a_mirrored_trial_is_what_optuna_itself_would_have_written(
    url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_tables, "SCHEMA", schema)
    made = []
    trial_of: Callable[..., FrozenTrial] = module._optuna_trial
    monkeypatch.setattr(
        module, "_optuna_trial", lambda *all_: made.append(trial_of(*all_)) or made[-1]
    )
    with create_or_resume(_config(url), {}) as store:
        _measure(store, _results())
    storage = optuna.storages.RDBStorage(url)
    own = optuna.create_study(storage=storage, directions=["minimize", "minimize"])
    own.add_trials(made)
    expected = own.get_trials()
    storage.remove_session()
    storage.engine.dispose()
    found = _loaded(url)[1]
    assert [trial.state.name for trial in found] == ["COMPLETE", "FAIL", "PRUNED"]
    for trial, other in zip(found, expected, strict=True):
        other._trial_id = trial._trial_id
        assert trial == other  # also the times and the distributions


def test_trials_are_written_when_many_wait_or_the_first_waits_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "_TRIALS", 2)
    (first, *others), more = _results(), (3, _trial(3), _measurement(SCHEDULES[3], 0.1))
    with create_or_resume(_config(url), {}) as store:
        _measure(store, [first])
        assert _numbers(url) == []
        clock[0] += 2 * module._SECONDS
        _measure(store, others[:1])
        assert _numbers(url) == [2, 0]
        _measure(store, others[1:])
        assert _numbers(url) == [2, 0]
        _measure(store, [more])
        assert _numbers(url) == [2, 0, 1, 3]


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_whatever_ends_a_run_leaves_no_result_without_its_trial(
    url: str, stop: type[BaseException]
) -> None:
    with pytest.raises(stop), create_or_resume(_config(url), {}) as store:
        _measure(store, _results())
        raise stop
    assert _numbers(url) == [2, 0, 1]


@pytest.mark.usefixtures("slow")
def test_what_a_kill_cut_off_is_mirrored_on_resume(url: str) -> None:
    store = create_or_resume(_config(url), {})
    _measure(store, _results()[:1])
    store.mirror.flush()
    _measure(store, _results()[1:])
    store.mirror.close()  # as a kill: nothing is flushed
    store._engine.dispose()
    assert _numbers(url) == [2]
    with create_or_resume(_config(url), {}, takeover=True) as store:
        Log(store)
        assert _numbers(url) == [2, 0, 1]
    assert _numbers(url) == [2, 0, 1]


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("error", [DATABASE_GONE, KeyboardInterrupt()])
def test_a_write_that_broke_off_is_made_again_unless_it_was_committed(
    url: str, commits: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = OptunaMirror._write

    def breaks_off(mirror: OptunaMirror, trials: Sequence[FrozenTrial]) -> None:
        if commits:
            write(mirror, trials)
        raise error

    with create_or_resume(_config(url), {}) as store:
        _measure(store, _results())
        with monkeypatch.context() as patch:
            patch.setattr(OptunaMirror, "_write", breaks_off)
            with pytest.raises(type(error)), without_waiting():
                store.mirror.flush()
        assert _numbers(url) == ([2, 0, 1] if commits else [])
        store.mirror.flush()
        assert _numbers(url) == [2, 0, 1]


@pytest.mark.usefixtures("slow")
def test_a_database_that_is_gone_at_the_end_hides_no_other_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise DATABASE_GONE

    monkeypatch.setattr(OptunaMirror, "_write", gone)
    with (
        pytest.raises(RuntimeError, match="the reason"),
        create_or_resume(_config(url), {}) as store,
    ):
        _measure(store, _results()[:1])
        raise RuntimeError("the reason")
    with (
        pytest.raises(sa.exc.OperationalError, match="closed the connection"),
        without_waiting(),
        create_or_resume(_config(url), {}) as store,
    ):
        _mirror_what_is_stored(store)


def test_the_axes_of_the_dashboard_have_names_and_nobody_is_warned(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with create_or_resume(_config(url), {}) as store:
            store.mirror.open()
    assert _loaded(url) == (["FD@1000 (digits)", "NFE"], [])


def test_a_study_of_an_earlier_release_gets_the_names_and_keeps_its_trials(url: str) -> None:
    create_or_resume(_config(url), {}).close()
    storage = optuna.storages.RDBStorage(url)
    older = optuna.create_study(
        storage=storage, study_name="t", directions=["minimize", "minimize"]
    )
    older.add_trial(module._optuna_trial(*_results()[0]))
    storage.remove_session()
    storage.engine.dispose()
    with create_or_resume(_config(url), {}) as store:
        _measure(store, _results())
    assert _loaded(url)[0] == ["FD@1000 (digits)", "NFE"]
    assert _numbers(url) == [2, 0, 1]


def test_studies_in_one_database_keep_apart(url: str) -> None:
    with (
        closing(create_or_resume(_config(url), {})) as one,
        closing(create_or_resume(_config(url, study__name="u"), {})) as other,
    ):
        for each in _results()[:2]:
            for store in (one, other):
                _measure(store, [each])
                store.mirror.flush()
        assert one.mirror.numbers() == {0, 2}
        _measure(one, _results()[2:])
    assert (_numbers(url), _numbers(url, "u")) == ([2, 0, 1], [2, 0])
