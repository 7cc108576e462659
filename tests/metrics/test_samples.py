"""Features that a metric cannot be taken of: each metric says which, and why."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.clip_score import clip_score
from s3search.metrics.kernel import kernel_distance
from s3search.metrics.precision_recall import manifolds

Metric = Callable[[Any, Any], Any]
METRICS = [kernel_distance, manifolds, clip_score]
FINE = np.random.default_rng(0).normal(size=(9, 3))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (FINE[0], r"should be real numbers \(n, d\), found float64 \(3,\)"),
        (FINE.astype(complex), "found complex128"),
        (FINE.astype(str), r"found <U\d+ \(9, 3\)"),
        (FINE[:, :2], "feature dimensions, the made ones|one text for each image"),
    ],
)
def test_features_of_another_shape_or_dtype_are_refused(
    metric: Metric, wrong: Any, message: str
) -> None:
    for pair in ((wrong, FINE), (FINE, wrong)):
        with pytest.raises(IncompatibleStatistics, match=message):
            metric(*pair)


@pytest.mark.parametrize("metric", METRICS)
def test_features_that_are_not_finite_are_refused(metric: Metric) -> None:
    with pytest.raises(EvaluationFailed, match="not finite"):
        metric(FINE, FINE * np.nan)


@pytest.mark.parametrize("metric", [kernel_distance, manifolds])
def test_one_image_is_no_sample(metric: Metric) -> None:
    with pytest.raises(EvaluationFailed, match="1 real ones and 9 made"):
        metric(FINE[:1], FINE)
