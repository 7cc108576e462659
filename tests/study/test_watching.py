"""What the database says of a running search is what its driver says."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from s3search.errors import EvaluationFailed
from s3search.run.launching import launch
from s3search.search.direction import Direction
from s3search.search.trial import of_library, of_pipeline
from s3search.study.database.store import open_study
from s3search.study.results.frame import status_of
from s3search.study.results.progress import (
    Progress,
    RecentRate,
    RunToday,
    Spend,
    seconds_left,
    whole_share,
)
from s3search.study.results.recent import RecentAnswer, images_per_second, n_workers
from s3search.study.results.watching import Watched, look
from tests.benchmarks.bench_report import grow
from tests.support.studies import study_config

_STOCK = (("euler", 2.0), ("heun", 1.0))
_NOON = datetime(2026, 1, 1, 12)


def _at(config_url: str) -> Watched:
    with open_study(config_url, "t") as store:
        return look(store)


def _assert_same(told: Progress, seen: Progress) -> None:
    assert seen.stage == told.stage
    if told.stage in ("baselines", "search", "finals"):  # jobs are billed in batches
        assert (seen.done, seen.total) == (told.done, told.total)
    assert (seen.best, seen.best_baseline) == (told.best, told.best_baseline)
    assert (seen.held_out, seen.held_out_baseline) == (told.held_out, told.held_out_baseline)
    assert seen.today == told.today
    assert (seen.predictor, seen.failed) == (told.predictor, told.failed)
    assert seen.spend.keys() == told.spend.keys()
    for rung, spend in seen.spend.items():
        assert spend.count == told.spend[rung].count
        assert spend.network_calls == told.spend[rung].network_calls
        assert spend.seconds == pytest.approx(told.spend[rung].seconds)


def test_every_report_of_the_driver_is_seen_in_the_database(tmp_path: Path) -> None:
    """With all that a search can spend on: free proxies, races, the predictor, polish, finals.

    Of one network call there are so few published solvers that most of the search is evolution.
    """
    budget = ("search.evaluations=90", "search.n_images=40", "space.nfe=[1]")
    config = study_config(tmp_path, "search.algorithm=s3", *budget)
    stages, wholes = set(), []

    def check(told: Progress) -> None:
        assert told.whole is not None
        wholes.append(told.whole)
        if told.stage == "validation" and told.done != told.total:
            return  # the driver looks at what is validated once a second
        seen = _at(config.storage.url)
        assert seen.state == ("validating" if told.stage == "validation" else "searching")
        _assert_same(told, seen.progress)
        stages.add(told.stage)

    launch(config, check)
    assert wholes == sorted(wholes)
    assert wholes[0] < 0.1
    assert 0.9 < wholes[-2] < wholes[-1] == 1.0
    assert stages >= {"baselines", "search", "gaussian", "polish", "finals", "validation"}
    done = _at(config.storage.url)
    assert (done.state, done.progress.stage, done.progress.whole) == ("done", "done", 1.0)
    assert done.progress.today[1].name.startswith("k-diffusion ")
    assert done.progress.images_per_second == done.progress.workers_busy == 0
    assert done.progress.seconds_left is None
    assert done.progress.predictor[1].n >= 3
    with open_study(config.storage.url, "t") as store:
        status = status_of(store)
    assert done.progress.network_calls == status["network_calls"]
    assert done.progress.worker_seconds == pytest.approx(status["worker_seconds"])
    assert done.progress.failed == status["failed"]
    best = status["best"]["1"]
    assert done.progress.best == {1: best["search"]}
    assert done.progress.held_out == {1: best["held_out"]}
    assert done.progress.held_out_baseline == {1: best["held_out_baseline"]}


def test_the_seeds_come_on_top_of_the_budget_of_other_searches(url: str, tmp_path: Path) -> None:
    config = study_config(tmp_path, f"storage.url='{url}'")
    told: list[Progress] = []
    launch(config, told.append)
    seen = _at(config.storage.url).progress
    searched = next(now for now in reversed(told) if now.stage == "search")
    assert (seen.done, seen.total) == (searched.done, searched.total)
    _assert_same(replace(told[-1], stage="done"), seen)


def test_what_runs_today_is_the_pipelines_own_sampler_whatever_is_nearer() -> None:
    own = RunToday.of(of_pipeline("EulerDiscreteScheduler"), 3.0)
    euler, heun = (RunToday.of(of_library("k-diffusion", name), v) for name, v in _STOCK)
    less, more = Direction.MINIMIZE, Direction.MAXIMIZE
    assert euler.better(heun, less) == heun.better(euler, less) == heun.better(None, less) == heun
    assert euler.better(heun, more) == heun.better(euler, more) == euler
    assert heun.better(own, less) == own.better(heun, more) == own


def test_the_whole_is_of_the_images_of_search_and_validation() -> None:
    half = whole_share(0.5, 100.0, 0, 200)
    assert half == 0.25
    assert whole_share(0.5, 100.0, 0, 0) == 0.5
    assert whole_share(1.0, 200.0, 150, 50) == 0.875
    assert whole_share(0.0, 0.0, 0, 200) == 0.0
    assert whole_share(None, 100.0, 0, 200) is None  # nobody knows


def test_failures_are_spent_time_and_no_calls(tmp_path: Path) -> None:
    config = study_config(tmp_path, "model.fail=true", "search.check=false")
    told: list[Progress] = []
    with pytest.raises(EvaluationFailed):
        launch(config, told.append)
    seen = _at(config.storage.url)
    assert (seen.state, seen.progress.stage) == ("failed", "failed")
    last = told[-1].spend["search"]  # the failure that ended the run is not reported
    search = seen.progress.spend["search"]
    assert (search.count, seen.progress.failed) == (last.count + 1, told[-1].failed + 1)
    assert search.network_calls == last.network_calls == 0
    assert search.seconds > last.seconds > 0


def _answers(*seconds_ago: float, seconds: float = 1.0, worker: str = "a/1") -> list[RecentAnswer]:
    return [
        RecentAnswer(
            name="search",
            schedule_id="s",
            worker=worker,
            images=30,
            seconds=seconds,
            at=_NOON - timedelta(seconds=ago),
        )
        for ago in sorted(seconds_ago, reverse=True)
    ]


def test_the_rate_is_that_of_the_last_minute() -> None:
    long_ago = _NOON - timedelta(hours=1)
    steady = _answers(*range(0, 600, 2))  # 15 images a second
    assert images_per_second(steady, long_ago, _NOON) == pytest.approx(15.0)
    stopped = _answers(*range(30, 600, 2))
    assert images_per_second(stopped, long_ago, _NOON) == pytest.approx(7.5)
    slow = _answers(*range(100, 1000, 100), seconds=100.0)  # the newest eight, 800 s of work
    assert images_per_second(slow, long_ago, _NOON) == pytest.approx(240 / 900)
    young = _answers(5, 3, 1)
    assert images_per_second(young, _NOON - timedelta(seconds=6), _NOON) == pytest.approx(15.0)
    assert images_per_second([], long_ago, _NOON) == 0.0


def test_a_worker_is_busy_as_long_as_its_answers_take() -> None:
    assert n_workers(_answers(59, 61), _NOON) == 1
    assert n_workers(_answers(61), _NOON) == 0
    assert n_workers(_answers(500, seconds=200.0), _NOON) == 1
    both = [*_answers(1), *_answers(2, worker="b/7"), *_answers(90, worker="c/9")]
    assert n_workers(both, _NOON) == 2


def test_the_drivers_rate_forgets_what_is_older_than_a_minute() -> None:
    rate = RecentRate(0.0)
    assert rate.per_second(0.0, 0) == 0.0
    for now in range(1, 101):  # 10 images a second, then none
        rate.per_second(float(now), 10.0 * now)
    assert rate.per_second(101.0, 1000.0) == pytest.approx(10.0, rel=0.05)
    for now in range(102, 161):
        rate.per_second(float(now), 1000.0)
    assert rate.per_second(161.0, 1000.0) == 0.0


def test_the_first_budget_to_be_spent_decides_the_time_left(tmp_path: Path) -> None:
    search = study_config(tmp_path, "search.gpu_seconds=100", "search.wall_seconds=80").search
    known = {"images_per_second": 10.0, "worker_seconds": 40.0, "elapsed": 20.0}
    assert seconds_left(search, images=500, workers_busy=2, **known) == 30.0
    assert seconds_left(search, images=100, workers_busy=2, **known) == 10.0
    assert seconds_left(search, images=None, workers_busy=0, **known) == 60.0
    assert Spend().plus(30, 2.0).plus(0, 1.0) == Spend(2, 30, 3.0)


def test_a_look_at_many_trials_takes_steps_in_proportion(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    launch(config, lambda _: None)
    few = _steps_of_a_look(config.storage.url)
    grow(config.storage.url, 1_000)
    some = _steps_of_a_look(config.storage.url)
    grow(config.storage.url, 3_000, first=1_000)
    many = _steps_of_a_look(config.storage.url)
    assert 0 < many - some < 4 * (some - few)  # three times as many, or a logarithm more


def _steps_of_a_look(url: str) -> int:
    """Instructions of SQLite's machine, in hundreds."""
    n = 0

    def count() -> None:
        nonlocal n
        n += 1

    def connected(connection: Any, _record: Any) -> None:
        connection.set_progress_handler(count, 100)

    sa.event.listen(sa.Engine, "connect", connected)
    try:
        _at(url)
    finally:
        sa.event.remove(sa.Engine, "connect", connected)
    return n
