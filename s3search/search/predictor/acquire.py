"""Which of many candidates to measure next: the promising, the uncertain, no two alike.

    promising   the largest expected improvement, E max(threshold - y, 0), y the log distance
    uncertain   the largest deviation among those that may be better than the threshold

Expected improvement is compared by its logarithm (Ament et al. 2023, arXiv:2310.20708), which
still tells candidates apart where all of them are far above the threshold.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import log_ndtr

from s3search.schedules.schedule import Schedule
from s3search.search.predictor.base import Array, Forecast
from s3search.search.predictor.features import Standard, flat

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
_FAR = -20.0  # standard deviations: beyond it the first term of the tail is exact to 1 %
_MAY_BE_BETTER = 2.0  # standard deviations
_APART = 0.1  # of the median distance between candidates: nearer ones are alike
_SAMPLE = 200  # candidates that the median is taken of


def places(schedules: Sequence[Schedule]) -> Array:  # (n, d)
    """Schedules as points: near means alike in times and choices."""
    return Standard(table := flat(schedules))(table)


def log_expected_improvement(forecast: Forecast, threshold: float) -> Array:  # (n,)
    """log E max(threshold - y, 0) for y ~ N(mean, std^2)."""
    z = (threshold - forecast.mean) / forecast.std
    near = np.maximum(z, _FAR)
    log_density = -0.5 * near**2 - _LOG_ROOT_2PI
    direct = np.exp(log_density) + near * np.exp(log_ndtr(near))
    far = np.minimum(z, _FAR)
    tail = -0.5 * far**2 - _LOG_ROOT_2PI - 2 * np.log(-far)
    log_h = np.where(z > _FAR, np.log(np.maximum(direct, 1e-300)), tail)
    return np.asarray(np.log(forecast.std) + log_h)


def acquire(
    forecast: Forecast,
    threshold: float,
    k: int,
    rng: np.random.Generator,
    *,
    points: Array,
    uncertain: float = 0.25,
) -> list[int]:
    """``k`` of the n candidates, the best first; ``threshold`` is the log distance to improve on.

    ``points`` (n, d) are `places` of the candidates.  Each pick is an uncertain one with
    probability ``uncertain``.  Candidates like one already picked are left for when no others
    remain.
    """
    n = len(forecast.mean)
    promising = np.argsort(-log_expected_improvement(forecast, threshold), kind="stable")
    hopeless = forecast.mean - _MAY_BE_BETTER * forecast.std >= threshold
    doubtful = np.lexsort((-forecast.std, hopeless))
    least = _APART * _typical_distance(points, rng)
    picked: list[int] = []
    free, alike = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
    for _ in range(min(k, n)):
        order = doubtful if rng.random() < uncertain else promising
        wanted = free & ~alike if (free & ~alike).any() else free
        pick = int(next(i for i in order if wanted[i]))
        picked.append(pick)
        free[pick] = False
        alike |= np.linalg.norm(points - points[pick], axis=1) < least
    return picked


def _typical_distance(points: Array, rng: np.random.Generator) -> float:
    """The median distance of pairs, of a sample where there are many."""
    if len(points) < 2:
        return 0.0
    some = points
    if len(points) > _SAMPLE:
        some = points[rng.choice(len(points), _SAMPLE, replace=False)]
    square = (some**2).sum(1)
    apart = np.maximum(square[:, None] + square - 2 * some @ some.T, 0.0)
    return float(np.sqrt(np.median(apart[np.triu_indices(len(some), 1)])))
