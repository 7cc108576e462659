"""What a search costs, and what is left of its budget: as it was measured, without a question."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from s3search.cluster import InlinePool
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Reply, Request
from s3search.processes import edm
from s3search.run import tally as module
from s3search.run.driver import Driver
from s3search.run.launching import launch
from s3search.run.prepare import Prepared
from s3search.run.tally import Tally
from s3search.schedules.published.baselines import published_solvers
from s3search.search.algorithms.s3 import _paid_iterations
from s3search.search.conversation import Ask, Outside, Setup, Talk
from s3search.search.ladder import LadderRung
from s3search.search.questions import (
    FINE_NFE,
    Answer,
    Measurement,
    Polish,
    PolishResult,
    Question,
    RealImages,
    Score,
    polish_checks,
)
from s3search.search.space import load_space
from s3search.search.trial import Trial, distinct, searched
from s3search.study import vetoes
from s3search.study.database.store import StudyStore, create_or_resume
from s3search.study.file.config import StudyConfig
from s3search.study.log import Log
from s3search.study.results.progress import Progress
from tests.support.searches import setup_of
from tests.support.studies import study_config

TRIALS = distinct(
    Trial.of(each.schedule, searched("test")) for each in published_solvers(edm(), 3)
)[:6]


def _setup(**changes: object) -> Setup:
    return setup_of(load_space("usf"), edm(), nfe=[3], **changes)


def _timed(folder: Path, **seconds: float) -> StudyConfig:
    """A study whose only budget is time."""
    config = study_config(folder)
    search = config.search.model_copy(update={"evaluations": None, **seconds})
    return config.model_copy(update={"search": search})


class _Asked:
    """A driver with one worker in this process, which writes down what it is asked."""

    def __init__(self, store: StudyStore, asked: list[Request]) -> None:
        evaluator = Evaluator(store.config.evaluator_spec)

        def work(request: Request) -> Reply:
            asked.append(request)
            return evaluator(request)

        pool: InlinePool[Request, Reply] = InlinePool(lambda: work)
        start = Prepared(description=evaluator.describe())
        self.store, self._driver = store, Driver(store, pool, start, lambda _: None)

    @property
    def tally(self) -> Tally:
        return self._driver._tally

    @property
    def worker_seconds(self) -> float:
        return self.tally.progress("search", 0, 1).worker_seconds

    def answers(self, *questions: Question) -> tuple[Measurement | Answer, ...]:
        return self._driver._converse(Talk().ask(questions))


@contextmanager
def _asking(config: StudyConfig, asked: list[Request]) -> Iterator[_Asked]:
    with create_or_resume(config, {}) as store:
        yield _Asked(store, asked)


# -- what questions cost -------------------------------------------------------------------


def test_the_price_of_the_trajectory_is_what_it_cost(tmp_path: Path) -> None:
    asked: list[Request] = []
    questions = _setup(n_images=80).score(LadderRung.TRAJECTORY, TRIALS)
    with _asking(study_config(tmp_path, "search.n_images=80"), asked) as driver:
        answers = driver.answers(*questions)
        n_images, once = 10, 10 * FINE_NFE / 3  # the fine solve is shared by all schedules
        assert driver.tally._spent == pytest.approx(len(TRIALS) * n_images + once)
        driver.answers(*questions)  # known: the workers are not asked again
        assert driver.tally._spent == pytest.approx(len(TRIALS) * n_images + once)
    with _asking(study_config(tmp_path, "search.n_images=80"), asked) as driver:
        assert driver.tally._spent == pytest.approx(len(TRIALS) * n_images + once)
    errors = [error for answer in answers for error in answer.value]
    assert len(errors) == len(TRIALS)
    assert min(errors) > 0
    assert [len(r.trials) for r in asked if isinstance(r, Score)] == [4, 2]
    assert {r.n_images for r in asked if isinstance(r, Score)} == {n_images}


def test_an_early_stop_never_looks_at_fewer_images_than_the_trajectory(tmp_path: Path) -> None:
    for n_images, expected in ((30, 4), (1000, 64), (50_000, 64)):
        setup = _setup(n_images=n_images)
        assert setup.trajectory_images == expected
        (question,) = setup.score(LadderRung.TRAJECTORY, TRIALS[:1])
        assert question.n_images == expected
    with _asking(study_config(tmp_path), []) as driver:
        for proxy in (LadderRung.MIXTURE, LadderRung.GAUSSIAN):
            (answer,) = driver.answers(*_setup(n_images=30).score(proxy, TRIALS))
            assert isinstance(answer, Answer)
            assert answer.value is not None
            assert answer.images == 0.0
        assert driver.tally._spent == 0.0


def test_either_loss_of_the_polish_costs_the_same(tmp_path: Path) -> None:
    spent, made = {}, {}
    for loss in ("metric", "trajectory"):
        asked: list[Request] = []
        config = study_config(tmp_path, f"study.name={loss}", f"search.polish_loss={loss}")
        setup = _setup(n_images=30, polish_loss=loss)
        iterations = _paid_iterations(setup, 50, 3)
        question = setup.polish(TRIALS[0], iterations=iterations, n_images=40, seed=0)
        with _asking(config, asked) as driver:
            (answer,) = driver.answers(question)
            spent[loss] = driver.tally._spent
        assert [r.loss for r in asked if isinstance(r, Polish)] == [loss]
        assert isinstance(answer.value, PolishResult)
        made[loss] = answer.value.schedule
    assert spent["trajectory"] == pytest.approx(spent["metric"], rel=0.03)
    paid = 2 * (50 + polish_checks(50)) * 40  # forward and backward
    assert spent["metric"] == pytest.approx(paid, rel=0.03)
    assert made["metric"] != made["trajectory"]


# -- budgets of seconds --------------------------------------------------------------------


def test_the_worker_seconds_are_those_of_the_database_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VETO_SECONDS", 1e9)
    config, setup = _timed(tmp_path, gpu_seconds=1000.0), _setup(n_images=30)
    asked: list[Request] = []
    with _asking(config, asked) as driver:
        driver.answers(*map(setup.measure, TRIALS[:3]))
        driver.answers(*setup.score(LadderRung.TRAJECTORY, TRIALS))
        driver.answers(RealImages(n_images=60, seed=1))
        seconds = driver.worker_seconds
        assert 0 < seconds == pytest.approx(driver.store.seconds_spent())
    with _asking(config, asked) as driver:  # resumed
        assert driver.worker_seconds == pytest.approx(seconds)
        driver.answers(*map(setup.measure, TRIALS[3:]))
        assert seconds < driver.worker_seconds == pytest.approx(driver.store.seconds_spent())
        questions: list[str] = []
        sa.event.listen(
            driver.store._engine, "before_cursor_execute", lambda *told: questions.append(told[2])
        )
        outside = driver.tally.outside()
        assert not outside.is_over
        assert outside.budget == pytest.approx(driver.tally._spent / driver.worker_seconds * 1000)
        assert questions == []
        driver.answers(setup.measure_again(TRIALS[5], 10))
        assert questions  # they are heard


def test_worker_seconds_end_a_search_also_when_earlier_runs_spent_them(tmp_path: Path) -> None:
    config = _timed(tmp_path, gpu_seconds=1e-6)
    with _asking(config, []) as driver:
        assert not driver.tally.outside().is_over
        driver.answers(_setup(n_images=30).measure(TRIALS[0]))
        assert driver.tally.outside().is_over
    with _asking(config, []) as driver:
        assert driver.tally.outside().is_over


def test_a_budget_of_wall_seconds_is_what_the_rate_so_far_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    config = _timed(tmp_path, wall_seconds=110.0)
    question = _setup(n_images=30).measure(TRIALS[0])
    measured = Measurement(question=question, estimate=0.5, n_images=30, seconds=6.0)
    with create_or_resume(config, {}) as store:
        log = Log(store)
        tally = Tally(store, log, total=None, spent_before=0.0)
        assert tally.outside() == Outside(budget=0.0, limits="wall_seconds=110.0")
        log.begin(Ask(begin=(question,)))
        clock[0] += 10.0
        log.add(measured)
        tally.see(measured)
        assert tally.outside().budget == pytest.approx(30 + 3.0 * 100)
        clock[0] += 100.0
        assert tally.outside().is_over
        assert tally.outside().budget == pytest.approx(30)
    with create_or_resume(config, {}) as store:  # the clock begins anew; the rate is a worker's
        tally = Tally(store, Log(store), total=None, spent_before=2.0)
        assert not tally.outside().is_over
        assert tally.outside().budget == pytest.approx(30 + 5.0 * 110 - 2 * 30)


def test_a_budget_of_evaluations_is_one_of_images_less_what_earlier_spaces_spent(
    tmp_path: Path,
) -> None:
    with create_or_resume(study_config(tmp_path), {}) as store:
        for before, expected in ((0.0, 180.0), (2.5, 105.0)):
            tally = Tally(store, Log(store), total=6, spent_before=before)
            assert tally.outside() == Outside(budget=expected, limits="evaluations=6")


# -- what is reported ----------------------------------------------------------------------


def test_a_veto_is_heard_within_a_second_and_leaves_the_bests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    config = study_config(tmp_path)
    setup = _setup(n_images=30)
    with create_or_resume(config, {}) as store:
        log = Log(store)
        tally = Tally(store, log, total=6, spent_before=0.0)
        for trial, distance in zip(TRIALS[:2], (0.25, 0.5), strict=True):
            question = setup.measure(trial)
            measured = Measurement(question=question, estimate=distance, n_images=30)
            log.begin(Ask(begin=(question,)))
            log.add(measured)
            tally.see(measured)
        log.flush()
        vetoes.veto(config.storage.url, "t", TRIALS[0].id, "blurred")
        assert tally.outside().vetoed == frozenset()
        assert tally.progress("search", 0, 1).best == {3: 0.25}
        clock[0] += 1.0
        assert tally.outside().vetoed == {TRIALS[0].id}
        assert tally.progress("search", 0, 1).best == {3: 0.5}
        vetoes.lift(config.storage.url, "t", TRIALS[0].id)
        clock[0] += 1.0
        assert tally.outside().vetoed == frozenset()
        assert tally.progress("search", 0, 1).best == {3: 0.25}


def test_a_resumed_driver_reports_all_that_an_earlier_one_did(tmp_path: Path) -> None:
    config = study_config(
        tmp_path,
        "search.algorithm=s3",
        "space.nfe=[1]",
        "search.evaluations=90",
        "search.n_images=40",
    )
    before: list[Progress] = []
    after: list[Progress] = []

    def stop(progress: Progress) -> None:
        before.append(progress)
        if progress.stage == "finals":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, stop)
    launch(config, after.append)
    last, first = before[-1], after[0]
    assert last.predictor
    assert (first.stage, first.predictor) == ("finals", last.predictor)
    assert (first.best, first.best_baseline) == (last.best, last.best_baseline)
    for name, spend in last.spend.items():
        assert first.spend[name].count == spend.count + (name == "finals")
        assert first.spend[name].seconds >= spend.seconds
