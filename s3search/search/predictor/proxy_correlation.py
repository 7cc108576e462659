"""How well each rung of the ladder ranks what the next one measures, and for how many images.

The schedules measured first are measured whole whatever their worth, so what is learned from them
holds for any; of later ones the poor left early or were not asked for, which lowers correlations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from s3search.search.predictor.ranks import best_share, rank_correlation
from s3search.search.questions import Measurement

Column = tuple[str, float, Mapping[str, float]]
"""A rung, its images per schedule, and what it says of schedules by their id."""

_TOP = 0.25
_LEAST_TOP = 5  # fewer have no correlation worth printing
_MOST_POINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RungCorrelation:
    """Spearman's correlation of a rung with ``next`` over ``n`` schedules, and inside the
    ``n_top`` best of them by ``next``; None where too few or all alike.
    """

    rung: str
    images: float
    next: str
    n: int
    correlation: float | None
    n_top: int
    top_correlation: float | None


def correlation_of(own: Column, following: Column) -> RungCorrelation:
    """How well a rung forecasts the following one."""
    (name, images, _), (next_name, _, _) = own, following
    pairs = np.array(_pairs(own, following)).reshape(-1, 2)
    scores, values = pairs.T
    top = best_share(values, share=_TOP)
    inside = rank_correlation(scores[top], values[top]) if len(top) >= _LEAST_TOP else math.nan
    return RungCorrelation(
        rung=name,
        images=images,
        next=next_name,
        n=len(pairs),
        correlation=number(rank_correlation(scores, values)),
        n_top=len(top),
        top_correlation=number(inside),
    )


def points(own: Column, following: Column) -> list[list[float]]:
    """Pairs of what both say of a schedule, for a drawing: four digits, and of many evenly
    chosen ones.
    """
    pairs = sorted(_pairs(own, following), key=lambda pair: pair[1])
    n = min(len(pairs), _MOST_POINTS)
    return [[float(f"{x:.4g}") for x in pairs[i * len(pairs) // n]] for i in range(n)]


def ladder_of(columns: Sequence[Column]) -> list[dict[str, object]]:
    """How well each rung forecasts the next, in plain data."""
    return [asdict(correlation_of(a, b)) for a, b in pairwise(columns)]


def early_columns(known: Iterable[Measurement], looks: Sequence[int], metric: str) -> list[Column]:
    """The losses at the looks of early stopping, by the short name of their metric."""
    paths = {m.trial.id: m.losses for m in known}
    return [
        (at(metric, n), n, {i: path[n] for i, path in paths.items() if n in path}) for n in looks
    ]


def whole_column(known: Iterable[Measurement], n_images: int, metric: str) -> Column:
    """The losses measured whole."""
    losses = {m.trial.id: m.loss for m in known if m.loss is not None}
    return at(metric, n_images), n_images, losses


def at(metric: str, n_images: int) -> str:
    """The name of a metric of so many images: "FD@1000"."""
    return f"{metric}@{n_images}"


def signal_per_image(correlation: float, n_images: float) -> float:
    """r^2 / (1 - r^2), the ratio of what a score says to its noise, by image.

    Averaging over more images raises that ratio in proportion, so scores of different numbers of
    images can be compared by it.  Zero for a correlation that is negative or nan.
    """
    if not correlation > 0.0:
        return 0.0
    return correlation**2 / max(1.0 - correlation**2, 1e-9) / n_images


def number(value: float) -> float | None:
    """None for what is not finite, as JSON wants it."""
    return value if math.isfinite(value) else None


def _pairs(own: Column, following: Column) -> list[tuple[float, float]]:
    """What both rungs say of the schedules that both have a number for."""
    said, measured = own[2], following[2]
    return [
        (said[i], value)
        for i, value in measured.items()
        if i in said and not math.isnan(said[i]) and not math.isnan(value)
    ]
