r"""What steps of the reverse SDE have in common: how far the state falls, and what is drawn.

    s, t     start point and target;  h = lam_t - lam_s;  f the prediction as a function of lam
    d        rho_d <= rho_t, where the noise of the step begins (`s3search.rules.noise`)
    H        lam_d - lam_s: h where there is no noise, (1 + eta) h for kind `sde`

With f = sum_k f^(k) (lam - lam_s)^k / k! over the step, the variation of constants is

    data:    x_t = (sigma_d / sigma_s) x_s + alpha_t sum_k h^k H phi_{k+1}(-H) f^(k)
                   + sqrt(sigma_t^2 - sigma_d^2) xi
    noise:   x_t = (alpha_t / alpha_s) x_s - (1 + eta) sigma_t sum_k h^{k+1} phi_{k+1}(h) f^(k)
                   + sigma_t sqrt(eta (e^{2h} - 1)) xi

Noise predictions go with kind `sde` alone.  A draw stands for what the noise of the SDE adds
between two levels.  Those of inner points m of the step can be put together, as they are of one
path,

    I(s, t) = (sigma_t / sigma_m) e^{-eta (lam_t - lam_m)} I(s, m) + I(m, t)          (data)
    I(s, t) = (alpha_t / alpha_m) I(s, m) + I(m, t)                                   (noise)

and only I(m, t) of the last is drawn.  A corrector, which finds the point of its target already
there, uses the predictor's draw again.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import model_validator

from s3search.rules.base import Objection, RuleModel, endless_step
from s3search.rules.exponential import phi
from s3search.rules.linear_form import FRESH, ZERO, LinearForm, combine
from s3search.rules.noise import NoiseKind, StepNoise
from s3search.rules.points import LINEAR_PREDICTIONS, Index, Level, Point, Prediction

_LONGEST = 1e12
"""From here on the weights are, to rounding, those of an endless H: a step down to rho_d = 0."""


class ReverseSdeRule(RuleModel):
    """A step from ``start`` with ``noise``, along the ``prediction``."""

    prediction: Prediction
    start: Index = -1
    noise: StepNoise = StepNoise(kind=NoiseKind.SDE)

    family: ClassVar = "sde"

    @model_validator(mode="after")
    def _noise_fits(self) -> Self:
        kind = self.noise.kind
        if self.prediction not in LINEAR_PREDICTIONS:
            raise ValueError("an SDE step extrapolates 'noise' or 'data'")
        if kind is NoiseKind.TIME:
            raise ValueError("noise.kind: an SDE step has an amount of noise, not a time")
        if kind is not NoiseKind.SDE and self.prediction is Prediction.NOISE:
            raise ValueError(f"noise.kind: the noise prediction needs 'sde', found {kind.value!r}")
        return self

    @property
    def draws_noise(self) -> bool:
        """Whether there is any."""
        return self.noise.amount > 0.0 and self.noise.scale > 0.0

    @property
    def carries_constants(self) -> bool:
        """Whether noise and data keep their variance: noise predictions are not constant along the
        SDE, nor is a state with more or less noise than its level's.
        """
        is_exact = self.prediction is Prediction.DATA and self.noise.keeps_variance
        return self.noise.amount == 0.0 or is_exact

    @property
    def extrapolated(self) -> Prediction:
        """The noise or the data."""
        return self.prediction

    def noise_problem(self, start: Level, to: Level) -> Objection | None:
        """What makes the noise impossible between these levels."""
        if not self.draws_noise:
            return None
        found = self.noise.end_problem(to)
        if found is not None:
            return Objection(f"noise.{found.field}", found.message)
        if self.prediction is Prediction.NOISE:
            return endless_step("prediction", start, to)
        return None

    def length(self, start: Level, to: Level) -> float:
        """H for the data, h for the noise."""
        if self.prediction is Prediction.NOISE:
            return to.lam - start.lam
        rho_d = self._ratio_below(start, to)
        return min(-math.log(rho_d) - start.lam, _LONGEST) if rho_d else _LONGEST

    def carried(self, start: Level, to: Level) -> float:
        """The weight of the state that the step begins with."""
        if self.prediction is Prediction.NOISE:
            return to.alpha / start.alpha
        return to.alpha * self._ratio_below(start, to) / start.sigma

    def factors(self, start: Level, to: Level, n: int) -> list[float]:
        """The weights of f^(0) .. f^(n-1); where a step begins at pure noise only that of f^(0)
        exists, for the data.
        """
        h, z = to.lam - start.lam, self.length(start, to)
        if self.prediction is Prediction.NOISE:
            scale = -(1.0 + self.noise.amount) * to.sigma
            return [scale * h ** (k + 1) * phi(k + 1, h) for k in range(n)]
        whole = to.alpha - start.alpha * self.carried(start, to)  # alpha_t (1 - e^{-H})
        return [whole, *(to.alpha * h**k * z * phi(k + 1, -z) for k in range(1, n))]

    def drawn(
        self, history: Sequence[Point], to: Level, passed: Sequence[Point] = ()
    ) -> LinearForm:
        """What the step adds of noise: its own draw, and those of the points ``passed`` on the
        way.
        """
        newest = history[-1]
        own = LinearForm.of(FRESH)
        if newest.level == to and newest.noise is not None:
            own = newest.noise
        begin, total = history[self.start].level, ZERO
        for point in passed:
            if point.noise is not None and point.level != to:
                total = combine(
                    (
                        (self._kept(begin, point.level), total),
                        (self._added(begin, point.level), point.noise),
                    )
                )
                begin = point.level
        if not total.terms:
            return own * self._added(begin, to)
        return combine(((self._kept(begin, to), total), (self._added(begin, to), own)))

    def _ratio_below(self, start: Level, to: Level) -> float:
        if self.noise.amount == 0.0:
            return to.sigma / to.alpha
        return self.noise.ratio_below(start, to)

    def _kept(self, begin: Level, to: Level) -> float:
        """What is left at ``to`` of noise that stands in the state at ``begin``."""
        if self.prediction is Prediction.NOISE:
            return to.alpha / begin.alpha
        return to.sigma / begin.sigma * math.exp(self.noise.amount * (begin.lam - to.lam))

    def _added(self, begin: Level, to: Level) -> float:
        """The weight of a unit draw for the way between two levels."""
        if self.prediction is Prediction.NOISE:
            growth = self.noise.amount * math.expm1(2.0 * (to.lam - begin.lam))
            return self.noise.scale * to.sigma * math.sqrt(growth)
        sigma_d = to.alpha * self._ratio_below(begin, to)
        return self.noise.weight(Level(to.t, to.alpha, sigma_d, math.inf), to)
