r"""Noise in a step: a deterministic rule goes below the target, fresh noise brings the state up.

In y = x / alpha and rho = sigma / alpha, from rho_s to rho_t through rho_d <= rho_t:

    y_d = what the step's rule makes at rho_d,      y_t = y_d + scale sqrt(rho_t^2 - rho_d^2) xi

xi ~ N(0, I).  With scale 1 the variance is that of the target, whatever rho_d.  Stochastic
samplers of first order, and those of several calls per step, differ in rho_d alone:

    sde        rho_d = rho_t (rho_t / rho_s)^eta: the reverse SDE while D is held, with eta times
               the usual squared diffusion (SDE-DPM-Solver++, arXiv:2211.01095, has 1; SA-Solver,
               arXiv:2309.05019, calls it tau^2)
    eta        rho_d^2 = rho_t^2 - min(rho_t^2, eta^2 rho_t^2 (rho_s^2 - rho_t^2) / rho_s^2)
               DDIM's eta (arXiv:2010.02502, eq. 16; 1 is DDPM), k-diffusion's ancestral steps
    flow_eta   u_d = u_t (1 + (u_t / u_s - 1) eta) with u = sigma / (alpha + sigma), the time of a
               flow: ancestral steps of ComfyUI and LTX-Video
    gamma      rho_d = (1 - gamma) rho_t: 1 is LCM (arXiv:2310.04378), which goes to the clean end
               and back; EDM's churn (arXiv:2206.00364, alg. 2) and AdaSDE have 1 / (1 - gamma) - 1
               for their gamma
    time       rho_d is that of a given time: restart intervals (arXiv:2306.14878), TCD's s
               (arXiv:2402.19159, alg. 2).  Where that is the time the step begins at, the step
               does nothing but add noise, and its time may rise

A later step may use the same draw again (SA-Solver's corrector, SEEDS): see `Point.noise`.
"""

import math
from enum import StrEnum

from pydantic import Field, model_validator

from s3search.processes import NoiseProcess
from s3search.rules.base import Objection
from s3search.rules.points import Level, Number, Part, level

_LEAST_FALL = 1e-9  # of rho^2, u or log rho, over a step whose noise is measured by its fall
_LEAST_RATIO = 1e-12  # of rho_d to rho_t: what is less is all noise


class NoiseKind(StrEnum):
    """What a step's amount of noise is measured by."""

    SDE = "sde"
    ETA = "eta"
    FLOW_ETA = "flow_eta"
    GAMMA = "gamma"
    TIME = "time"


class StepNoise(Part):
    """How much of a step's target is fresh noise; the module's docstring has the formulas.

    ``amount`` is eta >= 0 (of kinds sde, eta and flow_eta), gamma in [0, 1] or a time; ``scale``
    (s_noise) multiplies the noise.
    """

    kind: NoiseKind = NoiseKind.ETA
    amount: Number = 1.0
    scale: Number = Field(default=1.0, ge=0.0)

    @model_validator(mode="after")
    def _is_possible(self) -> "StepNoise":
        if self.kind is not NoiseKind.TIME and self.amount < 0.0:
            raise ValueError(f"amount: {self.kind.value} is at least 0, found {self.amount}")
        if self.kind is NoiseKind.GAMMA and self.amount > 1.0:
            raise ValueError(f"amount: gamma is at most 1, found {self.amount}")
        return self

    @property
    def keeps_variance(self) -> bool:
        """Whether the state gets the variance of its level."""
        return self.scale == 1.0

    def below(self, process: NoiseProcess, start: Level | None, to: Level) -> Level:
        """Where the rule of the step from ``start`` goes before the noise: with the signal of the
        target and the noise of rho_d.
        """
        if self.kind is not NoiseKind.TIME and self.amount == 0.0:
            return to
        if self.kind is NoiseKind.TIME:
            at = level(process, self.amount)
            rho_d = min(to.sigma / to.alpha, at.sigma / at.alpha)
        else:
            rho_d = self.ratio_below(start, to)
        lam = -math.log(rho_d) if rho_d > 0.0 else math.inf
        t = process.time_of_lam(lam) if rho_d > 0.0 else process.clean_time
        return Level(t, to.alpha, to.alpha * rho_d, lam)

    def weight(self, down: Level, to: Level) -> float:
        """What the fresh unit noise is multiplied by, on the way up from ``down``."""
        return self.scale * math.sqrt(max(0.0, to.sigma**2 - down.sigma**2))

    @property
    def in_words(self) -> str:
        """Kind and amount, such as "eta 0.5", and the scale where it is not 1."""
        scale = "" if self.keeps_variance else f", s_noise {self.scale:.3g}"
        return f"{self.kind.value.replace('_', ' ')} {self.amount:.3g}{scale}"

    @staticmethod
    def end_problem(to: Level) -> Objection | None:
        """What makes it impossible to add noise on the way to ``to``."""
        if to.sigma > 0.0 and to.alpha > 0.0:
            return None
        end = "the clean end (sigma = 0)" if to.sigma == 0.0 else "pure noise (alpha = 0)"
        return Objection("kind", f"a step to {end} has no room for fresh noise; remove it")

    def problem(self, process: NoiseProcess, start: Level | None, to: Level) -> Objection | None:
        """What makes it impossible in a step from ``start`` to ``to``, None at a run's start."""
        found = self.end_problem(to)
        if found is not None:
            return found
        if start is None and self.kind not in (NoiseKind.GAMMA, NoiseKind.TIME):
            return Objection("kind", f"{self.kind.value} needs a step; use 'gamma' or 'time'")
        if self.kind is not NoiseKind.TIME:
            return None
        reason = process.check_time(self.amount)
        if reason is not None:
            return Objection("amount", reason)
        at = level(process, self.amount)
        if at.lam < to.lam or (start is not None and at.lam < start.lam):
            return Objection(
                "amount",
                f"noise is added from a time below both ends of the step, found {self.amount}",
            )
        return None

    def share(self, process: NoiseProcess, start: Level | None, to: Level) -> float:
        """The part of the target's variance that is fresh, the square of its scale included."""
        down = self.below(process, start, to)
        return (self.weight(down, to) / to.sigma) ** 2

    def of_kind(
        self, kind: NoiseKind, process: NoiseProcess, start: Level, to: Level
    ) -> "StepNoise":
        """Noise by an amount of another kind, but for times, from as far below; of kind sde it is
        none in a step from pure noise, where any amount of it is all noise.
        """
        if kind is self.kind:
            return self
        rho = to.sigma / to.alpha
        left = min(1.0, self.below(process, start, to).sigma / to.sigma)  # rho_d / rho_t
        fall = rho * start.alpha / start.sigma
        match kind:
            case NoiseKind.GAMMA:
                amount = 1.0 - left
            case NoiseKind.ETA:
                amount = math.sqrt((1.0 - left**2) / max(1.0 - fall**2, _LEAST_FALL))
            case NoiseKind.SDE:
                amount = _log(left) / min(_log(fall), -_LEAST_FALL) if fall > 0.0 else 0.0
            case _:
                u_t, u_d = rho / (1.0 + rho), left * rho / (1.0 + left * rho)
                u_s = start.sigma / (start.alpha + start.sigma)
                amount = (1.0 - u_d / u_t) / max(1.0 - u_t / u_s, _LEAST_FALL)
        return StepNoise(kind=kind, amount=max(0.0, amount), scale=self.scale)

    def ratio_below(self, start: Level | None, to: Level) -> float:
        """rho_d of a kind that is not measured in time; only gamma's needs no ``start``."""
        rho = to.sigma / to.alpha
        if self.kind is NoiseKind.GAMMA:
            return (1.0 - self.amount) * rho
        assert start is not None
        assert self.kind is not NoiseKind.TIME
        fall = rho * start.alpha / start.sigma  # rho_t / rho_s, 0 from pure noise
        if self.kind is NoiseKind.SDE:
            return float(rho * fall**self.amount)
        if self.kind is NoiseKind.ETA:
            return rho * math.sqrt(1.0 - min(1.0, self.amount**2 * max(0.0, 1.0 - fall**2)))
        u_s, u_t = (at.sigma / (at.alpha + at.sigma) for at in (start, to))
        u = max(0.0, u_t * (1.0 + (u_t / u_s - 1.0) * self.amount))
        return u / (1.0 - u)


def _log(ratio: float) -> float:
    return math.log(max(ratio, _LEAST_RATIO))
