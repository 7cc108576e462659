"""A search of one trial after the other: a proposer that is told what was measured.

A `Proposer` is a pure function of its seed, the number of the trial, the measurements it was told
in their order, and what is being measured right now.  It saves nothing: after

    evolution.tell(measurement of s0, number 0, value 0.31)
    evolution.tell(measurement of s2, number 2, failed)

the state of `Evolution` is: the plan keys of {s0, s2} as seen, and the population of s0's nfe,
[(0.31, 0, s0)]; ``propose(3, pending=[s1])`` draws from ``default_rng([seed, 3])``, so it gives
the same trial in every process that was told the same.

What a person vetoes is to the proposer a schedule that was measured in vain: the proposer is made
anew and told all that it had been told, in the same order, without the values of the vetoed.  So
the next trials are those of a search in which they never worked; what is under way is kept as it
is.

A value is a distance: lower is better.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol

import numpy as np

from s3search.search.conversation import Conversation, Setup, Talk, unvalued
from s3search.search.edit.draft import random_schedule
from s3search.search.questions import Measurement
from s3search.search.trial import Trial, distinct, schedule_key, searched


class Proposer(Protocol):
    """What makes the trials of a `Sequential` search; the contract stands in the module's
    docstring.
    """

    def tell(self, measured: Measurement) -> None:
        """Takes in one measurement; the order of the calls is part of the state."""

    def propose(self, number: int, pending: Sequence[Trial]) -> Trial:
        """The trial of this number, unlike any trial told or pending; changes nothing."""


class Sequential:
    """The seeds' and ``setup.evaluations`` further trials, ``setup.batch`` of them under way.

    Trial k is made when the measurements up to k - ``batch`` have been told, and no others: so the
    trials do not depend on the workers, which always find one waiting.  ``make`` makes the
    proposer, alike every time.
    """

    def __init__(self, setup: Setup, make: Callable[[], Proposer], *, n_seeds: int) -> None:
        self._setup, self._make, self._proposer = setup, make, make()
        self._n_seeds = n_seeds
        self.total = None if setup.evaluations is None else n_seeds + setup.evaluations
        self._talk = Talk()
        self._measured: dict[str, Measurement] = {}
        self._vetoed: frozenset[str] = frozenset()  # of the told

    def images_by_stage(self, budget: float) -> Mapping[str, float]:
        """The images of what is measured, of which the seeds' come on top of the budget."""
        return {"baselines": float(self._n_seeds * self._setup.n_images), "search": budget}

    def run(self) -> Conversation[None]:
        """Searches until the budget is spent."""
        number = 0
        under_way: deque[Trial] = deque()
        yield from self._talk.turn()  # what is known outside
        while True:
            begun: list[Trial] = []
            while len(under_way) + len(begun) < self._setup.batch:
                if self._is_spent(number):
                    break
                trial = yield from self._trial(number, (*under_way, *begun))
                begun.append(trial)
                number += 1
            under_way.extend(begun)
            if not under_way:
                return
            questions = [self._setup.measure(trial) for trial in begun]
            oldest = self._setup.measure(under_way.popleft())
            (measured,) = yield from self._talk.turn(questions, [oldest])
            self._tell(measured)

    def _trial(self, number: int, pending: Sequence[Trial]) -> Conversation[Trial]:
        known = yield from self._talk.recall(number)
        if known is not None:
            return known.trials[0]
        self._respect(self._talk.outside.vetoed)
        return self._proposer.propose(number, pending).numbered(number)

    def _tell(self, measured: Measurement) -> None:
        if measured.trial.id not in self._measured:  # a space of few schedules repeats itself
            self._measured[measured.trial.id] = measured
            self._proposer.tell(measured)

    def _respect(self, vetoed: frozenset[str]) -> None:
        """Makes the proposer one that was told nothing good of the vetoed."""
        vetoed &= self._measured.keys()
        if vetoed == self._vetoed:
            return
        self._vetoed, self._proposer = vetoed, self._make()
        for schedule_id, measured in self._measured.items():
            is_vetoed = schedule_id in vetoed
            self._proposer.tell(unvalued(measured) if is_vetoed else measured)

    def _is_spent(self, number: int) -> bool:
        if number < self._n_seeds:
            return False
        is_last = self.total is not None and number >= self.total
        return is_last or self._talk.outside.is_over


class SeedsFirst(ABC):
    """A proposer that begins with its seeds, in order, and knows which plans were measured or are
    under way; what comes after the seeds is up to `_made`.
    """

    def __init__(self, setup: Setup) -> None:
        self._problem = setup.problem
        self._nfe, self._seed = setup.nfe, setup.seed
        self._seeds = distinct(setup.seeds)
        self._seen: set[bytes] = set()  # keys of plans

    def propose(self, number: int, pending: Sequence[Trial]) -> Trial:
        """The next seed, or what the search makes of the measured."""
        taken = _Either(self._seen, {trial.key for trial in pending})
        for seed in self._seeds:
            if seed.key not in taken:
                return seed.numbered(number)
        return self._made(number, pending, taken)

    @abstractmethod
    def _made(self, number: int, pending: Sequence[Trial], taken: Container[bytes]) -> Trial:
        """The trial of this number, of a plan that is not ``taken`` if the space has one."""

    def _is_new(self, trial: Trial) -> bool:
        """Notes that a trial was measured; whether its plan was not before."""
        before = len(self._seen)
        self._seen.add(trial.key)
        return len(self._seen) > before

    def _turn(self, number: int) -> tuple[int, np.random.Generator]:
        """The number of calls whose turn it is, and the random numbers of this trial."""
        rng = np.random.default_rng([self._seed, number])
        return self._nfe[number % len(self._nfe)], rng

    def _random(
        self,
        number: int,
        nfe: int,
        rng: np.random.Generator,
        taken: Container[bytes],
        tries: int = 1,
    ) -> Trial:
        """A random schedule of the space, after so many ``tries`` perhaps of a plan taken."""
        for _ in range(tries):
            schedule = random_schedule(self._problem, nfe, rng)
            if schedule_key(schedule) not in taken:
                break
        return Trial.of(schedule, searched("random"), number=number)


def finite_loss(measured: Measurement) -> tuple[float, int, Trial] | None:
    """A measured trial as it is ranked, by loss and number; None where it was in vain."""
    loss, trial = measured.loss, measured.trial
    if loss is None or not math.isfinite(loss):
        return None
    return loss, trial.number or 0, trial


class _Either(Container[bytes]):
    """Two sets as one; the first grows with the study and is not copied."""

    def __init__(self, *sets: set[bytes]) -> None:
        self._sets = sets

    def __contains__(self, key: object) -> bool:
        return any(key in each for each in self._sets)
