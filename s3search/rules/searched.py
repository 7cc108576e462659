"""What a rule says of itself that a search is to draw, move and fit into other places.

A search knows the *plain* steps of such a rule: from the newest point -1 through the points
-n .. -1 without gaps, of any order n from `SearchedRule.least_order` on.  Any other step of the
rule, as published solvers may have them, children inherit as it stands or not at all.

At order 1 most rules are DDIM, which Taylor writes, and so they begin at order 2.  Those with a
corrector of their own differ from it at order 1 already.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from s3search.processes import NoiseProcess
from s3search.rules.base import Objection, RuleModel, slopes_problem
from s3search.rules.points import Index, Level, Prediction

Range = tuple[float, float]
"""The lowest and the highest value that a search may choose."""

_WIDTH = 0.15  # one small move of a number, as a share of its range


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a search allows its steps; ``ranges`` are those of the rules' own numbers."""

    process: NoiseProcess
    highest_order: int
    predictions: tuple[Prediction, ...]
    ranges: Mapping[str, Range]


class SearchedRule(RuleModel):
    """A rule whose plain steps a search may draw: unless it says more, steps of one order that
    differ in the numbers of `ranges`.
    """

    solver: ClassVar[str]
    """The name in ``[space] solvers``."""

    least_order: ClassVar[int] = 2

    has_corrector: ClassVar[bool] = False
    """Whether a search gives its steps correctors."""

    ranges: ClassVar[Mapping[str, Range]] = {}
    """The numbers among its fields that are drawn and moved, with their usual ranges."""

    @classmethod
    def exists_for(cls, process: NoiseProcess) -> bool:
        """Whether a search of schedules for ``process`` may draw it."""
        del process
        return True

    @classmethod
    def drawn(
        cls, order: int, prediction: Prediction, limits: Limits, rng: np.random.Generator
    ) -> Self:
        """A plain step of this order, its numbers drawn uniformly."""
        del order, prediction
        return cls.model_validate(
            {name: float(rng.uniform(*limits.ranges[name])) for name in cls.ranges}
        )

    @property
    def is_plain(self) -> bool:
        """Whether this is a step that a search could have drawn."""
        return True

    @property
    def plain_order(self) -> int:
        """The order as a plain step."""
        return self.n_points

    def is_allowed(self, limits: Limits, to: Level) -> bool:
        """Whether a plain step to ``to`` keeps the limits, but for its order."""
        del to
        return all(
            limits.ranges[name][0] <= getattr(self, name) <= limits.ranges[name][1]
            for name in self.ranges
        )

    def with_order(self, order: int) -> Self:
        """The plain step of another order like this one; itself where there is one order."""
        del order
        return self

    def simpler(self, highest_order: int) -> Iterator[Self]:
        """This plain step and those of lower orders, as long as they are none too high."""
        for order in range(min(self.plain_order, highest_order), self.least_order - 1, -1):
            yield self.with_order(order)

    def moved(self, limits: Limits, rng: np.random.Generator) -> Self | None:
        """The step after a small move of one of its numbers, None where it has none."""
        names = tuple(self.ranges)
        if not names:
            return None
        name = names[0] if len(names) == 1 else names[int(rng.integers(len(names)))]
        value = walked(getattr(self, name), limits.ranges[name], rng)
        return self.model_copy(update={name: value})


class MultistepRule(SearchedRule):
    """A rule that is its start and the points whose slopes it combines; all of it is plain where
    the points are the newest.
    """

    start: Index = -1
    points: tuple[Index, ...] = Field(default=(-1,), min_length=1, max_length=4)

    @classmethod
    def drawn(
        cls, order: int, prediction: Prediction, limits: Limits, rng: np.random.Generator
    ) -> Self:
        """The step through the newest points; there is nothing to draw."""
        del prediction, limits, rng
        return cls.model_validate({"points": newest(order)})

    @property
    def n_points(self) -> int:
        """The number of slopes."""
        return len(self.points)

    @property
    def is_plain(self) -> bool:
        """Whether it starts at the newest point and leaves none out."""
        return self.start == -1 and self.points == newest(len(self.points))

    def with_order(self, order: int) -> Self:
        """The step through so many of the newest points."""
        return self.model_copy(update={"points": newest(order)})

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist, and none of them at pure noise unless the step is Euler's."""
        del to
        return slopes_problem(self.start, self.points, levels)


def newest(n: int) -> tuple[int, ...]:
    """The n newest points, oldest first."""
    return tuple(range(-n, 0))


def walked(value: float, limits: Range, rng: np.random.Generator) -> float:
    """``value`` after one step of a random walk within the limits."""
    low, high = limits
    return float(np.clip(value + rng.normal(0.0, _WIDTH * (high - low)), low, high))
