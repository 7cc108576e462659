"""MIND: torch-fidelity's number, closed forms, and optimal transport of unequal counts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from s3search.metrics.frechet import jackknife_error
from s3search.metrics.mind import MindLoss, MindStatistic, monge_distance

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics" / "torch_fidelity" / "mind.json"
CASES = {case["name"]: case for case in json.loads(GOLDEN.read_text())["cases"]}


def _features(n: int, d: int = 6, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize("name", CASES)
def test_the_distance_is_that_of_torch_fidelity(name: str) -> None:
    case = CASES[name]
    assert monge_distance(case["real"], case["made"]) == pytest.approx(case["mind"], rel=1e-6)


def test_the_statistic_of_as_many_images_is_the_same_number() -> None:
    case = CASES["equal"]
    found = MindStatistic.of(case["real"]).value(np.array(case["made"]))
    assert found == pytest.approx(case["mind"], rel=1e-6)


def test_a_gap_of_the_means_has_three_times_its_frechet_distance() -> None:
    real = _features(40, 5)
    gap = np.array([1.0, -2.0, 0.0, 0.5, 0.0])
    assert MindStatistic.of(real).value(real + gap) == pytest.approx(3.0 * gap @ gap, rel=0.1)


@pytest.mark.parametrize(("n_real", "n"), [(6, 9), (9, 6), (4, 12), (12, 4), (7, 5)])
def test_unequal_counts_are_transported_whole(n_real: int, n: int) -> None:
    """Images that come several times weigh as much as fewer that come once."""
    real, made = _features(n_real, seed=1), _features(n, shift=0.5, seed=2)
    found = MindStatistic.of(real).value(made)
    again = MindStatistic.of(np.repeat(real, n, axis=0)).value(np.repeat(made, n_real, axis=0))
    assert found == pytest.approx(again, rel=1e-9)
    assert found > 0.0


@pytest.mark.parametrize(("n_real", "n"), [(400, 400), (300, 400), (400, 150)])
def test_blocks_are_left_out_to_first_order(n_real: int, n: int) -> None:
    real, made = _features(n_real, seed=1), _features(n, shift=0.5, seed=2)
    statistic = MindStatistic.of(real)
    found = statistic.left_out(made, 10)
    exact = [
        statistic.value(np.delete(made, own, axis=0)) for own in np.array_split(np.arange(n), 10)
    ]
    assert found.value == pytest.approx(statistic.value(made), rel=1e-9)
    assert np.corrcoef(found.without, exact)[0, 1] > 0.98
    assert jackknife_error(found.without) == pytest.approx(
        jackknife_error(np.array(exact)), rel=0.1
    )


def test_the_losses_distance_is_the_statistics() -> None:
    statistic, made = MindStatistic.of(_features(30)), _features(17, shift=0.5, seed=2)
    loss = statistic.loss(torch.device("cpu"))
    assert isinstance(loss, MindLoss)
    x = torch.tensor(made)
    assert loss.distance(x).item() == pytest.approx(statistic.value(made), rel=1e-9)
    halves = statistic.value(made[:8]) + statistic.value(made[8:])
    assert loss(x).item() == pytest.approx(2.0 * statistic.value(made) - 0.5 * halves, rel=1e-9)
