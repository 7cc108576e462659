"""A made-up linear solver, as somebody would add one: this module, and a place in the registry."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from s3search.rules.base import Objection, missing_point
from s3search.rules.linear_form import LinearForm
from s3search.rules.points import Index, Level, Number, Point, Prediction
from s3search.rules.searched import SearchedRule


class Extrapolated(SearchedRule):
    """DDIM's step with the data prediction extrapolated by a share ``c`` of its last change."""

    rule: Literal["extrapolated"] = "extrapolated"
    c: Number = 0.5
    start: Index = -1
    previous: Index = -2

    solver: ClassVar = "extrapolated"
    ranges: ClassVar = {"c": (0.0, 1.0)}

    @property
    def n_points(self) -> int:
        """It looks at two predictions."""
        return 2

    @property
    def is_plain(self) -> bool:
        """Whether the two points are the newest."""
        return (self.start, self.previous) == (-1, -2)

    @property
    def extrapolated(self) -> Prediction:
        """The data."""
        return Prediction.DATA

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """Both points must exist and differ."""
        del to
        return missing_point("previous", (self.previous, self.start), len(levels))

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to``."""
        r, s = history[self.previous], history[self.start]
        scale = to.sigma / s.level.sigma
        predicted = s.data + self.c * (s.data - r.data)
        return scale * s.state + (to.alpha - scale * s.level.alpha) * predicted
