"""What a study's lab asks of the workers, what it costs, and under which name it is kept."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from s3search.run.study_lab import StudyLab
from s3search.search.lab import Trial
from s3search.search.proposer import Told

from s3search.cluster import InlinePool
from s3search.errors import StudyConflict
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import PolishRequest, ProxyRequest, Reply, Request
from s3search.processes import edm
from s3search.schedules.published import baselines
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import RandomSearch
from s3search.search.algorithms.sequential import Sequential
from s3search.search.space import load_space
from s3search.study.database.store import create_or_resume
from s3search.study.file.config import StudyConfig
from tests.support.studies import study_config

SCHEDULES = list(baselines(edm(), 3).values())[:6]


@contextmanager
def _lab(config: StudyConfig, asked: list[Request]) -> Iterator[StudyLab]:
    """A lab with one worker in this process, which writes down what it is asked."""
    evaluator = Evaluator(config.evaluator_spec)

    def work(request: Request) -> Reply:
        asked.append(request)
        return evaluator(request)

    with create_or_resume(config, {}) as store:
        pool: InlinePool[Request, Reply] = InlinePool(lambda: work)
        yield StudyLab(store, pool, lambda _: None)


def test_the_price_of_the_trajectory_is_what_it_cost(tmp_path: Path) -> None:
    asked: list[Request] = []
    with _lab(study_config(tmp_path, "search.n_images=80"), asked) as lab:
        price = lab.price("trajectory", 3)
        errors = lab.scores("trajectory", SCHEDULES)
        assert lab.tally.spent == pytest.approx(len(SCHEDULES) * price.images + price.once)
        lab.scores("trajectory", SCHEDULES)  # known: the workers are not asked again
    assert price.images == 10
    assert (errors > 0).all()
    sizes = [len(r.schedules) for r in asked if isinstance(r, ProxyRequest)]
    assert sizes == [4, 2]


def test_a_race_never_looks_at_fewer_images_than_the_trajectory(tmp_path: Path) -> None:
    for n_images, expected in ((30, 4), (1000, 64), (50_000, 64)):
        changes = (f"study.name=of {n_images}", f"search.n_images={n_images}")
        with _lab(study_config(tmp_path, *changes), []) as lab:
            assert lab.price("trajectory", 3).images == expected
            assert lab.price("mixture", 3).images == lab.price("gaussian", 3).once == 0.0


def test_either_loss_of_the_polish_costs_the_same(tmp_path: Path) -> None:
    spent, made = {}, {}
    for loss in ("frechet", "trajectory"):
        asked: list[Request] = []
        config = study_config(tmp_path, f"study.name={loss}", f"search.polish_loss={loss}")
        with _lab(config, asked) as lab:
            (made[loss],) = lab.polish(SCHEDULES[:1], iterations=50, n_images=40, seed=0)
            spent[loss] = lab.tally.spent
        assert [r.loss for r in asked if isinstance(r, PolishRequest)] == [loss]
    assert spent["trajectory"] == pytest.approx(spent["frechet"], rel=0.03)
    assert None not in made.values()
    assert made["frechet"] != made["trajectory"]


def test_a_polish_of_before_the_loss_could_be_chosen_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[Request] = []
    with _lab(study_config(tmp_path), asked) as lab:
        lab.polish(SCHEDULES[:1], iterations=2, n_images=4, seed=0)
        parts = ("polish", SCHEDULES[0].id, 2, 4, 0, False)  # as written by version 0.1
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
        assert lab._store.jobs([digest]).keys() == {digest}


def test_what_the_search_made_and_measured_is_told_again_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked = study_config(tmp_path), list[Request]()
    told: list[list[tuple[int, str, float | None]]] = []
    for _ in range(2):
        search = _Listening(load_space("usf"), edm(), nfe=[3], seed=0)
        with _lab(config, asked) as lab:
            Sequential(lambda own=search: own, n_seeds=0, evaluations=6, batch=2).run(lab)
        told.append(search.told)
        monkeypatch.setattr(Schedule, "from_dict", None)
    assert told[0] == told[1]
    assert [number for number, *_ in told[0]] == list(range(6))
    assert len(asked) == 6


class _Listening(RandomSearch):
    """Writes down what it is told."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.told: list[tuple[int, str, float | None]] = []

    def tell(self, observation: Told) -> None:
        self.told.append((observation.number, observation.id, observation.value))
        super().tell(observation)


def test_a_study_does_not_change_its_loss(tmp_path: Path) -> None:
    with _lab(study_config(tmp_path), []):
        pass
    with pytest.raises(StudyConflict, match=r"search\.polish_loss = 'frechet'"):
        create_or_resume(study_config(tmp_path, "search.polish_loss=trajectory"), {})


def test_the_worker_seconds_are_those_of_the_database_without_a_question(tmp_path: Path) -> None:
    config = study_config(tmp_path, "search.gpu_seconds=1000")
    trials = [Trial(schedule=schedule, origin="test") for schedule in SCHEDULES]
    asked: list[Request] = []
    with _lab(config, asked) as lab:
        lab.measure(trials[:3])
        lab.scores("trajectory", SCHEDULES)
        lab.floor()
        seconds = lab.worker_seconds
        assert 0 < seconds == pytest.approx(lab._store.seconds_spent())
    with _lab(config, asked) as lab:  # resumed
        assert lab.worker_seconds == pytest.approx(seconds)
        lab.measure(trials[3:])
        assert seconds < lab.worker_seconds == pytest.approx(lab._store.seconds_spent())
        questions: list[str] = []
        sa.event.listen(
            lab._store._engine, "before_cursor_execute", lambda *told: questions.append(told[2])
        )
        assert not lab.is_over()
        assert questions == []
        lab.budget()
        assert questions == []
        (gone,) = SCHEDULES[5:]
        lab.rescore([gone], 10)
        assert questions  # they are heard


def test_worker_seconds_end_a_search_also_when_earlier_runs_spent_them(tmp_path: Path) -> None:
    config = study_config(tmp_path, "search.gpu_seconds=1e-6")
    with _lab(config, []) as lab:
        assert not lab.is_over()
        lab.measure([Trial(schedule=SCHEDULES[0], origin="test")])
        assert lab.is_over()
    with _lab(config, []) as lab:
        assert lab.is_over()
