"""Whether more of a metric is better, and the losses that a search compares by.

A search knows losses alone, of which the lower is the better: the value of a metric that is
minimised, as a distance is, and minus the value of one that is maximised, as most scores are.
Values as people and databases know them keep their sign.
"""

from collections.abc import Iterable
from enum import StrEnum


class Direction(StrEnum):
    """What is done to a metric."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    def loss(self, value: float) -> float:
        """The loss of a value, or the value of a loss: the map is its own inverse."""
        return value if self is Direction.MINIMIZE else -value

    def best(self, values: Iterable[float]) -> float | None:
        """The best of some values; None without one."""
        return min(values, key=self.loss, default=None)

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another one."""
        return self.loss(value) < self.loss(other)
