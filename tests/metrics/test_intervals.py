"""Intervals of the Fréchet distance: they cover what they say, on Gaussians that we know."""

import numpy as np
import pytest

from s3search.metrics.frechet import (
    Estimate,
    FeatureStatistics,
    FrechetReference,
    jackknife_error,
    left_out,
)
from s3search.metrics.intervals import (
    N_BLOCKS,
    N_RESAMPLES,
    LeftOut,
    difference_interval,
    interval,
    linear_replicates,
    pooled,
    ratio_interval,
    replicates,
    without_blocks,
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


def replicates_of(x: np.ndarray, reference: FrechetReference = REFERENCE) -> np.ndarray:
    found = replicates(reference, x)
    assert found is not None
    return found


@pytest.mark.parametrize("skewed", [False, True])
def test_the_bootstrap_covers_other_noise_as_often_as_it_says(skewed: bool) -> None:
    rng, n, trials = np.random.default_rng(0), 1000, 100
    other = [
        REFERENCE.distance(FeatureStatistics.of(features(rng, n, skewed=skewed)))
        for _ in range(1500)
    ]
    truth, covered, widths = np.mean(other), 0, []
    for _ in range(trials):
        low, high = interval(replicates_of(features(rng, n, skewed=skewed)))
        covered += low <= truth <= high
        widths.append(high - low)
    assert 0.88 <= covered / trials <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(other), rel=0.3)


def test_replicates_are_a_bootstrap_of_blocks_by_hand() -> None:
    """Images drawn one block at a time, their distances without the part that repeats explain."""
    x = features(np.random.default_rng(1), 1000)
    rng = np.random.default_rng(5)
    drawn = rng.multinomial(20, [0.05] * 20, size=200)
    parts = np.split(x, 20)
    by_hand = []
    for counts in drawn:
        again = np.concatenate(
            [part for c, part in zip(counts, parts, strict=True) for _ in range(c)]
        )
        gap = again.mean(axis=0)
        root = np.diag(np.sqrt(np.diag(REFERENCE.covariance)))
        own = np.cov(again, rowvar=False)
        overlap = np.sqrt(np.linalg.eigvalsh(root @ own @ root)).sum()
        by_hand.append(gap @ gap + np.trace(own) + np.trace(REFERENCE.covariance) - 2 * overlap)
    repeats = (drawn**2).sum(axis=1)
    line = np.polyval(np.polyfit(repeats, by_hand, 1), repeats)
    k = np.sqrt(20 / 19) * 2.093024 / 1.959964  # Student's t of 19 degrees of freedom
    expected = REFERENCE.distance(FeatureStatistics.of(x)) - k * (by_hand - line)
    found = replicates(REFERENCE, x, seed=5)
    assert found is not None
    assert found.shape == (N_RESAMPLES,)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert interval(found) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))


def test_many_dimensions_are_linearised_with_the_jackknifes_errors() -> None:
    d, rng = 300, np.random.default_rng(2)
    scale = np.geomspace(1.0, 0.1, d) ** 0.5
    reference = FrechetReference(mean=np.zeros(d), covariance=np.diag(scale**2))
    x = rng.normal(size=(3000, d)) * (1.3 * scale) + 0.05
    y = 1.01 * x + 0.01 * rng.normal(size=x.shape)
    found, other = (replicates_of(z, reference) for z in (x, y))
    own, others = (left_out(reference, blocks_of(z, N_BLOCKS)) for z in (x, y))
    values = [reference.distance(FeatureStatistics.of(z)) for z in (x, y)]
    k = 2.093024 / 1.959964
    assert np.std(found) == pytest.approx(k * jackknife_error(own), rel=0.15)
    assert np.mean(found) == pytest.approx(values[0], rel=0.01)
    low, high = difference_interval(found, other)
    assert low < values[0] - values[1] < high
    assert np.std(found - other) == pytest.approx(k * jackknife_error(own - others), rel=0.15)


@pytest.mark.parametrize("d", [8, 300])
def test_too_few_images_have_no_replicates(d: int) -> None:
    reference = FrechetReference(mean=np.zeros(d), covariance=np.eye(d))
    enough = max(2 * d, 2 * N_BLOCKS)
    x = np.random.default_rng(3).normal(size=(enough, d))
    assert replicates(reference, x) is not None
    assert replicates(reference, x[:-1]) is None


def test_paired_intervals_cover_and_are_narrow() -> None:
    rng, n = np.random.default_rng(8), 1000
    found, intervals, ratios, apart = [], [], [], []
    for _ in range(60):
        x = features(rng, n)
        y = 1.05 * x + 0.02 * rng.normal(size=x.shape)
        a, b = replicates_of(y), replicates_of(x)
        values = [REFERENCE.distance(FeatureStatistics.of(z)) for z in (y, x)]
        found.append(values)
        intervals.append(difference_interval(a, b))
        ratio = ratio_interval(a, b)
        assert ratio is not None
        ratios.append(ratio)
        apart.append(np.hypot(np.ptp(interval(a)), np.ptp(interval(b))))
        assert (ratio[0] > 1.0) == (intervals[-1][0] > 0.0)  # one statement in two forms
    a, b = np.mean(found, axis=0)
    assert np.mean([low <= a - b <= high for low, high in intervals]) >= 0.88
    assert np.mean([low <= a / b <= high for low, high in ratios]) >= 0.88
    assert np.mean(np.ptp(intervals, axis=1)) < 0.5 * np.mean(apart)


def test_a_ratio_to_what_may_be_nothing_has_no_interval() -> None:
    assert ratio_interval([1.0, 2.0], [0.5, -0.1]) is None
    assert ratio_interval([1.0, 2.0], [0.5, 1.0]) == (2.0, 2.0)
    assert difference_interval([1.0, 2.0], [0.5, 1.5]) == (0.5, 0.5)


def test_blocks_taken_several_times_are_merged_several_times() -> None:
    a, b, c = blocks_of(features(np.random.default_rng(5), 300), 3)
    ours, merged = pooled([a, b, c], [2, 0, 1]), a.merge(c).merge(a)
    assert ours.n == merged.n == 300
    np.testing.assert_allclose(ours.mean, merged.mean, rtol=1e-12)
    np.testing.assert_allclose(ours.scatter, merged.scatter, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("d", [5, 200])  # the second is taken in several stacks
def test_distances_of_many_draws_are_those_of_each(d: int) -> None:
    rng = np.random.default_rng(8)
    reference = FrechetReference.of(FeatureStatistics.of(rng.normal(0.1, 1.0, (2 * d, d))))
    blocks = blocks_of(rng.normal(size=(4 * d, d)), 5)
    counts = rng.multinomial(5, np.full(5, 0.2), size=60)
    found = reference.distances(blocks, counts)
    alone = [reference.distance(pooled(blocks, row)) for row in counts]
    np.testing.assert_allclose(found, alone, rtol=1e-11)


def test_a_block_is_left_out_with_all_its_images() -> None:
    x = features(np.random.default_rng(9), 303)
    without = [np.delete(x, slice(60 * k, 60 * k + 60), axis=0) for k in range(4)]
    found = left_out(
        REFERENCE, [FeatureStatistics.of(part) for part in np.split(x, range(60, 300, 60))]
    )
    expected = [REFERENCE.distance(FeatureStatistics.of(rest)) for rest in without]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-11)


def test_linear_replicates_of_a_mean_are_the_bootstrap_of_its_blocks() -> None:
    x = np.random.default_rng(10).normal(3.0, 1.0, 400)
    blocks = np.split(x, N_BLOCKS)
    without = np.array([np.delete(x, slice(20 * k, 20 * k + 20)).mean() for k in range(N_BLOCKS)])
    found = linear_replicates(x.mean(), without, seed=4)
    drawn = np.random.default_rng(4).multinomial(N_BLOCKS, [0.05] * N_BLOCKS, size=N_RESAMPLES)
    means = drawn @ np.mean(blocks, axis=1) / N_BLOCKS
    k = np.sqrt(20 / 19) * 2.093024 / 1.959964
    np.testing.assert_allclose(found, x.mean() - k * (means - x.mean()), rtol=1e-6)
    each = np.array_split(np.arange(400), N_BLOCKS)
    np.testing.assert_allclose(without_blocks(x.mean(), x - x.mean(), each), without, rtol=1e-12)


def test_what_is_left_out_decides_what_is_known() -> None:
    few = LeftOut(3.0, np.empty(0))
    assert few.estimate() == Estimate(3.0, None)
    assert few.replicates() is None
    some = LeftOut(3.0, np.array([2.0, 4.0])).times(2.0)
    assert some.estimate() == Estimate(6.0, jackknife_error(np.array([4.0, 8.0])))
    assert some.replicates() is None
    whole = LeftOut(3.0, np.linspace(2.9, 3.1, N_BLOCKS)).replicates()
    assert whole is not None and whole.shape == (N_RESAMPLES,)
