"""The CLIP score: its formula, its bounds, and features that do not pair."""

import numpy as np
import pytest

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.clip_score import clip_score


def test_alike_is_the_weight_and_opposed_is_zero() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    assert clip_score(x, 3 * x).value == pytest.approx(2.5)
    assert clip_score(x, -x).value == 0.0
    assert clip_score(x, x, weight=100.0).value == pytest.approx(100.0)


def test_the_score_is_the_mean_cosine_with_its_error() -> None:
    images, texts = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    found = clip_score(images, texts)
    scores = [2.5, 2.5 / 2**0.5]
    assert found.value == pytest.approx(np.mean(scores))
    assert found.standard_error == pytest.approx(np.std(scores, ddof=1) / 2**0.5)
    assert clip_score(images[:1], texts[:1]).standard_error is None


def test_features_that_do_not_pair_are_refused() -> None:
    with pytest.raises(IncompatibleStatistics, match="one text for each image"):
        clip_score(np.ones((3, 4)), np.ones((2, 4)))
    with pytest.raises(EvaluationFailed, match="all zero"):
        clip_score(np.ones((3, 4)), np.zeros((3, 4)))
