"""Populations: fair shares of what waits, whole studies on them, workers that die under one."""

import functools
import os
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3search.cluster import InlinePool, open_pool
from s3search.cluster.packing import Packer, PopulationSize
from s3search.evaluation.evaluator import Evaluator, EvaluatorSpec
from s3search.evaluation.record import (
    Description,
    EvaluationRequest,
    PopulationRequest,
    Reply,
    Request,
    Rung,
)
from s3search.processes import edm
from s3search.run.launching import launch, launch_on, space_of
from s3search.run.study_lab import StudyLab
from s3search.schedules.published import baselines
from s3search.search.lab import Trial
from s3search.study.database.store import create_or_resume
from s3search.study.file.config import StudyConfig
from tests.suites.pool_suite import start_ray
from tests.support.simulated import SimulatedPool, Weather
from tests.support.studies import assert_same, content, study_config, undisturbed

SCHEDULES = list({s.id: s for s in baselines(edm(), 3).values()}.values())
OF_FOUR = "cluster.population=4"


def _requests(n: int, race: tuple[tuple[int, float], ...] = ()) -> list[EvaluationRequest]:
    return [
        EvaluationRequest(schedule=s, rung=Rung.SEARCH, n_images=1000, noise_seed=0, race=race)
        for s in SCHEDULES[:n]
    ]


def _virtual(n_workers: int, config: StudyConfig, *, spread: float = 0.2) -> SimulatedPool:
    weather = Weather(preempted_an_hour=0.0, failing=0.0, spread=spread, starting=0.0)
    make_worker = functools.partial(Evaluator, config.evaluator_spec)
    return SimulatedPool(make_worker, n_workers=n_workers, weather=weather, seed=0)


def _sizes(n_workers: int, n: int, most: int, tmp_path: Path, *, are_last: bool) -> list[int]:
    """Evaluations in each task that an idle pool is given, and then how many still wait."""
    pool = _virtual(n_workers, study_config(tmp_path))
    given = list[int]()
    submit = pool.submit

    def noted(task: Any) -> None:
        many = isinstance(task.request, PopulationRequest)
        given.append(len(task.request.requests) if many else 1)
        submit(task)

    pool.submit = noted  # type: ignore[method-assign]  # a look at what it is given
    waiting = deque(_requests(n))
    Packer(pool, PopulationSize(fixed=most)).submit(waiting, are_last=are_last)
    return [*given, len(waiting)]


def test_what_waits_is_shared_out_among_all_workers_before_any_gets_many(tmp_path: Path) -> None:
    assert _sizes(2, 3, 4, tmp_path, are_last=False) == [1, 1, 1, 0]
    assert _sizes(2, 8, 4, tmp_path, are_last=False) == [2, 2, 2, 2, 0]
    assert _sizes(2, 16, 4, tmp_path, are_last=False) == [4, 4, 4, 4, 0]
    assert _sizes(2, 18, 4, tmp_path, are_last=False) == [4, 4, 4, 4, 2]
    assert _sizes(1, 6, 1, tmp_path, are_last=False) == [1, 1, 4]


def test_the_last_of_a_batch_are_spread_although_one_worker_has_room(tmp_path: Path) -> None:
    pool = _virtual(2, study_config(tmp_path))
    packer = Packer(pool, PopulationSize(fixed=4))
    waiting = deque(_requests(20))
    packer.submit(waiting, are_last=True)
    assert len(waiting) == 4
    pool.collect()
    packer.submit(waiting, are_last=True)
    assert len(waiting) == 2
    pool.collect()
    packer.submit(waiting, are_last=False)
    assert not waiting


def test_the_automatic_size_fills_a_batch_of_a_gpu_and_is_one_on_a_cpu(tmp_path: Path) -> None:
    evaluator = Evaluator(study_config(tmp_path).evaluator_spec)
    here = evaluator.describe()
    assert (here.device, here.batch_size) == ("cpu", 1000)
    alone, raced = _requests(1), _requests(1, race=((125, 1.0), (250, 1.0)))
    assert PopulationSize.of("auto", here).most(raced[0]) == 1
    there = _on_gpu(here)
    assert PopulationSize.of("auto", there).most(alone[0]) == 1
    assert PopulationSize.of("auto", there).most(raced[0]) == 8
    assert PopulationSize.of(3, here).most(alone[0]) == 3


def _on_gpu(description: Description) -> Description:
    fields = {name: getattr(description, name) for name in Description.__slots__}
    return Description(**(fields | {"device": "cuda"}))


@pytest.mark.parametrize("algorithm", ["evolution", "s3"])
def test_a_study_on_populations_is_the_same_study(tmp_path: Path, algorithm: str) -> None:
    named = (f"search.algorithm={algorithm}", "search.n_images=40", "search.evaluations=24")
    expected = undisturbed(tmp_path, *named)
    config = study_config(tmp_path, OF_FOUR, *named)
    launch(config, lambda _: None)
    assert_same(content(config), expected)


def test_workers_are_busy_with_populations(tmp_path: Path) -> None:
    config = study_config(
        tmp_path, OF_FOUR, "search.evaluations=240", "search.batch=40", "search.baselines=false",
        "search.n_images=1000", "validation.n_images=2",
    )  # fmt: skip
    pool = _virtual(5, config, spread=0.6)
    launch_on(pool, config, space_of(config), lambda _: None)
    assert pool.busy_share() > 0.88


def _lab_of(config: StudyConfig, work: Callable[[Request], Reply]) -> Any:
    store = create_or_resume(config, {})
    pool: InlinePool[Request, Reply] = InlinePool(lambda: work)
    return store, StudyLab(store, pool, lambda _: None, population=PopulationSize(fixed=4))


def test_a_population_without_a_reply_is_asked_again_one_by_one(tmp_path: Path) -> None:
    config = study_config(tmp_path, "search.batch=8")
    evaluator = Evaluator(config.evaluator_spec)
    bad, asked = SCHEDULES[1], list[tuple[str, ...]]()

    def work(request: Request) -> Reply:
        many = isinstance(request, PopulationRequest)
        requests: Any = request.requests if many else (request,)
        asked.append(tuple(each.schedule.id for each in requests))
        if bad.id in asked[-1]:
            raise MemoryError
        return evaluator(request)

    store, lab = _lab_of(config, work)
    with store:
        trials = [Trial(schedule=s, origin="mutation") for s in SCHEDULES[:6]]
        measured = lab.measure(trials)
        assert [m.value is None for m in measured] == [s is bad for s in SCHEDULES[:6]]
        assert store.seconds_spent() > 0
    ids = [s.id for s in SCHEDULES[:6]]
    assert asked == [tuple(ids[:3]), tuple(ids[3:]), *((i,) for i in ids[:3])]


def make_killer(kill: str) -> Callable[[Any], Any]:
    """A worker whose process dies under one schedule, alone or among others."""
    spec = EvaluatorSpec(
        model="tests.support.plugins:gaussian",
        features="tests.support.plugins:pixels",
        reference="tests.support.plugins:images",
    )
    evaluator = Evaluator(spec)

    def work(request: Any) -> Any:
        many = isinstance(request, PopulationRequest)
        requests = request.requests if many else (request,)
        if any(getattr(each, "schedule", None) and each.schedule.id == kill for each in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluator(request)

    return work


@pytest.mark.cluster
def test_only_the_schedule_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    start_ray()
    config = study_config(tmp_path, "search.n_images=60")
    bad = SCHEDULES[2]
    with (
        open_pool("local", functools.partial(make_killer, bad.id), 1, 0) as pool,
        create_or_resume(config, {}) as store,
    ):
        lab = StudyLab(store, pool, lambda _: None, population=PopulationSize(fixed=4))
        measured = lab.measure([Trial(schedule=s, origin="mutation") for s in SCHEDULES[:8]])
        assert [m.value is None for m in measured] == [s is bad for s in SCHEDULES[:8]]
        results = store.search_results([s.id for s in SCHEDULES[:8]])
        errors = [r.error for r in results if r.error is not None]
    assert len(errors) == 1
    assert "in quarantine: 2 worker processes died" in errors[0]
    assert len(results) == 8
