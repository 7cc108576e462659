"""AutoDiffusion's search of times and layers (arXiv:2309.10438), under a budget.

The budget is a cost in NFE-equivalents: what is measured never costs more, and a call that leaves
blocks out pays for others.  Two stages, as published:

    times     the numbers of calls that the budget affords whole, nothing left out
    layers    all numbers of calls; generations of mutated, crossed and random times and blocks,
              made of the best ten before them, of either stage

The first stage is a third of the evaluations (five generations of fifteen in the released code,
where the budget is a number of layers).  A parent of another number of calls loses calls or gets
some.  A child that costs too much leaves out blocks drawn at random until it fits; every other one
then takes back whatever still fits.  The released code's mutation of layers changes nothing, and
it checks its budget on random candidates alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from s3search.errors import InvalidConfig
from s3search.schedules.layers import (
    Layers,
    Skipped,
    lists_of,
    skipped_by_call,
    skips_layers,
    starting_steps,
    whole,
    with_skipped,
)
from s3search.schedules.published import ddim, dpmpp_2m
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.autodiffusion import (
    N_CROSSED,
    N_MUTANTS,
    N_PARENTS,
    POPULATION,
    RATE,
    TRIES,
    AutoDiffusion,
    Genes,
    TimeGenes,
    keeps_steps,
)
from s3search.search.algorithms.sequential import finite_loss
from s3search.search.conversation import Setup
from s3search.search.questions import Measurement
from s3search.search.space import Problem
from s3search.search.trial import Trial, searched

FIRST_STAGE = 5 * POPULATION
"""Evaluations of times alone where the budget of the search is no number of evaluations."""

_MOST_FLIPS = 3  # blocks that a mutation leaves out or takes back
_SLACK = 1e-9  # of a budget, for rounding

_Scored = tuple[float, int, Trial]


class LayeredAutoDiffusion:
    """A proposer of schedules that cost at most ``space.cost``.

    Seeds are proposed if they fit, and one that does not stands for its solver at its number of
    calls.
    """

    def __init__(self, setup: Setup, *, solver: str = "") -> None:
        layers, cost = setup.problem.layers, setup.problem.space.cost
        assert layers is not None and cost is not None  # the caller hands both in
        self._problem = setup.problem
        self._nfe, self._seed = setup.nfe, setup.seed
        self._layers, self._cost, self._solver = layers, cost, solver
        self._seeds = setup.seeds
        fitting = within(setup.seeds, layers, cost)
        self._fitting = {seed.id: seed for seed in fitting}
        first = replace(setup, nfe=affordable(setup.nfe, layers, cost), seeds=fitting)
        self._times = AutoDiffusion(first, solver=solver)
        n = setup.evaluations
        self._first_stage = FIRST_STAGE if n is None else math.ceil(n / 3)
        self._ids: set[str] = set()
        self._measured_seeds: list[_Scored] = []
        self._measured: list[_Scored | None] = []  # in order; None where it was in vain

    def tell(self, measured: Measurement) -> None:
        """Remembers the schedule; a finite loss makes it a possible parent."""
        trial, scored = measured.trial, finite_loss(measured)
        if trial.id in self._ids or not trial.is_for(self._problem.process):
            return
        self._ids.add(trial.id)
        if not skips_layers(trial.schedule):
            self._times.tell(measured)
        if trial.id not in self._fitting:
            self._measured.append(scored)
        elif scored is not None:
            self._measured_seeds.append(scored)

    def propose(self, number: int, pending: Sequence[Trial]) -> Trial:
        """The next seed, times alone, or times and blocks."""
        n_before = len(self._measured) + sum(own.id not in self._fitting for own in pending)
        if n_before < self._first_stage:
            return self._times.propose(number, pending)
        generation, slot = divmod(n_before - self._first_stage, POPULATION)
        before = self._measured[: self._first_stage + generation * POPULATION]
        rng = np.random.default_rng([self._seed, number])
        nfe = self._nfe[number % len(self._nfe)]
        genes = _LayerGenes.of(self._problem, self._base(nfe), self._layers, self._cost)
        parents = self._parents(genes, nfe, before)
        taken = self._ids | {own.id for own in pending}
        for attempt in range(TRIES):
            # a place that finds nothing new is filled at random
            place = slot if attempt < TRIES // 2 else POPULATION
            schedule, origin, ids = _member(genes, parents, place, rng)
            if schedule.id not in taken:
                break
        return Trial.of(schedule, searched(origin), ids, number)

    def _base(self, nfe: int) -> Schedule:
        """The schedule whose times are searched: the best seed's solver at this NFE."""
        if self._solver == "2m":
            return dpmpp_2m(self._problem.process, nfe=nfe)
        if self._solver == "":
            for _, _, own in sorted(self._measured_seeds, key=lambda m: m[:2]):
                twin = self._twin(self._fitting[own.id], nfe)
                if twin is None or not keeps_steps(twin):
                    continue
                if self._is_payable(twin.schedule):
                    return twin.schedule
        return ddim(self._problem.process, nfe=nfe)

    def _twin(self, seed: Trial, nfe: int) -> Trial | None:
        """The seed of the same solver and variant at ``nfe`` calls; a user's own has none."""
        if seed.nfe == nfe:
            return seed
        if seed.origin.solver is None:
            return None
        same = (seed.origin.solver, seed.origin.variant)
        for other in self._seeds:
            if other.nfe == nfe and (other.origin.solver, other.origin.variant) == same:
                return other
        return None

    def _is_payable(self, base: Schedule) -> bool:
        genes = _LayerGenes.of(self._problem, base, self._layers, self._cost)
        return genes.least_cost <= self._cost + _SLACK

    def _parents(
        self, genes: "_LayerGenes", nfe: int, measured: Sequence[_Scored | None]
    ) -> list[tuple[str, "_Individual"]]:
        """The best so far with these steps, then those of other numbers of calls."""
        own, others = list[_Scored](), list[_Scored]()
        for m in (*measured, *self._measured_seeds):
            if m is not None and m[2].nfe == nfe and genes.times.fit(whole(m[2].schedule)):
                own.append(m)
            elif m is not None and m[2].nfe != nfe:
                others.append(m)
        ranked = sorted(own, key=lambda m: m[:2]) + sorted(others, key=lambda m: m[:2])
        return [(m[2].id, genes.individual(m[2].schedule)) for m in ranked[:N_PARENTS]]


def affordable(nfe: Sequence[int], layers: Layers, cost: float) -> tuple[int, ...]:
    """The numbers of calls that the budget affords whole; raises `InvalidConfig` where there is
    none, and for a number that it cannot afford at all.
    """
    found = tuple(n for n in nfe if n <= cost + _SLACK)
    if not found:
        raise InvalidConfig(
            f"space.cost: {cost:g} NFE-equivalents afford none of the numbers of calls "
            f"{', '.join(map(str, nfe))} whole, which the search begins with; add "
            f"{max(1, int(cost))} to space.nfe"
        )
    least = layers.call_cost(range(len(layers.layers)))
    if max(nfe) * least > cost + _SLACK:
        raise InvalidConfig(
            f"space.cost: {cost:g} NFE-equivalents never pay for {max(nfe)} calls, which cost "
            f"{max(nfe) * least:.3g} without all their blocks; raise space.cost, or leave "
            f"{max(nfe)} out of space.nfe"
        )
    return found


def within(seeds: Sequence[Trial], layers: Layers, cost: float) -> tuple[Trial, ...]:
    """The seeds that cost no more than that."""
    return tuple(own for own in seeds if layers.cost(own.schedule) <= cost + _SLACK)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Individual:
    """What is searched of a schedule."""

    times: Genes
    skipped: Skipped  # of each step


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LayerGenes:
    """The times of one base schedule, and the blocks that its calls leave out."""

    times: TimeGenes
    steps: tuple[int, ...]  # that start with a call
    fixed: int  # calls that are always whole
    layers: Layers
    cost: float

    @staticmethod
    def of(problem: Problem, base: Schedule, layers: Layers, cost: float) -> "_LayerGenes":
        """Genes of the base."""
        steps = starting_steps(base)
        return _LayerGenes(
            times=TimeGenes.of(problem, base),
            steps=steps,
            fixed=len(skipped_by_call(base)) - len(steps),
            layers=layers,
            cost=cost,
        )

    @property
    def least_cost(self) -> float:
        """With every block left out that may be."""
        every = range(len(self.layers.layers))
        return self.fixed + len(self.steps) * self.layers.call_cost(every)

    def individual(self, schedule: Schedule) -> _Individual:
        """That of a measured schedule, with as many times as the base."""
        lists, n = lists_of(schedule), self.times.base.n_steps
        near = tuple(lists[int((i + 0.5) / n * len(lists))] for i in range(n))
        return _Individual(times=self.times.indices(schedule), skipped=near)

    def drawn(self, rng: np.random.Generator) -> _Individual:
        """Random times; as few blocks as the budget asks for."""
        nothing = ((),) * self.times.base.n_steps
        return _Individual(times=self.times.drawn(rng), skipped=nothing)

    def mutated(self, own: _Individual, rng: np.random.Generator) -> _Individual:
        """Some times drawn anew, and some blocks left out or taken back."""
        lists = [set(skipped) for skipped in own.skipped]
        for _ in range(int(rng.integers(_MOST_FLIPS + 1))):
            lists[int(rng.choice(self.steps))] ^= {int(rng.integers(len(self.layers.layers)))}
        times = self.times.mutated(self._sized(own.times, rng), RATE, rng)
        return _Individual(times=times, skipped=tuple(map(tuple, lists)))

    def crossed(self, a: _Individual, b: _Individual, rng: np.random.Generator) -> _Individual:
        """Each time, and each call's blocks, from either parent."""
        times = self.times.crossed(self._sized(a.times, rng), self._sized(b.times, rng), rng)
        takes = rng.random(len(a.skipped)) < 0.5
        skipped = zip(takes, a.skipped, b.skipped, strict=True)
        return _Individual(times=times, skipped=tuple(x if of_a else y for of_a, x, y in skipped))

    def schedule(self, own: _Individual, rng: np.random.Generator) -> Schedule:
        """The base with these times, within the budget."""
        base = self.times.schedule(own.times)
        return with_skipped(base, self._paid(own.skipped, rng))

    def _sized(self, genes: Genes, rng: np.random.Generator) -> Genes:
        """As many genes as the base has: some drawn, or some dropped, at random."""
        n = len(self.times.own)
        if len(genes) > n:
            return np.sort(rng.choice(genes, n, replace=False))
        more = rng.integers(len(self.times.grid), size=n - len(genes))
        return np.sort(np.concatenate([genes, more]))

    def _paid(self, skipped: Skipped, rng: np.random.Generator) -> Skipped:
        """Those blocks, and as many more as the budget asks for."""
        lists = {i: set(self.layers.outermost(skipped[i])) for i in self.steps}
        order = self._order(rng)
        for i, block in order:
            if self._total(lists) <= self.cost + _SLACK:
                break
            lists[i].add(block)
        if rng.random() < 0.5:
            for i, block in order:
                fewer = {**lists, i: lists[i] - {block}}
                if block in lists[i] and self._total(fewer) <= self.cost + _SLACK:
                    lists = fewer
        n = self.times.base.n_steps
        return tuple(self.layers.outermost(lists.get(i, ())) for i in range(n))

    def _order(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Every block of every call, shuffled; half of the time one call after the other, for
        calls differ in how little they need.
        """
        shuffled: npt.NDArray[np.float64] = rng.random((len(self.steps), len(self.layers.layers)))
        if rng.random() < 0.5:
            shuffled += rng.permutation(len(self.steps))[:, None]
        ranked = np.argsort(shuffled, axis=None)
        return [(self.steps[k // shuffled.shape[1]], int(k) % shuffled.shape[1]) for k in ranked]

    def _total(self, lists: Mapping[int, set[int]]) -> float:
        return self.fixed + sum(map(self.layers.call_cost, lists.values()))


def _member(
    genes: _LayerGenes,
    parents: Sequence[tuple[str, _Individual]],
    slot: int,
    rng: np.random.Generator,
) -> tuple[Schedule, str, tuple[str, ...]]:
    """What stands at a place of a generation: a schedule, its origin, its parents."""
    if parents and slot < N_MUTANTS:
        name, parent = parents[int(rng.integers(len(parents)))]
        return genes.schedule(genes.mutated(parent, rng), rng), "mutation", (name,)
    if parents and slot < N_MUTANTS + N_CROSSED:
        (a, one), (b, other) = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        return genes.schedule(genes.crossed(one, other, rng), rng), "crossover", (a, b)
    return genes.schedule(genes.drawn(rng), rng), "random", ()
