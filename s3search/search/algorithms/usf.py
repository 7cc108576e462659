"""The evolution of USF / S3 (arXiv:2312.07243) as its code was released, to compare with.

Steady-state, without predictor, early stopping or proxy: a number of network calls is drawn, two
parents among the best ``RANK_BAR`` of that number, a child is crossed with some probability and
always mutated, and whatever comes out is measured.  The probabilities below are the released
ones; where the four configurations differ, the CIFAR-10 one's or the middle of their range.

A child may make one call more or fewer than its parents (a step added or deleted, an analytic
first prediction): it then joins the parents of its own number, which is how schedules spread over
the numbers of calls.  The released search measures every child, so with a single number about two
fifths of its budget go to children that cannot win.  Here a child whose number of calls the study
does not search is drawn anew before it is measured, as is a plan that was measured already; both
are to the benefit of this algorithm.

What the release cannot say or do, and what stands for it: it starts from schedules that it does
not ship (here the published solvers, where the study gives them, and random schedules of the
space until a number of calls has ``N_START`` measured ones); it ends at a fixed kind of end (a
child inherits whether it denoises); it has no choices beyond the space's, and none of the space's
beyond its own: values that the space lacks are left out of its tables.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from s3search.processes import Edm
from s3search.rules import Prediction, RelaxationKind
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind
from s3search.search.algorithms.evolution import Populations, insert
from s3search.search.algorithms.sequential import SeedsFirst
from s3search.search.conversation import Setup
from s3search.search.edit.draft import Draft, draft_of, finished
from s3search.search.edit.recipe import (
    Choice,
    kind_of,
    possible_estimates,
    relaxation_of,
    strength_of,
)
from s3search.search.edit.variation import as_linear
from s3search.search.questions import Measurement
from s3search.search.space import Problem
from s3search.search.trial import Trial, schedule_key, searched

T = TypeVar("T")

RANK_BAR = 15  # parents are among the best so many
N_START = 2  # measured schedules that a number of calls needs before it has children

_CROSSOVER = 0.3
_DEEP_CROSSOVER = 0.5  # of the crossed: whole steps are mixed as well
_ADD_STEP = 0.2
_DELETE_STEP = 0.2
_START = 0.3
_TIME = 0.4  # per time, and for the end level
_ORDER = 0.3  # this and what follows: per step
_PREDICTION = 0.25
_ESTIMATION = 0.25
_RELAXATION = 0.25**2  # the release draws twice
_CORRECTOR = 0.25

_EDM_TIME_SIGMA = 0.08  # of a factor on the time
_TIME_SIGMA = 0.045  # of a summand, as a share of the range of times
_COEFFICIENT_SIGMA = 0.045

_ORDERS = {1: 0.2, 2: 0.4, 3: 0.3, 4: 0.1}
_PREDICTIONS = {Prediction.NOISE: 0.3, Prediction.DATA: 0.3}  # and v3, which needs statistics
_ESTIMATES = {1: 0.5, 2: 0.5}
_CORRECTORS = {None: 0.5, CorrectorKind.PSEUDO: 0.5}
# the release's zero_x0 is D = 0 for EDM and eps = x for VP: both of the space's share its 0.3
_STARTS = {
    StartKind.NETWORK: 0.3,
    StartKind.UNIT_NOISE: 0.15,
    StartKind.ZERO_X0: 0.15,
    StartKind.AVERAGE_X0: 0.4,
}
_TRIES = 100  # draws until a child is new and of a searched number of calls


class UsfEvolution(SeedsFirst):
    """USF's evolution; the module's docstring tells what of it is published."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._populations: Populations = {}

    def tell(self, measured: Measurement) -> None:
        """Remembers the schedule; a finite loss makes it a possible parent."""
        if self._is_new(measured.trial) and measured.trial.is_for(self._problem.process):
            insert(self._populations, measured, most=RANK_BAR)

    def _made(self, number: int, pending: Sequence[Trial], taken: Container[bytes]) -> Trial:
        rng = np.random.default_rng([self._seed, number])
        nfe = self._nfe[int(rng.integers(len(self._nfe)))]
        population = self._populations.get(nfe, [])
        for _ in range(_TRIES):
            if len(population) < N_START:
                break
            first, second = rng.choice(len(population), 2, replace=False)
            a, b = (population[int(i)][2].schedule for i in (first, second))
            child, parents = usf_child(self._problem, a, b, self._nfe, rng)
            if child is not None and schedule_key(child) not in taken:
                origin = "mutation" if len(parents) == 1 else "crossover"
                return Trial.of(child, searched(origin), parents, number)
        return self._random(number, nfe, rng, taken, _TRIES)


def usf_child(
    problem: Problem,
    a: Schedule,
    b: Schedule,
    searched: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Schedule | None, tuple[str, ...]]:
    """A child and the ids of its parents; None where its number of calls is not searched.

    The parents are crossed only if they have equally many steps and one kind of end.
    """
    draft, other = draft_of(a), draft_of(b)
    parents: tuple[str, ...] = (a.id,)
    alike = len(draft.choices) == len(other.choices) and draft.denoises == other.denoises
    if alike and rng.random() < _CROSSOVER:
        _cross(draft, other, rng)
        parents = (a.id, b.id)
    _mutate(problem, draft, rng)
    nfe = draft.n_calls
    return (finished(problem, draft, nfe, rng) if nfe in searched else None), parents


def _cross(draft: Draft, other: Draft, rng: np.random.Generator) -> None:
    """Every kind of choice from either parent; then, at times, whole steps from either."""
    if rng.random() < 0.5:
        draft.times = list(other.times)
    if rng.random() < 0.5:
        draft.start = other.start
    prediction, derivatives, corrector = (rng.random(3) < 0.5).tolist()
    pairs = list(zip(draft.choices, other.choices, strict=True))
    draft.choices = [
        _combined(
            theirs if prediction else own,
            theirs if derivatives else own,
            theirs if corrector else own,
        )
        for own, theirs in pairs
    ]
    if rng.random() < _DEEP_CROSSOVER:
        mixed = rng.random(len(pairs)) < 0.5
        draft.choices = [
            replace(theirs, corrector=own.corrector) if swap else own
            for own, (_, theirs), swap in zip(draft.choices, pairs, mixed, strict=True)
        ]


def _combined(prediction: Choice, derivatives: Choice, corrector: Choice) -> Choice:
    """The step with the prediction, the order with its derivatives, and the corrector of three;
    a published step survives whole or not at all.
    """
    step = derivatives
    if prediction is not derivatives and prediction.prediction is not derivatives.prediction:
        step = replace(step, prediction=prediction.prediction, published=None)
    return replace(step, corrector=corrector.corrector)


def _mutate(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """All of the released mutations, each with its own probability."""
    if rng.random() < _ADD_STEP:
        draft.insert_step(problem, rng)
    if rng.random() < _DELETE_STEP and len(draft.choices) > 1:
        draft.remove_step(rng)
    if rng.random() < _START:
        draft.start = _drawn(_STARTS, problem.starts_at(draft.times[0]), rng)
    _mutate_times(problem, draft, rng)
    last = len(draft.choices) - 1
    for i in range(len(draft.choices) - draft.denoises):
        draft.choices[i] = _mutated_step(problem, draft, i, rng)
        if i < last and rng.random() < _CORRECTOR:
            kind = _drawn(_CORRECTORS, problem.space.correctors, rng)
            draft.choices[i] = replace(draft.choices[i], corrector=kind)


def _mutate_times(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Moves some times by noise and draws the end level anew; the steps keep their positions."""
    process, times = draft.process, draft.times
    if len(times) == 1:
        return
    if rng.random() < _TIME:
        low, high = problem.end_lams(called=draft.calls_end)
        times[-1] = float(rng.uniform(process.time_of_lam(high), process.time_of_lam(low)))
    low_t, high_t = process.time_range
    for i in range(1, len(times) - 1):
        if rng.random() < _TIME:
            moved = times[i] + float(rng.normal(0.0, _TIME_SIGMA)) * (high_t - low_t)
            if isinstance(process, Edm):
                moved = times[i] * (1.0 + float(rng.normal(0.0, _EDM_TIME_SIGMA)))
            if times[-1] < moved < times[0]:
                times[i] = moved
    inner = [max(t, times[-1]) for t in times[1:-1]]
    times[1:-1] = sorted(inner, reverse=True)


def _mutated_step(problem: Problem, draft: Draft, i: int, rng: np.random.Generator) -> Choice:
    """Step ``i`` with another order, prediction, estimate or coefficient, each at times."""
    choice = draft.choices[i]
    if rng.random() < _ORDER:
        allowed = [order for order in problem.space.orders if order <= i + 1]
        order = _drawn(_ORDERS, allowed or [choice.order], rng)
        if order != choice.order:
            choice = replace(
                choice,
                order=order,
                first_points=order - 1,
                relaxation=choice.relaxation if order > 1 else None,
                published=None,
            )
    if rng.random() < _PREDICTION:
        prediction = _drawn(_PREDICTIONS, problem.space.predictions, rng)
        if prediction is not choice.prediction:
            choice = replace(choice, prediction=prediction, published=None)
    if choice.order > 2 and rng.random() < _ESTIMATION:
        n_points = _drawn(_ESTIMATES, possible_estimates(problem.space, choice.order), rng)
        if n_points != choice.first_points:
            choice = replace(choice, first_points=n_points, published=None)
    walks = RelaxationKind.LINEAR in problem.space.relaxations and choice.order > 1
    if walks and rng.random() < _RELAXATION:
        draft.choices[i] = choice
        is_linear = kind_of(choice.relaxation) is RelaxationKind.LINEAR
        c = strength_of(choice.relaxation) if is_linear else as_linear(draft, i)
        c += float(rng.normal(0.0, _COEFFICIENT_SIGMA))
        limit = problem.space.coefficient_limit
        linear = relaxation_of(RelaxationKind.LINEAR, max(-limit, min(c, limit)))
        choice = replace(choice, relaxation=linear, published=None)
    return choice


def _drawn(table: Mapping[T, float], allowed: Sequence[T], rng: np.random.Generator) -> T:
    """One of the allowed values by the weights of the table; any of them if it has none."""
    values = [value for value in allowed if value in table] or list(allowed)
    weights = np.array([table.get(value, 1.0) for value in values])
    return values[int(rng.choice(len(values), p=weights / weights.sum()))]
