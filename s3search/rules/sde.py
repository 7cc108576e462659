r"""Taylor steps of the reverse SDE: SDE-DPM-Solver, its ++ form, and what is built like them.

    s, t     start point and target;  h = lam_t - lam_s;  f the prediction as a function of lam
    d        rho_d <= rho_t, where the noise of the step begins (`s3search.rules.noise`)
    H        lam_d - lam_s: h where there is no noise, (1 + eta) h for kind `sde`

    data:    x_t = (sigma_d / sigma_s) x_s + alpha_t sum_{k<n} h^k H phi_{k+1}(-H) f^(k)
                   + sqrt(sigma_t^2 - sigma_d^2) xi
    noise:   x_t = (alpha_t / alpha_s) x_s - (1 + eta) sigma_t sum_{k<n} h^{k+1} phi_{k+1}(h) f^(k)
                   + sigma_t sqrt(eta (e^{2h} - 1)) xi

Data, kind `sde`: SDE-DPM-Solver++ (arXiv:2211.01095) with k-diffusion's eta, 1 in the
paper.  f^(k) is estimated along lam, and for all of the step: h and not H stands beside it.  With
kind `eta` the state is that of an ancestral step, as in k-diffusion's DPM-Solver++(SDE).  Noise:
SDE-DPM-Solver, for kind `sde` alone.  With eta 0 both are the steps of `s3search.rules.taylor`,
which has the estimates and relaxations too; a relaxation's z is -H for data and h for noise.

A draw stands for what the noise of the SDE adds between two levels.  With ``along_path`` a step
past inner points puts theirs together, as one path does (SEEDS, arXiv:2305.14267): with m the last
inner point that drew,

    I(s, t) = (sigma_t / sigma_m) e^{-eta (lam_t - lam_m)} I(s, m) + I(m, t)          (data)
    I(s, t) = (alpha_t / alpha_m) I(s, m) + I(m, t)                                   (noise)

and only I(m, t) is drawn.  A corrector, which finds the point of its target already there, uses
the predictor's draw again.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from s3search.rules.base import MAX_ORDER, Objection, RuleModel, endless_step, first_order
from s3search.rules.exponential import phi
from s3search.rules.linear_form import FRESH, ZERO, LinearForm, combine
from s3search.rules.noise import NoiseKind, StepNoise
from s3search.rules.points import LINEAR_PREDICTIONS, Index, Level, Point, Prediction
from s3search.rules.relaxation import RelaxationKind
from s3search.rules.taylor import (
    Derivative,
    Taylor,
    derivative_weights,
    relaxations_in_words,
    with_full_estimates,
)

_LONGEST = 1e12
"""From here on the weights are, to rounding, those of an endless H: a step down to rho_d = 0."""

_UNBOUNDED = (RelaxationKind.LINEAR, RelaxationKind.UNIPC_BH1)  # as H grows
_USUAL = StepNoise(kind=NoiseKind.SDE)


class SdeTaylor(RuleModel):
    """One Taylor step of the reverse SDE; see the module's docstring."""

    rule: Literal["sde"] = "sde"
    prediction: Prediction
    order: Index = Field(ge=1, le=MAX_ORDER)
    start: Index = -1
    derivatives: tuple[Derivative, ...] = ()
    noise: StepNoise = _USUAL
    along_path: bool = False

    family: ClassVar = "sde"

    @model_validator(mode="before")
    @classmethod
    def _estimate_fully_by_default(cls, values: Any) -> Any:
        return with_full_estimates(values)

    @model_validator(mode="after")
    def _noise_fits(self) -> Self:
        kind = self.noise.kind
        if self.prediction not in LINEAR_PREDICTIONS:
            raise ValueError("an SDE step extrapolates 'noise' or 'data'")
        if kind is NoiseKind.TIME:
            raise ValueError("noise.kind: an SDE step has an amount of noise, not a time")
        if kind is not NoiseKind.SDE and (self.prediction is Prediction.NOISE or self.along_path):
            what = "a path" if self.along_path else "the noise prediction"
            raise ValueError(f"noise.kind: {what} needs 'sde', found {kind.value!r}")
        return self

    @property
    def plain(self) -> Taylor:
        """The step without noise."""
        return Taylor(
            prediction=self.prediction,
            order=self.order,
            start=self.start,
            derivatives=self.derivatives,
        )

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
    def n_points(self) -> int:
        """As many as the order says."""
        return self.order

    @property
    def extrapolated(self) -> Prediction:
        """The noise or the data."""
        return self.prediction

    @property
    def title(self) -> str:
        """The name in pictures."""
        return "SDE Taylor"

    @property
    def details(self) -> str:
        """The amount of noise, and the relaxations."""
        return ", ".join((self.noise.in_words, *relaxations_in_words(self.derivatives)))

    def corrector(self) -> Self:
        """The corrector of the Taylor step, with the draw of this one."""
        plain = self.plain.corrector()
        changed = {"order": plain.order, "start": plain.start, "derivatives": plain.derivatives}
        return self.model_copy(update=changed)

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """What stands against the Taylor step, and an end without room for noise."""
        found = self.plain.problem(levels, to)
        if found is not None or not self.draws_noise:
            return found
        start = levels[self.start]
        at_end = self.noise.end_problem(to)
        if at_end is not None:
            return Objection(f"noise.{at_end.field}", at_end.message)
        if self.prediction is Prediction.NOISE:
            return endless_step("prediction", start, to)
        used = [each.relaxation.kind for each in self.derivatives if each.relaxation is not None]
        if self.noise.ratio_below(start, to) == 0.0 and any(kind in _UNBOUNDED for kind in used):
            return Objection("derivatives", "this relaxation has no value where all noise is new")
        return None

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formulas of the module's docstring."""
        if not self.noise.amount:
            return self.plain.next_state(history, to)
        is_data = self.prediction is Prediction.DATA
        mean = self._data_mean(history, to) if is_data else self._noise_mean(history, to)
        return mean + self._drawn(history, to) if self.draws_noise else mean

    def _data_mean(self, history: Sequence[Point], to: Level) -> LinearForm:
        start = history[self.start]
        rho_d = self.noise.ratio_below(start.level, to)
        down = Level(to.t, to.alpha, to.alpha * rho_d, -math.log(rho_d) if rho_d else math.inf)
        base = first_order(start, Prediction.DATA, down)
        if self.order == 1:
            return base
        h, big_h = to.lam - start.level.lam, min(down.lam - start.level.lam, _LONGEST)
        factors = [
            to.alpha * h**d * big_h * phi(d + 1, -big_h)
            for d in range(1, len(self.derivatives) + 1)
        ]
        return base + self._extrapolated(history, factors, big_h)

    def _noise_mean(self, history: Sequence[Point], to: Level) -> LinearForm:
        start = history[self.start]
        h, more = to.lam - start.level.lam, 1.0 + self.noise.amount
        factors = [-more * to.sigma * h ** (d + 1) * phi(d + 1, h) for d in range(self.order)]
        own = start.predicted(Prediction.NOISE)
        base = combine(((to.alpha / start.level.alpha, start.state), (factors[0], own)))
        return base + self._extrapolated(history, factors[1:], h)

    def _extrapolated(
        self, history: Sequence[Point], factors: Sequence[float], z: float
    ) -> LinearForm:
        """The derivatives' part, each derivative with its factor; ``z`` is H or h."""
        start, own = history[self.start].level, self.start
        weights: dict[int, float] = {own: 0.0}
        for d, (derivative, plain) in enumerate(
            zip(self.derivatives, factors, strict=True), start=1
        ):
            factor = plain
            if derivative.relaxation is not None:
                factor *= derivative.relaxation.factor(z, self.prediction)
            distances = [history[p].level.lam - start.lam for p in derivative.points]
            for p, a in zip(derivative.points, derivative_weights(d, distances), strict=True):
                weights[p] = weights.get(p, 0.0) + factor * a
                weights[own] -= factor * a
        return combine((w, history[p].predicted(self.prediction)) for p, w in weights.items() if w)

    def _drawn(self, history: Sequence[Point], to: Level) -> LinearForm:
        """What the step adds of noise: its own draw, and those of inner points on its way."""
        newest = history[-1]
        is_corrector = newest.level == to
        own = newest.noise if is_corrector and newest.noise is not None else LinearForm.of(FRESH)
        begin, total = history[self.start].level, ZERO
        passed = history[len(history) + self.start + 1 : len(history) - is_corrector]
        for point in passed if self.along_path else ():
            if point.noise is not None:
                total = total * self._kept(begin, point.level) + point.noise * self._added(
                    begin, point.level
                )
                begin = point.level
        return total * self._kept(begin, to) + own * self._added(begin, to)

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
        sigma_d = to.alpha * self.noise.ratio_below(begin, to)
        return self.noise.weight(Level(to.t, to.alpha, sigma_d, math.inf), to)
