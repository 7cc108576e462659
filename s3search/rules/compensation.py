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
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from s3search.rules.base import Index, Level, Number, Point, Prediction, Problem, missing_point
from s3search.rules.linear_form import LinearForm, combine


class _Compensation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interpolation(_Compensation):
    """The polynomial of degree ``order`` through the newest predictions, read at ``ratio``."""

    rule: Literal["interpolation"] = "interpolation"
    prediction: Prediction = Prediction.DATA
    ratio: Number
    order: Index = Field(default=2, ge=1, le=3)

    def problem(self, levels: Sequence[Level]) -> Problem | None:
        """It needs one point more than its order."""
        if self.order < len(levels):
            return None
        return Problem(
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


class EarlierCall(_Compensation):
    """The noise prediction moved by ``coefficient`` times its distance from that of ``point``."""

    rule: Literal["earlier_call"] = "earlier_call"
    point: Index
    coefficient: Number

    def problem(self, levels: Sequence[Level]) -> Problem | None:
        """The point must exist and be older than the newest."""
        if self.point == -1:
            return Problem("point", "point -1 is the one that is compensated; name an earlier one")
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
