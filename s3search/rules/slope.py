r"""Steps along a mean slope whose weights are given as numbers.

    rho = sigma / alpha,   y = x / alpha,   dy / drho = eps

    x_t / alpha_t = x_s / alpha_s + (rho_t - rho_s) sum_j w_j e_j,    sum_j w_j = 1

e_j is the noise prediction at a point or, for a ``secant``, (y_p - y_s) / (rho_p - rho_s): the
slope that led from the start to the state at p.  A Runge-Kutta method that evaluates one level
twice needs it, since the second call replaces the first in the history.

With the constants of Adams and Bashforth this is iPNDM (arXiv:2204.13902, app. B) and PLMS
(arXiv:2202.09778, eq. 12); with (1 - 1/(2r), 1/(2r)) the two-stage step of DPM-Solver-2 in EDM's
form; with the row of a Butcher tableau, divided by its sum, a stage of rhoRK (arXiv:2204.13902,
sec. 3.2).  Given weights keep their order on the steps they were made for only.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from s3search.rules.base import Objection, along, first_order, missing_point, noisy_point
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.momentum import adams_bashforth
from s3search.rules.points import Index, Level, Number, Part, Point, Prediction
from s3search.rules.searched import Limits, SearchedRule

_SUM_TOLERANCE = 1e-9


class SlopeTerm(Part):
    """One slope of the mean: the prediction at ``point``, or the secant to the state there."""

    point: Index
    weight: Number
    secant: bool = False


class Slope(SearchedRule):
    """One step from ``start`` along the mean of ``terms``; by default Euler's."""

    rule: Literal["slope"] = "slope"
    start: Index = -1
    terms: tuple[SlopeTerm, ...] = Field(
        default=(SlopeTerm(point=-1, weight=1.0),), min_length=1, max_length=8
    )

    solver: ClassVar = "ipndm"

    @model_validator(mode="after")
    def _is_a_mean(self) -> "Slope":
        check_mean("terms", [term.weight for term in self.terms])
        return self

    @classmethod
    def equal_steps(cls, points: Sequence[int]) -> Self:
        """The step of Adams and Bashforth for equal steps through ``points``, newest first."""
        weights = adams_bashforth(len(points))
        terms = [SlopeTerm(point=p, weight=w) for p, w in zip(points, weights, strict=True)]
        return cls(terms=tuple(terms))

    @classmethod
    def drawn(
        cls, order: int, prediction: Prediction, limits: Limits, rng: np.random.Generator
    ) -> Self:
        """The step of iPNDM; there is nothing to draw."""
        del prediction, limits, rng
        return cls.equal_steps(range(-1, -order - 1, -1))

    @property
    def n_points(self) -> int:
        """The number of slopes."""
        return len(self.terms)

    @property
    def is_plain(self) -> bool:
        """Whether it is a step of iPNDM of order 2 to 4."""
        n = len(self.terms)
        return 1 < n <= 4 and self == self.with_order(n)

    def with_order(self, order: int) -> Self:
        """The step of iPNDM of that order."""
        return self.equal_steps(range(-1, -order - 1, -1))

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist, and none of them at pure noise unless the step is Euler's."""
        n_points = len(levels)
        secants = tuple(term.point for term in self.terms if term.secant)
        found = (
            missing_point("start", (self.start,), n_points)
            or missing_point("terms", secants, n_points)
            or missing_point("terms", [t.point for t in self.terms if not t.secant], n_points)
        )
        if found is None and self.start in secants:
            found = Objection("terms", f"point {self.start} is the start and has no secant")
        points = (self.start, *(term.point for term in self.terms))
        return found or noisy_point("terms", [levels[p] for p in points], is_euler=self._is_euler)

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        start = history[self.start]
        if self._is_euler:
            return first_order(start, Prediction.NOISE, to)
        terms = [(term.weight, _slope(term, start, history[term.point])) for term in self.terms]
        return along(start, terms, to)

    @property
    def _is_euler(self) -> bool:
        return len(self.terms) == 1 and self.terms[0].point == self.start


def check_mean(field: str, weights: Sequence[float]) -> None:
    """Raises ValueError unless the weights sum to 1."""
    total = math.fsum(weights)
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise ValueError(f"{field}: the weights of a mean sum to 1, these to {total:.12g}")


def _slope(term: SlopeTerm, start: Point, at: Point) -> LinearForm:
    if not term.secant:
        return at.predicted(Prediction.NOISE)
    run = at.level.sigma / at.level.alpha - start.level.sigma / start.level.alpha
    ends = (
        (1.0 / (run * at.level.alpha), at.state),
        (-1.0 / (run * start.level.alpha), start.state),
    )
    return combine(ends)
