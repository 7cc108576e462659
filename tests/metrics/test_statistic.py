"""Every distance that schedules are ranked by keeps one contract."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.cmmd import CmmdStatistic
from s3search.metrics.frechet import FrechetReference, resampled_distances
from s3search.metrics.intervals import difference_interval, interval, replicates
from s3search.metrics.kernel import KernelStatistic
from s3search.metrics.mind import MindStatistic
from s3search.metrics.statistic import FrechetStatistic, Statistic

Made = Callable[[np.ndarray], Statistic]

D = 4
CPU = torch.device("cpu")
KINDS: dict[str, Made] = {
    "frechet": FrechetStatistic.of,
    "kernel": KernelStatistic.of,
    "cmmd": CmmdStatistic.of,
    "mind": MindStatistic.of,
}
of_every_kind = pytest.mark.parametrize("kind", KINDS)


def features(
    rng: np.random.Generator, n: int, shift: float = 0.0, scale: float = 1.0
) -> np.ndarray:
    """Normal numbers around 1, so that they have a direction too."""
    return 1.0 + shift + scale * rng.normal(size=(n, D))


def statistic(kind: str, n: int = 300) -> Statistic:
    return KINDS[kind](features(np.random.default_rng(0), n))


@of_every_kind
def test_a_statistic_says_what_it_is(kind: str) -> None:
    rng = np.random.default_rng(0)
    real = features(rng, 20)
    found, again, other = (KINDS[kind](x) for x in (real, real.copy(), real + 1e-9))
    assert (found.kind, found.n) == (kind, 20)
    assert len(found.digest) == 16 and int(found.digest, 16) >= 0
    assert found.digest == again.digest != other.digest
    assert len({KINDS[each](real).digest for each in KINDS}) == len(KINDS)


@of_every_kind
def test_the_real_images_are_nearest(kind: str) -> None:
    """Made ones are the farther the more they are shifted, whatever their number."""
    found, rng = statistic(kind), np.random.default_rng(1)
    noise = features(rng, 400)
    values = [found.value(noise + np.array([shift, 0, 0, 0])) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)
    assert values[-1] > 5 * abs(values[0])


@of_every_kind
def test_the_error_is_that_of_other_noise(kind: str) -> None:
    found, rng = statistic(kind), np.random.default_rng(2)
    estimates = [found.estimate(features(rng, 400, 0.4)) for _ in range(60)]
    spread = np.std([one.value for one in estimates], ddof=1)
    claimed = np.mean([one.standard_error or np.nan for one in estimates])
    assert claimed == pytest.approx(spread, rel=0.3)


@of_every_kind
def test_an_interval_of_a_difference_covers_other_noise_as_often_as_it_says(kind: str) -> None:
    """Two schedules on common noise; what is covered is the mean difference at this n."""
    found, rng, trials, n = statistic(kind), np.random.default_rng(3), 200, 200
    values, intervals, apart = [], [], []
    for _ in range(trials):
        x = features(rng, n, 0.4)
        y = x + 0.05 + 0.05 * rng.normal(size=x.shape)
        (a, of_a), (b, of_b) = found.measured(x), found.measured(y)
        assert of_a is not None and of_b is not None
        values.append(a.value - b.value)
        intervals.append(difference_interval(of_a, of_b))
        apart.append(np.ptp(interval(of_a)))
    covered = np.mean([low <= np.mean(values) <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.99
    widths = np.ptp(intervals, axis=1)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.25)
    assert np.mean(widths) < 0.5 * np.mean(apart)


@of_every_kind
def test_everything_measured_is_one_measurement(kind: str) -> None:
    found, seen = statistic(kind), features(np.random.default_rng(4), 100, 0.4)
    estimate, drawn = found.measured(seen)
    again = found.replicates(seen)
    assert drawn is not None and again is not None
    assert estimate == found.estimate(seen)
    assert estimate.value == pytest.approx(found.value(seen), rel=1e-9)
    np.testing.assert_array_equal(drawn, again)
    assert estimate.value == pytest.approx(drawn.mean(), abs=2 * float(drawn.std()))
    assert found.replicates(seen[:39]) is None


@of_every_kind
def test_resampled_real_images_are_near(kind: str) -> None:
    found = statistic(kind)
    real = features(np.random.default_rng(0), 300)
    near = found.resampled(real, 200, seed=1)
    assert near == found.resampled(real, 200, seed=1)
    assert near[:3] != found.resampled(real, 200, seed=2, n_resamples=3)
    assert max(near) < found.value(features(np.random.default_rng(5), 200, 0.5))


@of_every_kind
@pytest.mark.parametrize("n", [8, 13])
def test_the_losses_gradient_is_that_of_finite_differences(kind: str, n: int) -> None:
    loss = statistic(kind, 30).loss(CPU)
    x = torch.tensor(features(np.random.default_rng(6), n, 0.3), requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x,), eps=1e-6, atol=1e-6, rtol=1e-4)


@of_every_kind
def test_the_loss_falls_towards_the_real_images(kind: str) -> None:
    """And a small step down the gradient lowers it."""
    loss, noise = statistic(kind).loss(CPU), features(np.random.default_rng(7), 100)
    ways = torch.tensor(noise) + torch.linspace(2.0, 0.0, 6)[:, None, None] * torch.eye(D)[0]
    values = [loss(one).item() for one in ways]
    assert values == sorted(values, reverse=True)
    x = ways[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    assert loss(x - 0.1 * gradient / gradient.abs().max()).item() < values[0]


@of_every_kind
def test_the_loss_has_at_most_a_fifth_of_the_values_bias(kind: str) -> None:
    """Its mean over noises is what the value of very many images is."""
    found, rng = statistic(kind, 2000), np.random.default_rng(8)
    loss, n = found.loss(CPU), 24
    truth = float(loss(torch.tensor(features(rng, 3000, 0.2))))
    few = [features(rng, n, 0.2) for _ in range(400)]
    losses = [loss(torch.tensor(x)).item() for x in few]
    error = np.std(losses) / len(losses) ** 0.5
    bias = np.mean([found.value(x) for x in few]) - truth
    assert abs(np.mean(losses) - truth) < max(3 * error, bias / 5)
    if kind != "kernel":
        assert bias > 6 * error


@of_every_kind
def test_what_no_distance_can_be_taken_of_is_refused(kind: str) -> None:
    found, seen = statistic(kind), features(np.random.default_rng(9), 50)
    for measure in (found.value, found.estimate, found.measured):
        with pytest.raises(EvaluationFailed, match="at least 2 images"):
            measure(seen[:1])
        with pytest.raises(EvaluationFailed, match="not finite"):
            measure(np.where(seen > 2.0, np.nan, seen))
        with pytest.raises(IncompatibleStatistics, match="dimensions"):
            measure(seen[:, :3])
    loss = found.loss(CPU)
    with pytest.raises(EvaluationFailed, match="at least 4 images, found 3"):
        loss(torch.tensor(seen[:3]))
    with pytest.raises(IncompatibleStatistics, match="4 feature dimensions"):
        loss(torch.tensor(seen[:, :3]))
    with pytest.raises(IncompatibleStatistics, match="at least 2 real images, found 1"):
        KINDS[kind](seen[:1])


def test_the_frechet_statistic_is_the_frechet_distance() -> None:
    reference = FrechetReference(mean=np.zeros(D), covariance=np.eye(D))
    found, seen = FrechetStatistic(reference), features(np.random.default_rng(10), 100)
    assert (found.digest, found.n) == (reference.digest, None)
    drawn = found.replicates(seen)
    assert drawn is not None
    np.testing.assert_array_equal(drawn, np.asarray(replicates(reference, seen)))
    assert found.resampled(seen, 50, seed=3) == resampled_distances(reference, seen, 50, seed=3)
