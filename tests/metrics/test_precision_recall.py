"""Precision, recall, density, coverage: by the definition point by point, and in known cases."""

import numpy as np
import pytest

from s3search.errors import EvaluationFailed
from s3search.metrics.precision_recall import Manifolds, manifolds


def _by_definition(x: np.ndarray, y: np.ndarray, k: int, k_density: int) -> Manifolds:
    def radius(f: np.ndarray, i: int, k: int) -> float:
        return float(sorted(np.linalg.norm(f - f[i], axis=1))[k])  # the first is itself

    def gap(i: int, j: int) -> float:
        return float(np.linalg.norm(x[i] - y[j]))

    n, m = range(len(x)), range(len(y))
    near, far = [radius(x, i, k) for i in n], [radius(x, i, k_density) for i in n]
    made = [radius(y, j, k) for j in m]
    return Manifolds(
        precision=float(np.mean([any(gap(i, j) <= near[i] for i in n) for j in m])),
        recall=float(np.mean([any(gap(i, j) <= made[j] for j in m) for i in n])),
        density=float(np.mean([sum(gap(i, j) <= far[i] for i in n) for j in m])) / k_density,
        coverage=float(np.mean([any(gap(i, j) <= far[i] for j in m) for i in n])),
    )


def test_shares_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(70, 3)), rng.normal(size=(50, 3)) * 0.6 + 0.4
    found = manifolds(x, y, k_precision=2, k_density=4)
    expected = _by_definition(x, y, 2, 4)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-12)
        assert getattr(found, name) > 0.0
    assert found.recall < found.precision  # the made ones are too much alike


def test_the_real_images_themselves_have_all_of_it() -> None:
    x = np.random.default_rng(1).normal(size=(60, 4))
    found = manifolds(x, x)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)
    assert found.density > 0.8


def test_images_of_elsewhere_have_nothing_of_it() -> None:
    x = np.random.default_rng(1).normal(size=(60, 4))
    assert manifolds(x, x + 100.0) == Manifolds(precision=0, recall=0, density=0, coverage=0)


def test_one_of_two_modes_is_precise_and_recalls_half() -> None:
    rng = np.random.default_rng(2)
    both = np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 50])
    found = manifolds(both, rng.normal(size=(200, 2)))
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert found.coverage == pytest.approx(0.5, abs=0.05)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(EvaluationFailed, match="5 nearest neighbours need at least 6 images"):
        manifolds(np.zeros((5, 2)), np.zeros((9, 2)))
