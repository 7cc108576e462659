"""Intervals of the Fréchet distance: they cover what they say, on Gaussians that we know."""

import numpy as np
import pytest

from s3search.errors import EvaluationFailed
from s3search.metrics.frechet import FeatureStatistics, FrechetReference, frechet_estimate
from s3search.metrics.intervals import (
    bootstrap_interval,
    jackknife,
    paired_difference,
    pooled,
)

D = 8
REFERENCE = FrechetReference(mean=np.zeros(D), covariance=np.diag(np.geomspace(1.0, 0.1, D)))
SCALE = 1.2 * np.geomspace(1.0, 0.1, D) ** 0.5


def features(rng: np.random.Generator, n: int, *, skewed: bool = False) -> np.ndarray:
    """Of images a little off the reference in mean and covariance."""
    noise = rng.exponential(size=(n, D)) - 1.0 if skewed else rng.normal(size=(n, D))
    return noise * SCALE + 0.1


def blocks_of(x: np.ndarray, n_blocks: int = 10) -> list[FeatureStatistics]:
    return [FeatureStatistics.of(block) for block in np.split(x, n_blocks)]


@pytest.mark.parametrize("skewed", [False, True])
def test_the_bootstrap_covers_other_noise_as_often_as_it_says(skewed: bool) -> None:
    rng, n, trials = np.random.default_rng(0), 1000, 200
    other = [
        REFERENCE.distance(FeatureStatistics.of(features(rng, n, skewed=skewed)))
        for _ in range(1500)
    ]
    truth, covered, widths = np.mean(other), 0, []
    for seed in range(trials):
        blocks = blocks_of(features(rng, n, skewed=skewed))
        low, high = bootstrap_interval(REFERENCE, blocks, n_resamples=100, seed=seed)
        covered += low <= truth <= high
        widths.append(high - low)
    assert 0.88 <= covered / trials <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(other), rel=0.3)


def test_a_lower_level_gives_a_narrower_interval_around_the_value() -> None:
    blocks = blocks_of(features(np.random.default_rng(1), 1000))
    value = REFERENCE.distance(pooled(blocks, np.ones(10)))
    wide = bootstrap_interval(REFERENCE, blocks, seed=0)
    narrow = bootstrap_interval(REFERENCE, blocks, level=0.5, seed=0)
    assert wide[0] < narrow[0] < value < narrow[1] < wide[1]
    assert bootstrap_interval(REFERENCE, blocks, seed=0) == wide
    assert bootstrap_interval(REFERENCE, blocks, seed=1) != wide
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(REFERENCE, blocks, level=95, seed=0)


def test_many_dimensions_take_students_interval_of_the_jackknife() -> None:
    d, rng = 513, np.random.default_rng(2)
    reference = FrechetReference(mean=np.zeros(d), covariance=np.eye(d))
    blocks = [FeatureStatistics.of(rng.normal(size=(200, d))) for _ in range(3)]
    low, high = bootstrap_interval(reference, blocks, seed=0)
    estimate = jackknife(reference, blocks)
    assert estimate.standard_error is not None
    assert (low + high) / 2 == pytest.approx(estimate.value)
    assert (high - low) / 2 == pytest.approx(4.302653 * estimate.standard_error)


def test_a_paired_difference_has_the_error_of_the_difference() -> None:
    rng, n = np.random.default_rng(3), 1000
    found, errors, apart = [], [], []
    for _ in range(120):
        x = features(rng, n)
        y = 1.02 * x + 0.02 * rng.normal(size=x.shape)
        estimate = paired_difference(REFERENCE, blocks_of(x), blocks_of(y))
        found.append(estimate.value)
        errors.append(estimate.standard_error)
        single = [jackknife(REFERENCE, blocks_of(z)).standard_error or 0.0 for z in (x, y)]
        apart.append(np.hypot(*single))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.25)
    assert np.mean(errors) < 0.3 * np.mean(apart)


def test_a_paired_difference_is_that_of_the_distances() -> None:
    rng = np.random.default_rng(4)
    x, y = features(rng, 400), features(rng, 400)
    difference = paired_difference(REFERENCE, blocks_of(x), blocks_of(y)).value
    direct = [REFERENCE.distance(FeatureStatistics.of(z)) for z in (x, y)]
    assert difference == pytest.approx(direct[0] - direct[1], abs=1e-12)
    same = paired_difference(REFERENCE, blocks_of(x), blocks_of(x))
    assert (same.value, same.standard_error) == (0.0, 0.0)


def test_blocks_taken_several_times_are_merged_several_times() -> None:
    a, b, c = blocks_of(features(np.random.default_rng(5), 300), 3)
    ours, merged = pooled([a, b, c], [2, 0, 1]), a.merge(c).merge(a)
    assert ours.n == merged.n == 300
    np.testing.assert_allclose(ours.mean, merged.mean, rtol=1e-12)
    np.testing.assert_allclose(ours.scatter, merged.scatter, rtol=1e-10, atol=1e-10)


def test_the_jackknife_is_that_of_an_evaluation() -> None:
    x = features(np.random.default_rng(6), 500)
    ours, theirs = jackknife(REFERENCE, blocks_of(x)), frechet_estimate(REFERENCE, x, n_blocks=10)
    assert ours.value == pytest.approx(theirs.value)
    assert ours.standard_error == pytest.approx(theirs.standard_error)


def test_blocks_that_do_not_fit_are_refused() -> None:
    x = features(np.random.default_rng(7), 400)
    with pytest.raises(EvaluationFailed, match="at least 2 blocks"):
        bootstrap_interval(REFERENCE, blocks_of(x, 1), seed=0)
    with pytest.raises(EvaluationFailed, match="common noise"):
        paired_difference(REFERENCE, blocks_of(x, 4), blocks_of(x, 5))
