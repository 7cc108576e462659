"""What a schedule says of itself to people."""

from importlib import import_module
from typing import Any


class InWords:
    """The words and the picture of a schedule; what makes them stands in rooms above it."""

    @property
    def tied_to(self: Any) -> tuple[str, ...]:
        """What of the data, a resolution or a model this schedule holds for alone; most hold for
        any images of their process.
        """
        found = []
        if self.start.image is not None:
            found.append(f"the mean image of the data, {_size(self.start.image)}")
        if self.start.jump is not None:
            found.append(f"a Gaussian of the data, {_size(self.start.jump.mean)} (its jump)")
        if self.statistics is not None:
            found.append(f"EMS statistics {self.statistics.digest[:8]} of one model (v3 steps)")
        return tuple(found)

    def describe(self) -> str:
        """The schedule in words that a sampler's user knows, a line for each thing to be said."""
        return str(import_module("s3search.schedules.describing").described(self))

    def plot(self, title: str = "") -> Any:
        """A matplotlib figure: noise levels over the steps, and the choice made at each."""
        return import_module("s3search.show.pictures").schedule_figure(self, title)

    def __repr__(self: Any) -> str:
        """One line: id, process, network calls, solver."""
        solver = import_module("s3search.schedules.describing").solver_name(self)
        calls = f"{self.nfe} network calls"
        return f"<Schedule {self.id[:8]}: {self.process.type}, {calls}, {solver or 'mixed steps'}>"

    __str__ = __repr__


def _size(image: Any) -> str:
    """Such as "3 x 32 x 32"."""
    sides, inner = [], image
    while isinstance(inner, tuple | list):
        sides.append(str(len(inner)))
        inner = inner[0]
    return " x ".join(sides)
