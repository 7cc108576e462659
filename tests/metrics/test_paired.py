"""Paired distances: against the general formula, in both shapes of the matrix."""

import numpy as np
import pytest

from s3search.errors import IncompatibleStatistics
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.paired import Pairing, paired_distance


def _features(n: int, d: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) @ random.normal(size=(d, d)) + random.normal(size=d)


@pytest.mark.parametrize(("n", "d"), [(40, 5), (5, 40), (6, 6), (7, 6)])
def test_full_is_the_frechet_distance(n: int, d: int) -> None:
    a, b = _features(n, d, 0), _features(n, d, 1)
    reference = FrechetReference.of(FeatureStatistics.of(b))
    expected = reference.distance(FeatureStatistics.of(a))
    assert paired_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert paired_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_diagonal_is_the_frechet_distance_of_independent_features() -> None:
    a, b = _features(30, 4, 0), _features(30, 4, 1)
    each = [paired_distance(a[:, [k]], b[:, [k]]) for k in range(4)]
    assert paired_distance(a, b, Pairing.DIAGONAL) == pytest.approx(sum(each))


def test_square_compares_image_by_image() -> None:
    a = _features(20, 3, 0)
    assert paired_distance(a, a + 0.5, Pairing.SQUARE) == pytest.approx(0.25)
    assert paired_distance(a, a[::-1], Pairing.SQUARE) > 0.1
    for pairing in (Pairing.FULL, Pairing.DIAGONAL):
        assert paired_distance(a, a[::-1], pairing) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("b", [np.zeros((4, 2)), np.zeros((3, 3)), np.zeros((1, 2))])
def test_samples_that_are_no_pair_are_refused(b: np.ndarray) -> None:
    with pytest.raises(IncompatibleStatistics, match="two samples of one shape"):
        paired_distance(b if len(b) == 1 else np.zeros((3, 2)), b)
