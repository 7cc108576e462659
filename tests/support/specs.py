"""What an evaluator is made of, as short as most tests want it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from s3search.evaluation.memory import BatchSize
from s3search.evaluation.spec import EvaluatorSpec, MetricSpec
from s3search.evaluation.views import Extractor


def evaluator_spec(
    *,
    features: str,
    features_options: Mapping[str, Any] | None = None,
    second_features: str | None = None,
    second_options: Mapping[str, Any] | None = None,
    **others: Any,
) -> EvaluatorSpec:
    """A spec with the Fréchet distance of an extractor, and of a second one."""
    second = None
    if second_features is not None:
        table = "validation.metric"
        second = MetricSpec(name=second_features, options=second_options or {}, where=table)
    metric = MetricSpec(name=features, options=features_options or {})
    return EvaluatorSpec(metric=metric, second=second, **others)


def extractor_of(features: Callable[[Tensor], Tensor]) -> Extractor:
    """The view of a function from images to features, on the CPU."""
    fits = BatchSize(1000, "extracting features")
    device = torch.device("cpu")
    return Extractor(
        where="metric.features", name="own", function=features, device=device, fits=fits
    )
