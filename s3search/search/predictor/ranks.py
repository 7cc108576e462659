"""Rank correlation that survives ties, constants and several populations at once."""

import math
from collections.abc import Hashable, Sequence

import numpy as np

from s3search.search.predictor.base import Array, Rows

TOP = 0.3  # the share of the best in which a search moves
_LEAST = 3  # fewer have no correlation worth a number


def rank_correlation(
    predicted: Array, measured: Array, groups: Sequence[Hashable] | None = None
) -> float:
    """Spearman's correlation (n,) with (n,); nan where either is constant or n < 3.

    With ``groups`` ranks are taken inside each and pooled: that schedules with more network calls
    are better earns a predictor nothing.
    """
    x, y = _centred(predicted, groups), _centred(measured, groups)
    size = math.sqrt(float((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / size if len(x) >= _LEAST and size > 0.0 else math.nan


def ranks_of(values: Array) -> Array:  # (n,)
    """Ranks from 1, ties sharing the mean of theirs; `scipy.stats` takes half a second to load."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Array = np.cumsum(counts) - (counts - 1) / 2
    return means[inverse]


def best_share(
    measured: Array, groups: Sequence[Hashable] | None = None, share: float = TOP
) -> Rows:  # (m,)
    """Indices of the best ``share`` of each group, at least three of each; sorted."""
    kept = []
    for rows in _groups(len(measured), groups):
        order = rows[np.argsort(measured[rows], kind="stable")]
        kept.append(order[: max(_LEAST, round(share * len(rows)))])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)


def standard_error(correlation: float, n: int) -> float:
    """The standard error of atanh(correlation), Bonett & Wright 2000, eq. 5."""
    return math.sqrt((1.0 + correlation**2 / 2.0) / (n - 3)) if n > 3 else math.inf


def _centred(values: Array, groups: Sequence[Hashable] | None) -> Array:
    ranks = np.zeros(len(values))
    for rows in _groups(len(values), groups):
        own = ranks_of(values[rows])
        ranks[rows] = (own - own.mean()) / len(rows)
    return ranks


def _groups(n: int, groups: Sequence[Hashable] | None) -> list[Rows]:
    if groups is None:
        return [np.arange(n)] if n else []
    found: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        found.setdefault(group, []).append(i)
    return [np.array(rows) for rows in found.values()]
