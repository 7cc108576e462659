"""Populations: fair shares of what waits, whole studies on them, one that has no reply."""

import functools
from pathlib import Path
from typing import Any

import pytest

from s3search.cluster import InlinePool
from s3search.cluster.asking import Asker, Pool, PopulationSize
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Description, Population, Reply, Request
from s3search.processes import edm
from s3search.run.launching import launch, launch_on, space_of
from s3search.schedules.published import baselines
from s3search.search.questions import Measure, Measurement, Rung, Thresholds, measure
from s3search.study.file.config import StudyConfig
from tests.support.simulated import SimulatedPool, Weather
from tests.support.studies import assert_same, content, study_config, undisturbed

SCHEDULES = list({s.id: s for s in baselines(edm(), 3).values()}.values())
OF_FOUR = "cluster.population=4"


def _questions(n: int, thresholds: Thresholds = (), n_images: int = 1000) -> list[Measure]:
    return [
        measure(s, rung=Rung.SEARCH, n_images=n_images, noise_seed=0, thresholds=thresholds)
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
        many = isinstance(task.request, Population)
        given.append(len(task.request.questions) if many else 1)
        submit(task)

    pool.submit = noted  # type: ignore[method-assign]  # a look at what it is given
    Asker(pool, PopulationSize(fixed=most)).begin(_questions(n), are_last=are_last)
    return [*given, n - sum(given)]


def test_what_waits_is_shared_out_among_all_workers_before_any_gets_many(tmp_path: Path) -> None:
    assert _sizes(2, 3, 4, tmp_path, are_last=False) == [1, 1, 1, 0]
    assert _sizes(2, 8, 4, tmp_path, are_last=False) == [2, 2, 2, 2, 0]
    assert _sizes(2, 16, 4, tmp_path, are_last=False) == [4, 4, 4, 4, 0]
    assert _sizes(2, 18, 4, tmp_path, are_last=False) == [4, 4, 4, 4, 2]
    assert _sizes(1, 6, 1, tmp_path, are_last=False) == [1, 1, 4]


def test_the_last_of_a_batch_are_spread_although_one_worker_has_room(tmp_path: Path) -> None:
    pool = _virtual(2, study_config(tmp_path))
    asker = Asker(pool, PopulationSize(fixed=4))
    asker.begin(_questions(20), are_last=True)
    assert len(asker._waiting) == 4
    asker.collect(are_last=True)
    asker._submit(are_last=True)
    assert len(asker._waiting) == 2
    asker.collect(are_last=True)
    asker._submit(are_last=False)
    assert not asker._waiting


def test_the_automatic_size_fills_a_batch_of_a_gpu_and_is_one_on_a_cpu(tmp_path: Path) -> None:
    evaluator = Evaluator(study_config(tmp_path).evaluator_spec)
    here = evaluator.describe()
    assert (here.device, here.batch_size) == ("cpu", 1000)
    alone, raced = _questions(1), _questions(1, ((125, 1.0), (250, 1.0)))
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


def _answers(pool: Pool, questions: list[Measure]) -> list[Measurement]:
    """In populations of four, in the order of the questions."""
    asker = Asker(pool, PopulationSize(fixed=4))
    asker.begin(questions, are_last=True)
    found = {each.question.key: each for each in asker.answers()}
    measured = [found[question.key] for question in questions]
    return [each for each in measured if isinstance(each, Measurement)]


def test_a_population_without_a_reply_is_asked_again_one_by_one(tmp_path: Path) -> None:
    config = study_config(tmp_path, "search.batch=8")
    evaluator = Evaluator(config.evaluator_spec)
    bad, asked = SCHEDULES[1], list[tuple[str, ...]]()

    def work(request: Request) -> Reply:
        many = isinstance(request, Population)
        questions: Any = request.questions if many else (request,)
        asked.append(tuple(each.trial.id for each in questions))
        if bad.id in asked[-1]:
            raise MemoryError
        return evaluator(request)

    pool: InlinePool[Request, Reply] = InlinePool(lambda: work)
    measured = _answers(pool, _questions(6, n_images=30))
    assert [m.value is None for m in measured] == [s is bad for s in SCHEDULES[:6]]
    assert sum(m.seconds for m in measured) > 0
    ids = [s.id for s in SCHEDULES[:6]]
    assert asked == [tuple(ids[:3]), tuple(ids[3:]), *((i,) for i in ids[:3])]
