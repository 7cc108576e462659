"""Guidance as an axis of the search: a scale for each network call, beside the schedule itself.

Another proposer searches schedules and knows nothing of guidance; here each gets scales, those of
its first parent with changes, or new ones.  Part of the proposals change the scales alone.  Where
one schedule was measured with several, its parents' rank is that of the first.

Scales are drawn as in a limited interval (arXiv:2404.07724): one scale for calls that follow each
other, 1 for the others where the range begins at 1.  Changes then let calls differ.
"""

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from s3search.schedules.published import with_guidance
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.search.algorithms.sequential import Proposer, finite_loss
from s3search.search.conversation import Setup
from s3search.search.questions import Measurement
from s3search.search.trial import Trial, searched

_TAG = 0x67756964  # keeps these draws apart from those of the proposer of schedules
_ALONE = 0.4  # share of the proposals that change nothing but scales
_RANK_BAR, _TOURNAMENT = 15, 3  # as in `EvolutionSettings`
_TRIES = 30
_SPREAD = 0.2  # of one change of a scale, in its logarithm

Scales = tuple[float, ...]


class GuidedSearch:
    """A proposer of schedules with guidance in the space's limits, around one of schedules alone,
    which ``make`` makes.

    Seeds, which come without scales, are those that the model guides as its study file says.
    """

    def __init__(self, setup: Setup, make: Callable[[Setup], Proposer]) -> None:
        limits = setup.problem.space.guidance
        assert limits is not None  # the caller looks
        alone = setup.problem.space.model_copy(update={"guidance": None})
        self._proposer = make(replace(setup, problem=replace(setup.problem, space=alone)))
        self._limits, self._seed = limits, setup.seed
        self._measured: dict[str, Schedule] = {}
        self._firsts: dict[str, Schedule] = {}  # by the id of the schedule without its scales
        self._best: dict[int, list[tuple[float, int, Schedule]]] = {}

    def tell(self, measured: Measurement) -> None:
        """Remembers the scales here and the schedule there."""
        trial, found = measured.trial, finite_loss(measured)
        schedule = trial.schedule
        plain = without_guidance(schedule)
        self._measured[schedule.id] = schedule
        self._firsts.setdefault(plain.id, schedule)
        if found is not None:
            ranked = self._best.setdefault(schedule.nfe, [])
            insort(ranked, (*found[:2], schedule), key=lambda m: m[:2])
        question = replace(measured.question, trial=_without(trial, plain))
        self._proposer.tell(replace(measured, question=question))

    def propose(self, number: int, pending: Sequence[Trial]) -> Trial:
        """A schedule of the other proposer with scales, or one of the best with others."""
        taken = {*self._measured, *(own.id for own in pending)}
        plain = [_without(own, without_guidance(own.schedule)) for own in pending]
        inner = self._proposer.propose(number, plain)
        if inner.origin.is_baseline:
            return inner
        rng = np.random.default_rng([self._seed, number, _TAG])
        ranked = self._best.get(inner.nfe, [])
        alone = bool(ranked) and rng.random() < _ALONE
        trial = inner
        for _ in range(_TRIES):
            trial = self._regiven(inner, ranked, rng) if alone else self._given(inner, rng)
            if trial.id not in taken:
                break
        return trial

    def _given(self, inner: Trial, rng: np.random.Generator) -> Trial:
        parents = tuple(
            self._firsts[own].id if own in self._firsts else own for own in inner.parents
        )
        is_known = bool(parents) and parents[0] in self._measured
        known = scales_of(self._measured[parents[0]]) if is_known else None
        schedule = with_guidance(inner.schedule, self._next(known, inner.nfe, rng))
        return Trial.of(schedule, inner.origin, parents, inner.number)

    def _regiven(
        self,
        inner: Trial,
        ranked: Sequence[tuple[float, int, Schedule]],
        rng: np.random.Generator,
    ) -> Trial:
        n = min(len(ranked), _RANK_BAR)
        parent = ranked[int(rng.integers(n, size=_TOURNAMENT).min())][2]
        scales = self._next(scales_of(parent), parent.nfe, rng)
        schedule = with_guidance(without_guidance(parent), scales)
        return Trial.of(schedule, searched("guidance"), (parent.id,), inner.number)

    def _next(self, known: Scales | None, n: int, rng: np.random.Generator) -> Scales:
        if known is None:
            return drawn_scales(self._limits, n, rng)
        return changed_scales(self._limits, resized(known, n), rng)


def _without(trial: Trial, plain: Schedule) -> Trial:
    """The trial of the schedule without its scales."""
    return Trial.of(plain, trial.origin, trial.parents, trial.number)


def scales_of(schedule: Schedule) -> Scales | None:
    """The scales that a schedule carries."""
    return None if schedule.model_patch is None else schedule.model_patch.guidance_scale


def without_guidance(schedule: Schedule) -> Schedule:
    """``schedule`` without its scales."""
    patch = schedule.model_patch
    if patch is None or patch.guidance_scale is None:
        return schedule
    rest = patch.model_copy(update={"guidance_scale": None})
    return schedule.changed(model_patch=None if rest == ModelPatch() else rest)


def drawn_scales(limits: tuple[float, float], n: int, rng: np.random.Generator) -> Scales:
    """One scale, uniform in its logarithm, for some calls in a row."""
    low, high = limits
    scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    first, last = sorted(int(i) for i in rng.integers(n, size=2))
    if low > 1.0 or rng.random() < 0.5:
        first, last = 0, n - 1
    return tuple(scale if first <= j <= last else 1.0 for j in range(n))


def changed_scales(
    limits: tuple[float, float], scales: Scales, rng: np.random.Generator
) -> Scales:
    """All scales, or those of some calls in a row, made larger or smaller, or turned off or on."""
    low, high = limits
    first, last = sorted(int(i) for i in rng.integers(len(scales), size=2))
    chosen = range(len(scales)) if rng.random() < 0.5 else range(first, last + 1)
    factor = float(np.exp(_SPREAD * rng.standard_normal()))
    level = max(scales) if max(scales) > 1.0 else float(np.sqrt(low * high))
    new = list(scales)
    is_switched = low == 1.0 and rng.random() < 0.25
    for j in chosen:
        value = (level if new[j] == 1.0 else 1.0) if is_switched else new[j] * factor
        new[j] = float(np.clip(value, low, high))
    return tuple(new)


def resized(scales: Scales, n: int) -> Scales:
    """The scales for another number of calls: each takes that of the nearest place."""
    places = (np.arange(n) + 0.5) / n * len(scales)
    return tuple(scales[int(place)] for place in places)
