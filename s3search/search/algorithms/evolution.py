"""Evolution of schedules, steady-state, one population per number of network calls.

As in USF (arXiv:2312.07243, app.): parents are drawn from the best ``rank_bar``, crossed with some
probability and mutated.  On top of that: it starts from given schedules (tuned published solvers),
never proposes a plan twice, and a child of one nfe may come from the population of a
neighbouring nfe by inserting or removing steps.
"""

from bisect import insort
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from s3search.errors import InvalidConfig
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.sequential import SeedsFirst, finite_loss
from s3search.search.conversation import Setup
from s3search.search.edit.draft import random_schedule
from s3search.search.edit.variation import crossover, migrate, mutate
from s3search.search.questions import Measurement
from s3search.search.trial import Trial, schedule_key, searched

_TRIES = 30  # draws until a proposal is new; a space smaller than this repeats itself


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionSettings:
    """How parents are chosen; the probabilities are per proposal."""

    rank_bar: int = 15  # parents are among the best so many of their nfe
    tournament: int = 3  # a parent is the best of so many drawn
    crossover: float = 0.3
    crossover_mutates: float = 0.5  # a crossed child is mutated as well
    random: float = 0.05
    migration: float = 0.1  # the parent comes from a neighbouring nfe

    def __post_init__(self) -> None:
        if self.rank_bar < 1 or self.tournament < 1:
            raise InvalidConfig(
                f"search: rank_bar and tournament must be at least 1, "
                f"found {self.rank_bar}, {self.tournament}"
            )
        for name in ("crossover", "crossover_mutates", "random", "migration"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidConfig(
                    f"search.{name}: must be a probability, found {getattr(self, name)}"
                )


Population = list[tuple[float, int, Trial]]
"""(value, number, trial) of possible parents of one nfe, the best first."""

Populations = dict[int, Population]
"""By nfe."""


def insert(populations: Populations, measured: Measurement, *, most: int) -> None:
    """Puts a measured trial that worked in its place among the best ``most``."""
    found = finite_loss(measured)
    if found is not None:
        population = populations.setdefault(measured.trial.nfe, [])
        insort(population, found, key=lambda m: m[:2])
        del population[most:]


class RandomSearch(SeedsFirst):
    """The seeds, then random schedules of the space; the numbers of calls take turns."""

    def tell(self, measured: Measurement) -> None:
        """Remembers that the schedule was measured."""
        self._is_new(measured.trial)

    def _made(self, number: int, pending: Sequence[Trial], taken: Container[bytes]) -> Trial:
        return self._random(number, *self._turn(number), taken, _TRIES)


class Evolution(SeedsFirst):
    """Steady-state evolution; the module's docstring says how, `EvolutionSettings` how much."""

    def __init__(self, setup: Setup, settings: EvolutionSettings | None = None) -> None:
        super().__init__(setup)
        self._settings = settings or EvolutionSettings()
        self._populations: Populations = {}

    def tell(self, measured: Measurement) -> None:
        """Remembers the schedule; a finite loss makes it a possible parent.  Where the winner is
        to be a list for a solver, what is none would crowd the lists out, and is not.
        """
        trial = measured.trial
        if not self._is_new(trial) or not trial.is_for(self._problem.process):
            return
        if self._problem.listed and not self._problem.can_run(trial.schedule):
            return
        insert(self._populations, measured, most=self._settings.rank_bar)

    def _made(self, number: int, pending: Sequence[Trial], taken: Container[bytes]) -> Trial:
        nfe, rng = self._turn(number)
        for _ in range(_TRIES):
            schedule, origin, parents = self.child(nfe, rng)
            if schedule_key(schedule) not in taken:
                break
        return Trial.of(schedule, searched(origin), parents, number)

    def child(self, nfe: int, rng: np.random.Generator) -> tuple[Schedule, str, tuple[str, ...]]:
        """A child of what was told, its origin in words and its parents' ids; may be known."""
        own, settings = self._populations.get(nfe, []), self._settings
        others = self._neighbours(nfe)
        draw = rng.random()
        if (not own and not others) or draw < settings.random:
            return random_schedule(self._problem, nfe, rng), "random", ()
        if others and (not own or draw < settings.random + settings.migration):
            parent = self._parent(others[int(rng.integers(len(others)))], rng)
            child = migrate(self._problem, parent, nfe, rng)
            if own and rng.random() < 0.5:
                child = mutate(self._problem, child, rng)
            return child, f"migration from nfe {parent.nfe}", (parent.id,)
        a = self._parent(own, rng)
        if len(own) > 1 and rng.random() < settings.crossover:
            b = self._parent(own, rng)
            if a is not b:
                child = crossover(self._problem, a, b, rng)
                if rng.random() < settings.crossover_mutates:
                    child = mutate(self._problem, child, rng)
                return child, "crossover", (a.id, b.id)
        return mutate(self._problem, a, rng), "mutation", (a.id,)

    def _parent(self, population: Population, rng: np.random.Generator) -> Schedule:
        """The winner of a tournament among the best ``rank_bar``, which is all there are."""
        winner = int(rng.integers(len(population), size=self._settings.tournament).min())
        return population[winner][2].schedule

    def _neighbours(self, nfe: int) -> list[Population]:
        """The populations of the nearest lower and higher nfe that hold anything."""
        lower = [other for other in self._populations if other < nfe]
        higher = [other for other in self._populations if other > nfe]
        nearest = [*([max(lower)] if lower else []), *([min(higher)] if higher else [])]
        return [self._populations[other] for other in nearest]
