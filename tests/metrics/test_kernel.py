"""KID: against torchmetrics, a closed form, and the promise of no bias."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.kernel import kernel_distance, squared_discrepancy


def _features(n: int, d: int = 8, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def test_one_subset_is_the_value_of_torchmetrics() -> None:
    real, made = _features(120, seed=1), _features(90, shift=0.3, seed=2)
    theirs = float(poly_mmd(torch.tensor(real[:90]), torch.tensor(made)))
    assert squared_discrepancy(real[:90], made) == pytest.approx(theirs, rel=1e-9)
    all_at_once = kernel_distance(real[:90], made, n_subsets=1, subset_images=1000)
    assert all_at_once.value == pytest.approx(theirs, rel=1e-9)
    assert all_at_once.standard_error is None


def test_two_constants_have_the_distance_of_the_formula() -> None:
    x, y = np.full((4, 2), 1.0), np.zeros((4, 2))  # k(x, x) = 8, k(y, y) = k(x, y) = 1
    assert kernel_distance(x, y, n_subsets=3).value == pytest.approx(8.0 + 1.0 - 2.0)


def test_the_mean_does_not_depend_on_the_number_of_images() -> None:
    rng = np.random.default_rng(5)
    few = [squared_discrepancy(*rng.normal(size=(2, 10, 4))) for _ in range(2000)]
    error = np.std(few) / len(few) ** 0.5
    assert abs(np.mean(few)) < 4 * error  # alike samples: zero, and not above


def test_the_error_is_the_spread_of_subsets_and_falls_with_their_number() -> None:
    real, made = _features(400, seed=1), _features(400, shift=0.2, seed=2)
    some = kernel_distance(real, made, n_subsets=25, subset_images=50)
    many = kernel_distance(real, made, n_subsets=400, subset_images=50)
    assert some.standard_error is not None
    assert many.standard_error is not None
    assert some.standard_error / many.standard_error == pytest.approx(4.0, rel=0.4)
    assert many == kernel_distance(real, made, n_subsets=400, subset_images=50)


def test_wrong_features_are_refused() -> None:
    with pytest.raises(IncompatibleStatistics, match=r"\(5, 3\) \(real\) and \(5, 4\) \(made\)"):
        kernel_distance(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(IncompatibleStatistics, match="of one dimension"):
        kernel_distance(np.zeros(5), np.zeros(5))
    with pytest.raises(EvaluationFailed, match="1 real ones and 5 made"):
        kernel_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(EvaluationFailed, match="not finite"):
        kernel_distance(np.full((5, 3), np.nan), np.zeros((5, 3)))
