"""The mean of scores, its error over noise and captions, and its paired replicates."""

import numpy as np
import pytest
import torch

from s3search.errors import EvaluationFailed
from s3search.metrics.intervals import difference_interval, interval
from s3search.metrics.mean import MeanStatistic

STATISTIC = MeanStatistic(digest="no target")


def _scores(rng: np.random.Generator, n: int, n_captions: int | None = None) -> np.ndarray:
    """Scores (n, 1), or (n, 2) of captions in turn, of which each moves all of its images."""
    if n_captions is None:
        return rng.normal(size=(n, 1))
    numbers = np.arange(n) % n_captions
    shifts = rng.normal(size=n_captions)
    return np.stack([rng.normal(size=n) * 0.3 + shifts[numbers], 1e15 + numbers], axis=1)


def test_of_single_images_it_is_the_usual_error_of_a_mean() -> None:
    scores = _scores(np.random.default_rng(0), 500)
    found = STATISTIC.estimate(scores)
    assert found.value == pytest.approx(scores.mean())
    assert found.standard_error == pytest.approx(scores.std(ddof=1) / 500**0.5, rel=1e-12)


def test_images_of_one_caption_count_together() -> None:
    rng = np.random.default_rng(1)
    drawn = [STATISTIC.estimate(_scores(rng, 400, 40)) for _ in range(300)]
    spread = np.std([each.value for each in drawn])
    said = np.mean([each.standard_error for each in drawn])
    assert said == pytest.approx(spread, rel=0.1)
    alone = [STATISTIC.estimate(_scores(rng, 400, 40)[:, :1]) for _ in range(100)]
    assert np.mean([each.standard_error for each in alone]) < 0.5 * spread


def test_few_captions_are_taken_as_they_are() -> None:
    scores = _scores(np.random.default_rng(2), 400, 5)
    without = STATISTIC.estimate(scores[:, :1])
    assert STATISTIC.estimate(scores).standard_error == without.standard_error


@pytest.mark.parametrize("n_captions", [None, 50])
def test_replicates_of_a_difference_hold_it_as_often_as_they_say(n_captions: int | None) -> None:
    rng, held, own = np.random.default_rng(3), 0, 0
    widths = []
    for _ in range(200):
        common = _scores(rng, 300, n_captions)
        one, two = common.copy(), common.copy()
        one[:, 0] += 0.3 * rng.normal(size=300)
        two[:, 0] += 0.3 * rng.normal(size=300) + 0.05
        a, b = (STATISTIC.replicates(each) for each in (one, two))
        assert a is not None and b is not None
        between, alone = difference_interval(b, a), interval(a)
        held += between[0] <= 0.05 <= between[1]
        own += alone[0] <= 0.0 <= alone[1]
        widths.append((between[1] - between[0]) / (alone[1] - alone[0]))
    assert 0.9 <= held / 200 <= 0.99
    assert 0.9 <= own / 200 <= 0.99
    assert np.mean(widths) < 0.6  # what both have in common is not in it


def test_whole_captions_are_in_a_block_whatever_their_numbers() -> None:
    scores = _scores(np.random.default_rng(4), 200, 40)
    renamed = scores.copy()
    renamed[:, 1] = (scores[:, 1] * 7919.0) % 1009.0
    first, second = STATISTIC.replicates(scores), STATISTIC.replicates(renamed)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("direction", "sign"), [("maximize", -1.0), ("minimize", 1.0)])
def test_its_loss_falls_where_it_gets_better(direction: str, sign: float) -> None:
    statistic = MeanStatistic(digest="", direction=direction)  # type: ignore[arg-type]
    scores = torch.tensor([[1.0], [3.0]], requires_grad=True)
    loss = statistic.loss(torch.device("cpu"))(scores)
    assert loss.item() == sign * 2.0
    (slope,) = torch.autograd.grad(loss, scores)
    assert slope.flatten().tolist() == [sign * 0.5, sign * 0.5]


@pytest.mark.parametrize("seen", [np.ones((1, 1)), np.array([[1.0], [np.nan]])])
def test_too_few_and_infinite_ones_are_refused(seen: np.ndarray) -> None:
    for ask in (STATISTIC.value, STATISTIC.estimate, STATISTIC.replicates):
        with pytest.raises(EvaluationFailed, match=r"2 images|not finite"):
            ask(seen)


@pytest.mark.parametrize(("n_captions", "error"), [(None, 1 / 20), (5, 0.3 / 20), (40, 0.16)])
def test_an_interval_is_as_wide_as_the_standard_error_beside_it_says(
    n_captions: int | None, error: float
) -> None:
    """Student's t of 20 blocks, 2.09 errors to each side, but for the 200 drawn replicates.  Five
    captions, of which every block has as many images, are no sample of captions: what is left is
    the noise within them.
    """
    rng = np.random.default_rng(5)
    widths, said = [], []
    for _ in range(100):
        scores = _scores(rng, 400, n_captions)
        estimate, replicates = STATISTIC.measured(scores)
        assert replicates is not None and estimate.standard_error is not None
        low, high = interval(replicates)
        assert low < estimate.value == STATISTIC.value(scores) < high
        widths.append((high - low) / 2.0 / estimate.standard_error)
        said.append(estimate.standard_error)
    assert 1.7 < min(widths) <= max(widths) < 2.5
    assert np.mean(widths) == pytest.approx(2.09, rel=0.05)
    assert np.mean(said) == pytest.approx(error, rel=0.1)


def test_of_a_known_case_error_and_interval_are_those_of_its_blocks() -> None:
    """Block k of 20 has the scores k: the error of their mean is theirs over the root of 20."""
    scores = np.repeat(np.arange(20.0), 5)[:, None]
    estimate, replicates = STATISTIC.measured(scores)
    assert estimate.value == 9.5
    assert estimate.standard_error == pytest.approx(np.arange(20.0).std(ddof=1) / 20**0.5)
    assert replicates is not None
    low, high = interval(replicates)
    assert (high - low) / 2.0 == pytest.approx(2.09 * estimate.standard_error, rel=0.15)


def test_few_images_have_no_replicates() -> None:
    assert STATISTIC.replicates(np.arange(39.0)[:, None]) is None
    estimate, replicates = STATISTIC.measured(np.arange(40.0)[:, None])
    assert replicates is not None and replicates.mean() == pytest.approx(estimate.value, rel=0.1)
