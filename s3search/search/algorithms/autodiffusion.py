"""AutoDiffusion's evolution of times (arXiv:2309.10438), to compare with.

Only the times are searched; the steps are those of one solver, from the first call to the last.
Generations of 50 as in the released code: the first holds the solver's own times, random times
and small mutations of the solver's own; every later one 25 mutations and 15 crossovers of the
best 10 measured before it, and 10 random ones.

A gene is an index into a grid of 1000 times, uniform in VP time (`Spacing.UNIFORM`), between the
noisy end and the cleanest level that the space allows; times stay in order and apart, where the
released code lets two fall together and then silently makes fewer calls.  The first time is the
noisy end, as everywhere here.

The layers that the paper leaves out of the network in a second stage, under a budget, are
`s3search.search.algorithms.layered`'s.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from s3search.errors import InvalidConfig, nearest
from s3search.processes import NoiseProcess
from s3search.schedules.published import ddim, dpmpp_2m
from s3search.schedules.schedule import Schedule, has_noise_times
from s3search.schedules.spacing import Spacing, noisy_time, spaced
from s3search.search.algorithms.sequential import SeedsFirst, finite_loss
from s3search.search.conversation import Setup
from s3search.search.edit.draft import draft_of, settle_times
from s3search.search.questions import Measurement
from s3search.search.space import Problem
from s3search.search.trial import Trial, schedule_key, searched

Genes = npt.NDArray[np.int64]  # (n,), rising indices into the grid

POPULATION = 50
SOLVERS = ("", "ddim", "2m")
"""Whose steps are kept: those of the best seed (DDIM without seeds), DDIM, DPM-Solver++(2M)."""

N_PARENTS = 10
N_MUTANTS = 25
N_CROSSED = 15
RATE = 0.25  # at which a mutation draws a gene anew
_FIRST_RATE = 0.1  # the same in the first generation
_N_GRID = 1000
TRIES = 30  # draws until a proposal is new

Scored = tuple[float, int, Trial]


class AutoDiffusion(SeedsFirst):
    """Generations of times; the module's docstring tells what of it is published."""

    def __init__(self, setup: Setup, *, solver: str = "") -> None:
        if solver not in SOLVERS:
            raise InvalidConfig(
                f"search.algorithm: autodiffusion knows no solver {solver!r}; "
                + nearest(solver, SOLVERS[1:])
            )
        super().__init__(setup)
        self._solver = solver
        self._seed_keys = {seed.key for seed in setup.seeds}
        # per number of calls: what was measured, in order; None where it was in vain
        self._measured_seeds: dict[int, list[Scored]] = {}
        self._measured: dict[int, list[Scored | None]] = {}

    def tell(self, measured: Measurement) -> None:
        """Remembers the schedule; a finite loss makes it a possible parent of later
        generations.
        """
        trial, scored = measured.trial, finite_loss(measured)
        if not self._is_new(trial) or not trial.is_for(self._problem.process):
            return
        if trial.key not in self._seed_keys:
            self._measured.setdefault(trial.nfe, []).append(scored)
        elif scored is not None:
            self._measured_seeds.setdefault(trial.nfe, []).append(scored)

    def _made(self, number: int, pending: Sequence[Trial], taken: Container[bytes]) -> Trial:
        """A member of the present generation."""
        nfe, rng = self._turn(number)
        measured = self._measured.get(nfe, [])
        in_flight = [trial for trial in pending if trial.nfe == nfe]
        n_before = len(measured) + sum(trial.key not in self._seed_keys for trial in in_flight)
        generation, slot = divmod(n_before, POPULATION)
        genes = TimeGenes.of(self._problem, self._base(nfe))
        parents = self._parents(genes, nfe, measured[: generation * POPULATION])
        for attempt in range(TRIES):
            # a place that finds nothing new is filled at random
            made = _member(genes, parents, slot if attempt < TRIES // 2 else POPULATION, rng)
            if schedule_key(made[0]) not in taken:
                break
        schedule, origin, ids = made
        return Trial.of(schedule, searched(origin), ids, number)

    def _base(self, nfe: int) -> Schedule:
        """The schedule whose times are searched."""
        seeds = [m for m in self._measured_seeds.get(nfe, []) if keeps_steps(m[2])]
        if self._solver == "2m":
            return dpmpp_2m(self._problem.process, nfe=nfe)
        if self._solver == "ddim" or not seeds:
            return ddim(self._problem.process, nfe=nfe)
        return min(seeds, key=lambda m: m[:2])[2].schedule

    def _parents(
        self, genes: "TimeGenes", nfe: int, measured: Sequence[Scored | None]
    ) -> list[Schedule] | None:
        """The best so far that have the solver's steps, best first; None in the first
        generation.
        """
        if not measured:
            return None
        own = [m for m in (*measured, *self._measured_seeds.get(nfe, ())) if m is not None]
        fitting = sorted((m for m in own if genes.fit(m[2].schedule)), key=lambda m: m[:2])
        return [m[2].schedule for m in fitting[:N_PARENTS]]


def keeps_steps(seed: Trial) -> bool:
    """Whether its steps stay possible at other times: not where noise is added from a time."""
    return not has_noise_times(seed.schedule)


def _member(
    genes: "TimeGenes", parents: Sequence[Schedule] | None, slot: int, rng: np.random.Generator
) -> tuple[Schedule, str, tuple[str, ...]]:
    """What stands at a place of the first generation (no parents yet) or of a later one: a
    schedule, its origin, its parents.
    """
    if parents is None:
        if slot == 0:
            return genes.schedule(genes.own), "solver", ()
        if N_MUTANTS < slot < POPULATION:
            return genes.schedule(genes.mutated(genes.own, _FIRST_RATE, rng)), "mutation", ()
    elif parents and slot < N_MUTANTS:
        parent = parents[int(rng.integers(len(parents)))]
        child = genes.mutated(genes.indices(parent), RATE, rng)
        return genes.schedule(child), "mutation", (parent.id,)
    elif parents and slot < N_MUTANTS + N_CROSSED:
        a, b = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        child = genes.crossed(genes.indices(a), genes.indices(b), rng)
        return genes.schedule(child), "crossover", (a.id, b.id)
    return genes.schedule(genes.drawn(rng)), "random", ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeGenes:
    """The searched times of one base schedule: all but the first and the clean end."""

    problem: Problem
    base: Schedule
    grid: npt.NDArray[np.float64]  # falling times

    @staticmethod
    def of(problem: Problem, base: Schedule) -> "TimeGenes":
        """Genes of the base's times."""
        process = base.process
        _, highest = problem.end_lams(called=draft_of(base).calls_end)
        grid = _grid(process, process.time_of_lam(highest))
        return TimeGenes(problem=problem, base=base, grid=grid)

    @property
    def own(self) -> Genes:
        """Those of the base."""
        return self.indices(self.base)

    def fit(self, schedule: Schedule) -> bool:
        """Whether ``schedule`` differs from the base in nothing but times."""
        return self._frame(schedule) == self._frame(self.base)

    @staticmethod
    def _frame(schedule: Schedule) -> tuple[object, ...]:
        denoises = schedule.times[-1] == schedule.process.clean_time
        return schedule.steps, schedule.start, schedule.model_patch, denoises

    def indices(self, schedule: Schedule) -> Genes:
        """The nearest genes of a schedule that fits."""
        times = draft_of(schedule).times[1:]
        return np.array([np.abs(self.grid - t).argmin() for t in times], dtype=np.int64)

    def drawn(self, rng: np.random.Generator) -> Genes:
        """Different genes, drawn uniformly."""
        return np.sort(rng.choice(_N_GRID, len(self.own), replace=False))

    def mutated(self, genes: Genes, rate: float, rng: np.random.Generator) -> Genes:
        """Some genes drawn anew."""
        redrawn = rng.random(len(genes)) < rate
        return np.sort(np.where(redrawn, rng.integers(_N_GRID, size=len(genes)), genes))

    def crossed(self, a: Genes, b: Genes, rng: np.random.Generator) -> Genes:
        """Each gene from either parent."""
        return np.sort(np.where(rng.random(len(a)) < 0.5, a, b))

    def schedule(self, genes: Genes) -> Schedule:
        """The base at these times, moved apart where they are too near."""
        draft = draft_of(self.base)
        draft.times[1:] = self.grid[genes].tolist()
        settle_times(self.problem, draft)
        clean = (self.base.process.clean_time,) if draft.denoises else ()
        return self.base.changed(times=(*draft.times, *clean), provenance={})


@lru_cache(maxsize=8)
def _grid(process: NoiseProcess, cleanest: float) -> npt.NDArray[np.float64]:
    """The times that a gene can stand for, without the noisy end."""
    times = spaced(process, noisy_time(process), cleanest, _N_GRID, Spacing.UNIFORM)
    return np.array(times[1:])
