"""The Fréchet distance: against an independent formula, and whatever the order of merging."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.frechet import (
    FeatureStatistics,
    FrechetReference,
    block_mean,
    frechet_estimate,
)


def _features(n: int, d: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def _textbook_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The definition with scipy's general matrix square root, as pytorch-fid computes it."""
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(ca @ cb).real
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(ca + cb - 2 * root))


def _reference(features: np.ndarray) -> FrechetReference:
    return FrechetReference.of(FeatureStatistics.of(features))


def test_distance_equals_the_definition() -> None:
    a, b = _features(400, seed=1), _features(300, seed=2)
    ours = _reference(a).distance(FeatureStatistics.of(b))
    assert ours == pytest.approx(_textbook_distance(a, b), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(400, 12), (700, 256)])
def test_distance_equals_that_of_torchmetrics(n: int, d: int) -> None:
    a, b = _features(n, d, seed=1), _features(n - 50, d, seed=2)
    moments = [torch.tensor(m) for f in (a, b) for m in (f.mean(0), np.cov(f, rowvar=False))]
    theirs = float(_compute_fid(*moments))
    assert _reference(a).distance(FeatureStatistics.of(b)) == pytest.approx(theirs, rel=1e-6)
    assert frechet_estimate(_reference(a), b, n_blocks=1).value == pytest.approx(theirs, rel=1e-6)


def test_distance_equals_that_of_torch_fidelity() -> None:
    fidelity = pytest.importorskip(
        "torch_fidelity.metric_fid", reason="torch-fidelity is not installed"
    )
    a, b = _features(400, seed=1), _features(300, seed=2)
    both = [fidelity.fid_features_to_statistics(torch.tensor(f)) for f in (a, b)]
    theirs = fidelity.fid_statistics_to_metric(*both, verbose=False)
    ours = _reference(a).distance(FeatureStatistics.of(b))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_distance_to_oneself_is_zero() -> None:
    a = _features(200)
    assert _reference(a).distance(FeatureStatistics.of(a)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_merging_in_any_order_is_one_sample(order: tuple[int, ...]) -> None:
    features = _features(97) + 1e4  # a large mean must not eat the covariance
    blocks = [features[:5], features[5:50], features[50:51], features[51:]]
    merged = FeatureStatistics.of(blocks[order[0]])
    for i in order[1:]:
        merged = merged.merge(FeatureStatistics.of(blocks[i]))
    whole = FeatureStatistics.of(features)
    assert merged.n == whole.n
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-7, atol=1e-7)


def test_fewer_images_than_dimensions_give_the_same_distance_either_way() -> None:
    few, reference = _features(7, d=20, seed=4), _reference(_features(300, d=20, seed=5))
    slow = reference.distance(FeatureStatistics.of(few))
    # The slow way takes the square root of 14 zero eigenvalues that come out as some 1e-13.
    assert reference.distance_of_few(few) == pytest.approx(slow, rel=1e-7)
    estimate = frechet_estimate(reference, few, n_blocks=10)
    assert estimate.value == reference.distance_of_few(few)
    assert estimate.standard_error is None


def test_estimate_has_the_distance_of_all_images_and_an_error_of_the_right_size() -> None:
    reference = _reference(_features(4000, d=4, seed=0))
    rng = np.random.default_rng(1)
    basis, shift = rng.normal(size=(4, 4)), rng.normal(size=4)
    draws = [rng.normal(size=(500, 4)) @ basis + shift for _ in range(200)]
    estimates = [frechet_estimate(reference, draw, n_blocks=10) for draw in draws]
    whole = reference.distance(FeatureStatistics.of(draws[0]))
    assert estimates[0].value == pytest.approx(whole, rel=1e-12)
    spread = np.std([e.value for e in estimates])
    claimed = np.mean([e.standard_error or np.nan for e in estimates])
    assert claimed == pytest.approx(spread, rel=0.25)


def test_features_that_are_not_finite_are_refused() -> None:
    features = _features(50)
    features[3, 2] = np.nan
    reference = _reference(_features(50))
    with pytest.raises(EvaluationFailed, match="not finite"):
        frechet_estimate(reference, features, n_blocks=5)
    with pytest.raises(EvaluationFailed, match="at least 2 images"):
        frechet_estimate(reference, _features(1), n_blocks=5)


def test_statistics_of_other_dimensions_are_refused() -> None:
    a, b = FeatureStatistics.of(_features(20, d=3)), FeatureStatistics.of(_features(20, d=4))
    with pytest.raises(IncompatibleStatistics, match="3 and 4 dimensions"):
        a.merge(b)
    with pytest.raises(IncompatibleStatistics, match="reference has 3 feature dimensions"):
        FrechetReference.of(a).distance(b)
    with pytest.raises(IncompatibleStatistics, match="covariance"):
        FrechetReference(mean=a.mean, covariance=b.covariance)


def test_digest_names_the_reference() -> None:
    a, b = _reference(_features(30, seed=0)), _reference(_features(30, seed=1))
    assert a.digest != b.digest
    assert a.digest == _reference(_features(30, seed=0)).digest


def test_block_mean_is_the_mean_distance_of_whole_disjoint_blocks() -> None:
    reference, features = _reference(_features(300)), _features(107, seed=9)
    blocks = [FeatureStatistics.of(features[i : i + 50]) for i in (0, 50)]
    expected = np.mean([reference.distance(block) for block in blocks])
    assert block_mean(reference, features, 50) == pytest.approx(expected, rel=1e-12)
    assert block_mean(reference, features, 108) is None
    assert block_mean(reference, features, None) is None
