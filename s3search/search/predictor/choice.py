"""Which predictor to use, and whether to use one at all, by cross-validation.

Every candidate forecasts each example from a fit to the others; a candidate, or the mean of all
of them, is chosen by its rank correlation with what was measured, over all examples and inside
the best of them.  What correlates no better than chance is returned as not trusted: the search
then has to ask the network.  A proxy that is wrong is caught the same way: where none ranks the
examples clearly, ``decisions``, which sees none, is a candidate too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s3search.search.predictor.base import Array, Example, Forecast, Predictor, log_distances
from s3search.search.predictor.blend import Blend, blended, widening_for
from s3search.search.predictor.features import proxy_names
from s3search.search.predictor.process import Process
from s3search.search.predictor.ranks import best_share, rank_correlation, standard_error
from s3search.search.predictor.sequence import SequenceModel
from s3search.search.predictor.trees import Trees

Names = tuple[str, ...] | None

CANDIDATES: Mapping[str, Callable[[Names], Predictor]] = {
    "process": lambda names: Process(proxies=names, with_schedule=True),
    "proxies": lambda names: Process(proxies=names),
    "decisions": lambda _: Process(proxies=(), with_schedule=True),
    "trees": lambda names: Trees(proxies=names),
    "sequence": lambda names: SequenceModel(proxies=names),
}
"""Predictors by name, each made for the proxies it may use (None: all)."""

DEFAULT = ("process", "proxies", "trees")

_FOLDS = 4
_LEAST_EXAMPLES = 8  # below this nothing can be left out
_DEVIATIONS = 2.0  # of the correlation's standard error
_LEAST_CORRELATION = 0.1
_CLEARLY = 0.5  # rank correlation of a proxy that needs no candidate without it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChosenPredictor:
    """A fitted predictor with its cross-validated rank correlations, nan where there is none.

    ``correlations`` are those of every candidate, for the record of the study.
    """

    name: str
    predictor: Predictor
    n: int
    correlation: float
    top_correlation: float  # inside the best 30 %
    trusted: bool
    correlations: Mapping[str, float]


def choose(
    examples: Sequence[Example],
    values: Sequence[float],
    seed: int,
    *,
    candidates: Sequence[str] = DEFAULT,
    proxies: Sequence[str] | None = None,
    sequence_from: int | None = None,
) -> ChosenPredictor:
    """The candidate, or the mean of several, that ranks best what it was not fitted to.

    ``proxies`` are those that the schedules to be predicted will have (None: all in use);
    ``sequence_from`` adds S3's sequence model from so many examples on, which costs seconds.
    """
    y = log_distances(examples, values)
    names = None if proxies is None else tuple(proxies)
    if sequence_from is not None and len(y) >= sequence_from:
        candidates = tuple(dict.fromkeys((*candidates, "sequence")))
    groups = [example.schedule.nfe for example in examples]
    used = proxy_names(examples) if names is None else names
    if not used:  # then what sees nothing else is no candidate
        candidates = tuple(n for n in candidates if n != "proxies") or DEFAULT[:1]
    elif not any(abs(_ranking(examples, y, each, groups)) > _CLEARLY for each in used):
        candidates = tuple(dict.fromkeys((*candidates, "decisions")))
    fitted = {name: CANDIDATES[name](names) for name in candidates}
    for predictor in fitted.values():
        predictor.fit(examples, values, seed)
    if len(y) < _LEAST_EXAMPLES:
        return _unproven(fitted, len(y))
    held_out = {name: _held_out(p, examples, values, seed) for name, p in fitted.items()}
    judged = {
        chosen: _judged(blended([held_out[name] for name in chosen]), y, groups)
        for chosen in _combinations(tuple(candidates))
    }
    best = max(judged, key=lambda names: judged[names].score)
    found = judged[best]
    widening = widening_for(blended([held_out[name] for name in best]), y)
    return ChosenPredictor(
        name="+".join(best),
        predictor=Blend(tuple(fitted[name] for name in best), widening),
        n=len(y),
        correlation=found.correlation,
        top_correlation=found.top_correlation,
        trusted=_beats_chance(found.correlation, len(y)),
        correlations={"+".join(names): each.correlation for names, each in judged.items()},
    )


def _ranking(examples: Sequence[Example], y: Array, name: str, groups: Sequence[int]) -> float:
    """The rank correlation of one proxy, 0 where there is none."""
    scores = np.array([example.proxies.get(name, math.nan) for example in examples])
    known = np.nonzero(~np.isnan(scores))[0]
    found = rank_correlation(scores[known], y[known], [groups[i] for i in known.tolist()])
    return 0.0 if math.isnan(found) else found


@dataclass(frozen=True, slots=True)
class _Judged:
    correlation: float
    top_correlation: float
    score: float


def _judged(forecast: Forecast, y: Array, groups: Sequence[int]) -> _Judged:
    """Both correlations, and their mean weighted by the examples behind each."""
    top = best_share(y, groups)
    whole = rank_correlation(forecast.mean, y, groups)
    inside = rank_correlation(forecast.mean[top], y[top], [groups[i] for i in top.tolist()])
    weighted = [(whole, len(y)), (inside, len(top))]
    known = [(value, n) for value, n in weighted if not math.isnan(value)]
    total = sum(n for _, n in known)
    score = sum(value * n for value, n in known) / total if known else -math.inf
    return _Judged(whole, inside, score)


def _combinations(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each alone, each pair, all; the simplest first, which wins a tie."""
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return list(dict.fromkeys([*((name,) for name in names), *pairs, names]))


def _held_out(
    predictor: Predictor, examples: Sequence[Example], values: Sequence[float], seed: int
) -> Forecast:
    """The forecast of every example from those of the other folds."""
    n = len(examples)
    part = np.random.default_rng(seed).permutation(n) % _FOLDS
    mean, std = np.zeros(n), np.zeros(n)
    for k in range(_FOLDS):
        out, rest = np.nonzero(part == k)[0].tolist(), np.nonzero(part != k)[0].tolist()
        fold = predictor.for_fold()
        fold.fit([examples[i] for i in rest], [values[i] for i in rest], seed)
        forecast = fold.predict([examples[i] for i in out])
        mean[out], std[out] = forecast.mean, forecast.std
    return Forecast(mean, std)


def _beats_chance(correlation: float, n: int) -> bool:
    """Whether the correlation less two standard errors is still worth something."""
    if math.isnan(correlation):
        return False
    least = math.atanh(min(correlation, 0.999)) - _DEVIATIONS * standard_error(correlation, n)
    return math.tanh(least) > _LEAST_CORRELATION


def _unproven(fitted: Mapping[str, Predictor], n: int) -> ChosenPredictor:
    """The mean of all candidates, for want of anything to tell them apart."""
    return ChosenPredictor(
        name="+".join(fitted),
        predictor=Blend(tuple(fitted.values())),
        n=n,
        correlation=math.nan,
        top_correlation=math.nan,
        trusted=False,
        correlations={},
    )
