"""A schedule and its proxies as numbers.

    proxies     logarithms, one column per name; what is missing is filled in by its conditional
                mean given the others, under one Gaussian fitted to what was seen
    compact     a dozen summaries of a schedule: few enough for a Gaussian process
    tokens      one row per step: what S3's sequence model reads (arXiv:2312.07243, sec. 4.2, after
                OMS-DPM, arXiv:2306.08860)
    flat        tokens at evenly spaced places of the trajectory, so that schedules of different
                length have the same columns

Times are told as lam; the clean end, where lam is infinite, counts as `_CLEAN` beyond the last
finite level, pure noise as `_NOISY` before the first.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from s3search.rules import AnyRule, Prediction, RelaxationKind, SearchedRule, solvers
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind, Step
from s3search.search.edit.recipe import choice_of, solver_of, strength_of
from s3search.search.predictor.base import Array, Example, Mask
from s3search.solvers.noise_shares import noise_shares

_CLEAN, _NOISY = 1.0, 2.0  # in lam, beyond the finite levels
_PLACES = 8  # rows of `flat`
_LEAST_PROXY = 1e-12
_EM_ROUNDS = 8
_SHRINKAGE = 0.05  # of the covariance towards the identity
_REMEMBERED = 8192  # schedules

_RELAXATIONS = tuple(RelaxationKind)
_STARTS = tuple(StartKind)

_ORDER, _DATA = 0, 1  # columns of `tokens`
_CORRECTED = -8 - len(_STARTS)
_FRESH = _CORRECTED - 1  # the first column after those of the rule

Solvers = tuple[type[SearchedRule], ...]


def proxy_names(examples: Iterable[Example], *, least: float = 0.2) -> tuple[str, ...]:
    """Names of the proxies that at least this share of the examples has, sorted."""
    known = [[name for name, v in e.proxies.items() if not math.isnan(v)] for e in examples]
    counts: dict[str, int] = {}
    for names in known:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return tuple(sorted(name for name, n in counts.items() if n >= least * len(known)))


class Proxies:
    """Log proxies of examples, standardised and complete.

    ``columns`` are those that vary among the examples it was made from; with none of them every
    matrix is (n, 0).
    """

    def __init__(self, examples: Sequence[Example], names: Sequence[str]) -> None:
        raw = _log_proxies(examples, names)
        self._ceiling = _finite_largest(raw)
        raw = np.minimum(raw, self._ceiling)
        enough = np.isfinite(raw).sum(0) >= 2
        spread = np.array(
            [np.nanstd(c) if ok else 0.0 for c, ok in zip(raw.T, enough, strict=True)]
        )
        kept = spread > 1e-9
        self.columns = tuple(name for name, keep in zip(names, kept, strict=True) if keep)
        self._ceiling = self._ceiling[kept]
        raw = raw[:, kept]
        self._mean = np.array([np.nanmean(column) for column in raw.T])
        self._std = spread[kept]
        self._centre, self._covariance = _fitted_gaussian((raw - self._mean) / self._std)

    def __call__(self, examples: Sequence[Example]) -> Array:  # (n, p)
        """The matrix of ``examples``: columns of about mean 0 and deviation 1, nothing missing."""
        raw = np.minimum(_log_proxies(examples, self.columns), self._ceiling)
        return _completed((raw - self._mean) / self._std, self._centre, self._covariance)


def _log_proxies(examples: Sequence[Example], names: Sequence[str]) -> Array:
    values = [[example.proxies.get(name, math.nan) for name in names] for example in examples]
    array = np.array(values, dtype=np.float64).reshape(len(examples), len(names))
    return np.log(np.maximum(array, _LEAST_PROXY))  # nan stays nan, inf stays inf


def _finite_largest(raw: Array) -> Array:
    """Per column a little more than the largest finite value: what a diverged schedule counts."""
    finite = np.where(np.isfinite(raw), raw, -np.inf)
    largest = finite.max(0, initial=-np.inf)
    return np.where(np.isfinite(largest), largest + 1.0, 0.0)


def _fitted_gaussian(z: Array) -> tuple[Array, Array]:
    """Mean and covariance of rows with missing entries, by expectation maximisation."""
    n, p = z.shape
    centre, covariance = np.zeros(p), np.eye(p)
    for _ in range(_EM_ROUNDS):
        full = _completed(z, centre, covariance)
        centre = full.mean(0)
        scatter = (full - centre).T @ (full - centre)
        for row in z:
            gone = np.isnan(row)
            if gone.any():
                scatter[np.ix_(gone, gone)] += _conditional(covariance, gone)[1]
        covariance = (scatter + _SHRINKAGE * n * np.eye(p)) / (n * (1.0 + _SHRINKAGE))
    return centre, covariance


def _completed(z: Array, centre: Array, covariance: Array) -> Array:
    full = z.copy()
    patterns, which = np.unique(np.isnan(z), axis=0, return_inverse=True)
    for k, gone in enumerate(patterns):
        if gone.any():
            rows = np.nonzero(which.reshape(-1) == k)[0]
            gain, _ = _conditional(covariance, gone)
            seen = z[np.ix_(rows, ~gone)] - centre[~gone]
            full[np.ix_(rows, gone)] = centre[gone] + seen @ gain
    return full


def _conditional(covariance: Array, gone: Mask) -> tuple[Array, Array]:
    """Gain (seen, gone) and covariance (gone, gone) of the missing entries given the others."""
    across = covariance[np.ix_(~gone, gone)]
    gain: Array = np.linalg.solve(covariance[np.ix_(~gone, ~gone)], across).astype(np.float64)
    return gain, covariance[np.ix_(gone, gone)] - across.T @ gain


@dataclass(frozen=True, slots=True)
class _Known:
    """A schedule that equals another by its id alone; what is computed of it is kept."""

    id: str
    schedule: Schedule = field(compare=False)


def tokens(schedule: Schedule) -> Array:  # (n_steps, ...)
    """One row per step: its rule, noise and corrector, where it begins and ends, its network
    time there; the first row carries how the trajectory starts.
    """
    return _tokens(_Known(schedule.id, schedule), tuple(solvers().values()))


def flat(schedules: Sequence[Schedule]) -> Array:  # (n, ...)
    """Tokens at `_PLACES` evenly spaced steps, and the number of steps and of calls."""
    drawn = tuple(solvers().values())
    return np.array([_flat(_Known(schedule.id, schedule), drawn) for schedule in schedules])


def compact(schedules: Sequence[Schedule]) -> Array:  # (n, 13)
    """Where the trajectory ends, how its times are spread, how often what is chosen, and how much
    of its states is fresh noise.
    """
    drawn = tuple(solvers().values())
    return np.array([_compact(_Known(schedule.id, schedule), drawn) for schedule in schedules])


@lru_cache(maxsize=_REMEMBERED)
def _tokens(known: _Known, drawn: Solvers) -> Array:
    schedule = known.schedule
    lams, shares = _lams(schedule), noise_shares(schedule)
    rows = []
    for i, step in enumerate(schedule.steps):
        t = step.network_time
        shift = 0.0 if t is None else schedule.process.lam(t) - lams[i + 1]
        place = (
            shares[i],
            step.corrector is not None,
            step.corrector is not None and step.corrector.kind is CorrectorKind.IMPLICIT,
            step.compensation is not None,
            shift,
            lams[i],
            lams[i + 1],
            lams[i + 1] - lams[i],
            schedule.times[i + 1] == schedule.process.clean_time,
            *((i == 0 and schedule.start.kind is kind) for kind in _STARTS),
        )
        rows.append((*_rule_row(step.predictor, drawn), *place))
    array = np.array(rows, dtype=np.float64)
    array.setflags(write=False)
    return array


@lru_cache(maxsize=_REMEMBERED)
def _flat(known: _Known, drawn: Solvers) -> Array:
    own = _tokens(known, drawn)
    places = np.rint(np.linspace(0, len(own) - 1, _PLACES)).astype(int)
    counts = (known.schedule.n_steps, known.schedule.nfe)
    return np.concatenate([own[places].reshape(-1), counts])


@lru_cache(maxsize=_REMEMBERED)
def _compact(known: _Known, drawn: Solvers) -> Array:
    schedule, own = known.schedule, _tokens(known, drawn)
    lams = np.array(_lams(schedule))
    places = (lams - lams[0]) / (lams[-1] - lams[0])
    order, data, corrected = own[:, _ORDER], own[:, _DATA], own[:, _CORRECTED]
    summaries = (
        schedule.nfe,
        schedule.n_steps,
        lams[-1],
        schedule.times[-1] == schedule.process.clean_time,
        schedule.start.kind is not StartKind.NETWORK,
        places.mean(),
        places.std(),
        np.diff(lams).max(),
        order.mean(),
        order[-1],
        data.mean(),
        corrected.mean(),
        own[:, _FRESH].mean(),
    )
    return np.array(summaries, dtype=np.float64)


@lru_cache(maxsize=4096)
def _rule_row(rule: AnyRule, drawn: Solvers) -> tuple[float, ...]:
    choice, solver = choice_of(Step(predictor=rule)), solver_of(rule)
    kind = None if choice.relaxation is None else choice.relaxation.kind
    return (
        choice.order,
        choice.prediction is not Prediction.NOISE,
        choice.first_points,
        strength_of(choice.relaxation),
        choice.published is not None,
        *(kind is each for each in _RELAXATIONS),
        *(solver is each for each in drawn),
        solver is None,  # a published step that no search draws
    )


def _lams(schedule: Schedule) -> list[float]:
    """lam of every time, the infinite ends replaced as the module's docstring says."""
    lams = [schedule.process.lam(t) for t in schedule.times]
    finite = [lam for lam in lams if math.isfinite(lam)] or [0.0]
    first, last = finite[0] - _NOISY, finite[-1] + _CLEAN
    return [min(max(lam, first), last) for lam in lams]


class Standard:
    """Columns scaled to mean 0 and deviation 1 of the rows it was made from; those that do not
    vary are left out.
    """

    def __init__(self, rows: Array) -> None:
        spread = rows.std(0)
        self._kept = spread > 1e-9
        self._mean, self._std = rows[:, self._kept].mean(0), spread[self._kept]

    def __call__(self, rows: Array) -> Array:
        scaled: Array = (rows[:, self._kept] - self._mean) / self._std
        return scaled
