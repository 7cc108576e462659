r"""BDIA: a step averaged over two directions of time (arXiv:2307.10829, eq. 17).

    x_t = g x_r + DDIM(s -> t) - g DDIM(s -> r)

r is the point before s: what DDIM would have made of going back there is compared with the state
that really was there.  g = 0 is DDIM; g = 1 is exactly reversible and, in rho = sigma / alpha, the
leapfrog y_t = y_r + (rho_t - rho_r) eps_s, of order two on equal steps.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from s3search.rules.base import Objection, first_order, missing_point
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.points import Index, Level, Number, Point, Prediction
from s3search.rules.searched import SearchedRule


class Bidirectional(SearchedRule):
    """One BDIA step from ``start``, with the state at ``previous`` weighted by ``gamma``."""

    rule: Literal["bidirectional"] = "bidirectional"
    gamma: Number = Field(ge=0, le=1)
    start: Index = -1
    previous: Index = -2

    solver: ClassVar = "bdia"
    ranges: ClassVar = {"gamma": (0.0, 1.0)}

    @property
    def n_points(self) -> int:
        """One: the step back is compared with a state, not with a prediction."""
        return 1

    @property
    def is_plain(self) -> bool:
        """Whether the two points are the newest."""
        return (self.start, self.previous) == (-1, -2)

    @property
    def plain_order(self) -> int:
        """Two, for it needs two points."""
        return 2

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """Both points must exist and differ."""
        return missing_point("start", (self.start,), len(levels)) or missing_point(
            "previous", (self.start, self.previous), len(levels)
        )

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        start, previous = history[self.start], history[self.previous]
        back = first_order(start, Prediction.NOISE, previous.level)
        ahead = first_order(start, Prediction.NOISE, to)
        return combine(((self.gamma, previous.state), (-self.gamma, back), (1.0, ahead)))
