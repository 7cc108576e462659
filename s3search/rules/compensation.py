r"""Compensation: the newest prediction is replaced before a step uses it, with no call.

    f_i       the noise or data prediction at point i, the newest; f_{i-1}, ... those before it
    interpolation (DC-Solver, arXiv:2409.03755):
              f_i <- sum_{j<=k} l_j(t') f_{i-j},   t' = rho t_i + (1 - rho) t_{i-1},
              l_j the Lagrange basis on t_i .. t_{i-k}, in the process's own time
    earlier_call (DualFast, arXiv:2506.13058):
              eps_i <- (1 + c) eps_i - c eps_tau,   tau an earlier and so noisier point

Ratio 1 and coefficient 0 change nothing.  What replaces a prediction stays: later steps that look
back, and later compensations, see it.  The weights of both sum to one, so a constant noise and a
constant image are still carried exactly.  The other prediction follows from the same state, D =
(x - sigma eps) / alpha.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from s3search.rules.base import Objection, missing_point
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.points import (
    LINEAR_PREDICTIONS,
    Index,
    Level,
    Number,
    Part,
    Point,
    Prediction,
)
from s3search.rules.searched import Limits, Rng, walked

_HIGHEST_DEGREE = 3


class Compensation(Part):
    """Base of compensations: one number among its fields is drawn and moved."""

    choice: ClassVar[str]
    """The name in ``[space] compensations``."""

    number: ClassVar[str]
    range: ClassVar[str]
    """The name of that number's range."""

    @classmethod
    def drawn(cls, limits: Limits, n_points: int, rng: Rng) -> Self:
        """One with its number drawn uniformly; it may reach back to points that do not exist."""
        raise NotImplementedError

    def fitted(self, limits: Limits, n_points: int) -> Self:
        """The nearest one with a number within the limits and with points that exist."""
        low, high = limits.ranges[self.range]
        value = getattr(self, self.number)
        if low <= value <= high:
            return self
        return self.model_copy(update={self.number: min(max(value, low), high)})

    def moved(self, limits: Limits, rng: Rng) -> Self:
        """The compensation after a small move of its number."""
        value = walked(getattr(self, self.number), limits.ranges[self.range], rng)
        return self.model_copy(update={self.number: value})


class Interpolation(Compensation):
    """The polynomial of degree ``order`` through the newest predictions, read at ``ratio``."""

    rule: Literal["interpolation"] = "interpolation"
    prediction: Prediction = Prediction.DATA
    ratio: Number
    order: Index = Field(default=2, ge=1, le=_HIGHEST_DEGREE)

    choice: ClassVar = "dc"
    number: ClassVar = "ratio"
    range: ClassVar = "dc_ratio"

    @classmethod
    def drawn(cls, limits: Limits, n_points: int, rng: Rng) -> Self:
        """A random compensation of the noise or the data, of any degree."""
        prediction = LINEAR_PREDICTIONS[int(rng.integers(2))]
        order = int(rng.integers(1, _HIGHEST_DEGREE + 1))
        ratio = float(rng.uniform(*limits.ranges[cls.range]))
        return cls(prediction=prediction, ratio=ratio, order=order)

    def fitted(self, limits: Limits, n_points: int) -> Self:
        """The nearest one, of a lower degree where there are too few points."""
        near = super().fitted(limits, n_points)
        if near.order < n_points:
            return near
        return near.model_copy(update={"order": n_points - 1})

    def problem(self, levels: Sequence[Level]) -> Objection | None:
        """It needs one point more than its order."""
        if self.order < len(levels):
            return None
        return Objection(
            "order",
            f"order {self.order} needs {self.order + 1} evaluated points, only {len(levels)} "
            "exist; lower the order or compensate later",
        )

    @property
    def sentence(self) -> str:
        """What it does, in a few words."""
        return f"{self.prediction.value} read at ratio {self.ratio:.4g}"

    def compensated(self, history: Sequence[Point]) -> Point:
        """The newest point with its prediction replaced."""
        used = history[-self.order - 1 :][::-1]
        times = [point.level.t for point in used]
        weights = lagrange_weights(times, self.ratio * times[0] + (1.0 - self.ratio) * times[1])
        form = combine(
            (w, point.predicted(self.prediction)) for w, point in zip(weights, used, strict=True)
        )
        return _with_prediction(history[-1], self.prediction, form)


class EarlierCall(Compensation):
    """The noise prediction moved by ``coefficient`` times its distance from that of ``point``."""

    rule: Literal["earlier_call"] = "earlier_call"
    point: Index
    coefficient: Number

    choice: ClassVar = "dualfast"
    number: ClassVar = "coefficient"
    range: ClassVar = "dualfast_coefficient"

    @classmethod
    def drawn(cls, limits: Limits, n_points: int, rng: Rng) -> Self:
        """Away from the oldest call."""
        coefficient = float(rng.uniform(*limits.ranges[cls.range]))
        return cls(point=-max(n_points, 2), coefficient=coefficient)

    def fitted(self, limits: Limits, n_points: int) -> Self:
        """The nearest one, from the oldest call where its own does not exist."""
        near = super().fitted(limits, n_points)
        if -n_points <= near.point < -1:
            return near
        return near.model_copy(update={"point": -n_points})

    def problem(self, levels: Sequence[Level]) -> Objection | None:
        """The point must exist and be older than the newest."""
        if self.point == -1:
            return Objection(
                "point", "point -1 is the one that is compensated; name an earlier one"
            )
        return missing_point("point", (self.point,), len(levels))

    @property
    def sentence(self) -> str:
        """What it does, in a few words."""
        return f"noise moved by {self.coefficient:+.4g} from point {self.point}"

    def compensated(self, history: Sequence[Point]) -> Point:
        """The newest point with its noise prediction replaced."""
        newest, earlier = (history[p].predicted(Prediction.NOISE) for p in (-1, self.point))
        form = combine(((1.0 + self.coefficient, newest), (-self.coefficient, earlier)))
        return _with_prediction(history[-1], Prediction.NOISE, form)


AnyCompensation = Annotated[Interpolation | EarlierCall, Field(discriminator="rule")]
"""Any compensation, told apart by its ``rule`` key."""

COMPENSATIONS: dict[str, type[Interpolation] | type[EarlierCall]] = {
    each.choice: each for each in (Interpolation, EarlierCall)
}
"""The compensations by their names in ``[space] compensations``."""


def lagrange_weights(nodes: Sequence[float], at: float) -> list[float]:
    """The values at ``at`` of the Lagrange basis on ``nodes``."""
    weights = []
    for j, own in enumerate(nodes):
        weight = 1.0
        for i, other in enumerate(nodes):
            if i != j:
                weight *= (at - other) / (own - other)
        weights.append(weight)
    return weights


def _with_prediction(point: Point, prediction: Prediction, form: LinearForm) -> Point:
    if prediction is Prediction.DATA:
        return replace(point, data=form)
    _, alpha, sigma, _ = point.level
    data = combine(((1.0 / alpha, point.evaluated_at), (-sigma / alpha, form)))
    return replace(point, data=data)
