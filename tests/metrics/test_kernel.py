"""KID: against torchmetrics, a closed form, and the promise of no bias."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from s3search.metrics import discrepancy
from s3search.metrics.kernel import KernelStatistic, kernel_distance


def _features(n: int, d: int = 8, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def test_the_value_is_that_of_torchmetrics_on_all_images() -> None:
    real, made = _features(90, seed=1), _features(90, shift=0.3, seed=2)
    theirs = float(poly_mmd(torch.tensor(real), torch.tensor(made)))
    for n_blocks in (1, 7, 10):
        ours = kernel_distance(real, made, n_blocks=n_blocks).value
        assert ours == pytest.approx(theirs, rel=1e-9)
    assert KernelStatistic.of(real).value(made) == pytest.approx(theirs, rel=1e-9)


def test_two_constants_have_the_distance_of_the_formula() -> None:
    x, y = np.full((4, 2), 1.0), np.zeros((7, 2))  # k(x, x) = 8, k(y, y) = k(x, y) = 1
    assert kernel_distance(x, y).value == pytest.approx(8.0 + 1.0 - 2.0)


def test_the_value_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = _features(50, seed=1), _features(40, shift=0.3, seed=2)
    whole = kernel_distance(real, made)
    monkeypatch.setattr(discrepancy, "_CHUNK", 3)
    chunked = kernel_distance(real, made)
    assert chunked.value == pytest.approx(whole.value, rel=1e-9)
    assert chunked.standard_error == pytest.approx(whole.standard_error, rel=1e-9)


def test_the_mean_does_not_depend_on_the_number_of_images() -> None:
    rng = np.random.default_rng(5)
    samples = [rng.normal(size=(2, 10, 4)) for _ in range(2000)]
    few = [kernel_distance(*sample, n_blocks=1).value for sample in samples]
    error = np.std(few) / len(few) ** 0.5
    assert abs(np.mean(few)) < 4 * error  # alike samples: zero, and not above


def test_the_error_is_that_of_making_other_images() -> None:
    real, rng = _features(500, d=4), np.random.default_rng(1)
    found = [kernel_distance(real, rng.normal(size=(300, 4)) + 0.3) for _ in range(100)]
    spread = np.std([f.value for f in found])
    claimed = np.mean([f.standard_error or np.nan for f in found])
    assert claimed == pytest.approx(spread, rel=0.25)


def test_very_few_images_have_a_value_and_no_error() -> None:
    assert kernel_distance(_features(9), _features(3)).standard_error is None
    assert kernel_distance(_features(9), _features(4)).standard_error is not None
