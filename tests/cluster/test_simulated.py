"""A search on many virtual workers that fail and leave: what the database holds in the end."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from s3search.evaluation.evaluator import Evaluator
from s3search.run.launching import launch_on, space_of
from tests.support.simulated import SimulatedPool, Weather
from tests.support.studies import content, study_config

STORMY = Weather(preempted_an_hour=20.0, failing=0.05, away=60.0, starting=10.0)
CALM = Weather(preempted_an_hour=0.0, failing=0.0, spread=0.0)


def _searched(
    folder: Path, n_workers: int, weather: Weather, *overrides: str
) -> tuple[SimulatedPool, dict[str, Any]]:
    folder.mkdir()
    sizes = ("search.batch=30", "search.evaluations=120", "search.baselines=false")
    config = study_config(folder, *sizes, "search.n_images=1000", *overrides)
    worker = partial(Evaluator, config.evaluator_spec)
    pool = SimulatedPool(worker, n_workers=n_workers, weather=weather, seed=0)
    launch_on(pool, config, space_of(config), lambda _: None)
    return pool, content(config)


def test_nothing_is_lost_or_done_twice_where_workers_come_and_go(tmp_path: Path) -> None:
    pool, found = _searched(tmp_path / "a", 15, STORMY)
    assert pool.n_preempted > 5
    numbers = [number for number, *_ in found["proposals"]]
    assert numbers == list(range(120))
    measured = Counter(row[1] for row in found["evaluations"] if row[0] == "search")
    assert measured == Counter(row[1] for row in found["proposals"])
    failed = sum(row[4] == "failed" for row in found["evaluations"])
    assert 0 < failed < 30
    assert found["state"] == "done"


@pytest.mark.parametrize("algorithm", ["evolution", "optuna:random"])
def test_what_is_proposed_does_not_depend_on_the_workers(tmp_path: Path, algorithm: str) -> None:
    named = f"search.algorithm={algorithm}"
    late = Weather(preempted_an_hour=20.0, failing=0.0, spread=0.8)
    _, disturbed = _searched(tmp_path / "a", 7, late, named)
    _, alone = _searched(tmp_path / "b", 1, CALM, named)
    for key in ("proposals", "evaluations", "best"):
        assert disturbed[key] == alone[key]


def test_no_worker_waits_for_the_slowest_of_a_batch(tmp_path: Path) -> None:
    uneven = Weather(preempted_an_hour=0.0, failing=0.0, spread=0.6)
    validation = "validation.n_images=2"  # its 2 tasks keep nobody busy
    pool, _ = _searched(tmp_path / "a", 5, uneven, validation)
    assert pool.busy_share() > 0.9
    assert pool.busy_share(until=pool.last_begun) > 0.97
