"""Where a search measures: what it may ask for, in batches, and what it is told.

A search is a plain function of a lab: it decides on a batch, asks, and gets the answers in the
order of its questions, whichever worker was faster; or it begins some trials, waits for the first
of them, and begins another.  So with one seed the same batches are asked
for on any number of workers; a killed search is run again from its beginning, and the lab answers
from the database whatever it was asked before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from s3search.schedules.schedule import Schedule
from s3search.search.proposer import Proposal, StoredObservation

Array = npt.NDArray[np.float64]
Race = tuple[tuple[int, float], ...]
"""(images, bar): a schedule whose distance of so many images is above the bar stops there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A schedule to measure on the noise of the search."""

    schedule: Schedule
    origin: str
    parents: tuple[str, ...] = ()
    race: Race = ()
    number: int | None = None  # of the proposal; None: the next one, if the schedule is new


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What became of a trial: ``value`` is None where it failed or left the race.

    ``path`` holds its distances at the bars of the race; ``n_images`` is what it cost.
    """

    schedule: Schedule
    value: float | None
    n_images: int
    path: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a proxy costs, in images of the schedules' own number of calls."""

    images: float = 0.0  # for each schedule
    once: float = 0.0  # for the first


class Lab(Protocol):
    """Measures in batches; budgets are in images, published solvers included."""

    @property
    def n_images(self) -> int:
        """Images of a whole measurement."""

    def budget(self) -> float:
        """Images that the search may spend in all, forward and backward calls alike."""

    def is_over(self) -> bool:
        """Whether a budget of time is spent."""

    def recorded(self, number: int) -> Proposal | None:
        """The proposal of this number if an earlier run of the study made it."""

    def observed(self, number: int) -> StoredObservation | None:
        """The same if its result is known too and the search itself made it, its schedule unread:
        so tens of thousands are told again in seconds.
        """

    def vetoed(self) -> frozenset[str]:
        """Ids of the schedules that a person has rejected by now: to the search they are such that
        did not work.
        """

    def vetoed_here(self) -> frozenset[str]:
        """The same; but a search that is run again from its beginning is told at each of its
        points, which are where it has begun or rescored more, what it was told there before.
        """

    def measure(self, trials: Sequence[Trial]) -> list[Measured]:
        """Measures on the search's noise."""

    def begin(self, trials: Sequence[Trial]) -> None:
        """The first half of `measure`: the workers may start, and the search goes on."""

    def wait(self, schedule: Schedule) -> Measured:
        """The second half, for one of the schedules that were begun."""

    def rescore(self, schedules: Sequence[Schedule], n_images: int) -> list[float | None]:
        """Distances of ``n_images`` images on noise that neither search nor validation uses."""

    def scores(self, proxy: str, schedules: Sequence[Schedule]) -> Array:
        """One proxy's scores, nan where there is none."""

    def price(self, proxy: str, nfe: int) -> Price:
        """What one proxy's scores of schedules with ``nfe`` calls cost."""

    def polish(
        self, schedules: Sequence[Schedule], *, iterations: int, n_images: int, seed: int
    ) -> list[Schedule | None]:
        """The schedules after gradient descent; None where it failed."""

    def note(self, kind: str, content: Mapping[str, object]) -> None:
        """Keeps a record for people: what a proxy earned, what the predictor was worth."""
