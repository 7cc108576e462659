"""The differentiable distance: the value of the plain one, and less bias."""

import numpy as np
import pytest
import torch

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.frechet_loss import FrechetLoss

_CPU = torch.device("cpu")


def _reference(d: int) -> FrechetReference:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, d)) @ rng.normal(size=(d, d)) / d**0.5
    return FrechetReference.of(FeatureStatistics.of(x))


@pytest.mark.parametrize("n", [7, 12, 13, 40])
def test_distance_is_the_plain_one_with_few_images_and_with_many(n: int) -> None:
    reference, x = _reference(12), np.random.default_rng(1).normal(size=(n, 12))
    found = FrechetLoss(reference, _CPU).distance(torch.tensor(x)).item()
    assert found == pytest.approx(reference.distance(FeatureStatistics.of(x)), rel=1e-6)


@pytest.mark.parametrize("n", [8, 40])
def test_gradient_is_that_of_finite_differences(n: int) -> None:
    loss = FrechetLoss(_reference(12), _CPU)
    x = torch.tensor(np.random.default_rng(2).normal(size=(n, 12)), requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x,), eps=1e-6, atol=1e-5, rtol=1e-4)


def test_gradient_is_finite_where_images_are_alike() -> None:
    x = torch.zeros((30, 12), dtype=torch.float64)
    x[:, 0] = torch.arange(30)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(FrechetLoss(_reference(12), _CPU)(x), x)
    assert torch.isfinite(gradient).all()


def test_loss_has_less_bias_than_the_distance() -> None:
    """Images that have the reference's own distribution are at distance 0."""
    reference = FrechetReference(mean=np.zeros(8), covariance=np.eye(8))
    loss, rng = FrechetLoss(reference, _CPU), np.random.default_rng(3)
    drawn = [torch.tensor(rng.normal(size=(200, 8))) for _ in range(100)]
    biased = np.mean([loss.distance(x).item() for x in drawn])
    assert abs(np.mean([loss(x).item() for x in drawn])) < 0.1 * biased


def test_too_few_images_and_other_features_are_refused() -> None:
    loss = FrechetLoss(_reference(12), _CPU)
    with pytest.raises(EvaluationFailed, match="at least 4 images, found 3"):
        loss(torch.zeros((3, 12)))
    with pytest.raises(IncompatibleStatistics, match="12 feature dimensions"):
        loss(torch.zeros((8, 5)))
