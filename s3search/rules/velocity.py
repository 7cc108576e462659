r"""Steps in the time of a path: flow matching's velocity and EDM's general schedules.

A path has its own time, noise-to-signal ratio r(t) and scale a(t) (arXiv:2206.00364, eq. 4 and
81, s = a, sigma = r):

    z = a x / alpha,    dz/dt = a'(t) D + (a r)'(t) eps

    clock   linear r = t     ve r = sqrt(t)     vp log(1 + r^2) = beta_d t^2 / 2 + beta_min t
            flow r = t / (1 - t)
    scale   none a = 1       vp a = (1 + r^2)^(-1/2)      flow a = 1 / (1 + r) = 1 - t

    z_t = z_s + sum_j w_j f_j,    f_j = dz/dt at point j

w integrates the polynomial in t through the points (Euler, Heun's corrector, variable-step
Adams); ``weights``, which sum to 1, give w_j / (t - s) instead, as Runge-Kutta stages need them.

For the flow f is u = eps - D, finite from pure noise (alpha = 0) on, and a constant image and
noise are carried exactly: the path is a straight line.  On a curved path they are not, in any
scaling: that is what EDM's sampler gains by r = t.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import model_validator

from s3search.processes import Flow, NoiseProcess
from s3search.rules.adams import integrated_basis
from s3search.rules.base import Objection, missing_points
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.points import Level, Number, Part, Point, Prediction
from s3search.rules.searched import Limits, MultistepRule
from s3search.rules.slope import check_mean


class Clock(StrEnum):
    """The ratio r(t)."""

    LINEAR = "linear"
    VE = "ve"
    VP = "vp"
    FLOW = "flow"


class Scale(StrEnum):
    """The scale a(t)."""

    NONE = "none"
    VP = "vp"
    FLOW = "flow"


class NoisePath(Part):
    """r(t) and a(t); ``beta_d`` and ``beta_min`` belong to the clock `vp`."""

    clock: Clock = Clock.FLOW
    scale: Scale = Scale.FLOW
    beta_d: Number = 19.9
    beta_min: Number = 0.1

    @model_validator(mode="after")
    def _flow_is_one_path(self) -> "NoisePath":
        if (self.clock is Clock.FLOW) != (self.scale is Scale.FLOW):
            raise ValueError("scale: the clock 'flow' has the scale 'flow', and no other has it")
        return self

    @property
    def is_straight(self) -> bool:
        """Whether a and a r are linear in t."""
        return self.clock is Clock.FLOW or (self.clock, self.scale) == (Clock.LINEAR, Scale.NONE)

    def time(self, at: Level) -> float:
        """The path's time at a level."""
        if self.clock is Clock.FLOW:
            return at.sigma / (at.sigma + at.alpha)
        r = at.sigma / at.alpha
        match self.clock:
            case Clock.LINEAR:
                return r
            case Clock.VE:
                return r * r
            case Clock.VP:
                b, d = self.beta_min, self.beta_d
                if r == 0.0:
                    return 0.0  # a beta_min < 0 makes a second time without noise, -2 b / d
                return (math.sqrt(b * b + 2.0 * d * math.log1p(r * r)) - b) / d

    def ratio(self, t: float) -> float:
        """The ratio of noise to signal at a time of the path, r(t) = sigma / alpha."""
        match self.clock:
            case Clock.LINEAR:
                return t
            case Clock.VE:
                return math.sqrt(t)
            case Clock.VP:
                return math.sqrt(math.expm1(0.5 * self.beta_d * t * t + self.beta_min * t))
            case Clock.FLOW:
                return t / (1.0 - t)

    def levels(self, at: Level) -> tuple[float, float]:
        """a and a r at a level."""
        norm = math.hypot(at.alpha, at.sigma)
        match self.scale:
            case Scale.NONE:
                return 1.0, at.sigma / at.alpha
            case Scale.VP:
                return at.alpha / norm, at.sigma / norm
            case Scale.FLOW:
                return at.alpha / (at.alpha + at.sigma), at.sigma / (at.alpha + at.sigma)

    def rates(self, at: Level) -> tuple[float, float]:
        """da/dt and d(a r)/dt at a level with noise."""
        if self.clock is Clock.FLOW:
            return -1.0, 1.0
        r = at.sigma / at.alpha
        match self.clock:
            case Clock.LINEAR:
                rate = 1.0
            case Clock.VE:
                rate = 0.5 / r
            case Clock.VP:
                rate = 0.5 * (self.beta_min + self.beta_d * self.time(at)) * (r + 1.0 / r)
        if self.scale is Scale.NONE:
            return 0.0, rate
        a3 = (1.0 + r * r) ** -1.5  # d(a r)/dr; da/dr = -r a^3
        return -r * a3 * rate, a3 * rate


class Velocity(MultistepRule):
    """One step from ``start`` through the velocities at ``points``, in the path's time."""

    rule: Literal["velocity"] = "velocity"
    weights: tuple[Number, ...] | None = None
    path: NoisePath = NoisePath()

    solver: ClassVar = "velocity"

    @model_validator(mode="after")
    def _weights_fit(self) -> "Velocity":
        if self.weights is not None and len(self.weights) != len(self.points):
            raise ValueError(f"weights: {len(self.points)} points, {len(self.weights)} weights")
        if self.weights is not None:
            check_mean("weights", self.weights)
        return self

    @property
    def carries_constants(self) -> bool:
        """Only a straight path keeps a constant image and noise."""
        return self.path.is_straight

    @property
    def mixes_predictions(self) -> bool:
        """A velocity is eps minus D, each scaled."""
        return True

    @classmethod
    def exists_for(cls, process: NoiseProcess) -> bool:
        """Whether the process is a flow."""
        return isinstance(process, Flow)

    @property
    def is_plain(self) -> bool:
        """Whether it is a step of Adams in a flow's time."""
        return super().is_plain and self.weights is None and self.path == NoisePath()

    def is_allowed(self, limits: Limits, to: Level) -> bool:
        """Whether the level lies on the straight path of a flow."""
        return abs(to.alpha + to.sigma - 1.0) < 1e-9

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist; the path needs a finite ratio at all of them unless it is the
        flow's.
        """
        found = missing_points(self.start, self.points, len(levels))
        if found is None and self.path.clock is not Clock.FLOW:
            used = (levels[p] for p in (self.start, *self.points))
            if any(at.alpha == 0.0 for at in used):
                return Objection("path", "has no value at pure noise (alpha = 0); only 'flow' has")
        return found

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        path, start = self.path, history[self.start]
        first, last = path.time(start.level), path.time(to)
        if self.weights is None:
            places = [path.time(history[p].level) for p in self.points]
            weights = integrated_basis(places, first, last)
        else:
            weights = [(last - first) * weight for weight in self.weights]
        out = 1.0 / self._scaling(to)
        terms = [(out * self._scaling(start.level), start.state)]
        for p, weight in zip(self.points, weights, strict=True):
            rate_a, rate_s = path.rates(history[p].level)
            terms.append((out * weight * rate_a, history[p].data))
            terms.append((out * weight * rate_s, history[p].predicted(Prediction.NOISE)))
        return combine(terms)

    def _scaling(self, at: Level) -> float:
        """z / x; through the norms, which exist where alpha = 0."""
        return math.hypot(*self.path.levels(at)) / math.hypot(at.alpha, at.sigma)
