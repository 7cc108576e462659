"""What every update rule sees and answers.

    history   the evaluated points so far, oldest first; addressed by negative index, -1 is the
    newest
    to        the level (t, alpha, sigma, lam) of the state being computed
    h         lam_to - lam_start > 0

A rule is a frozen pydantic model (its parameters, as they stand in the JSON under ``"rule":
name``) with two methods: `problem`
says what makes it impossible where it stands, `next_state` computes the new state as a linear
form.  To add a solver, write such a module and list it in `s3search.rules.AnyRule`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from s3search.processes import NoiseProcess
from s3search.rules.ems import EmsStatistics
from s3search.rules.linear_form import LinearForm, combine

Number = Annotated[float, Field(strict=True), AfterValidator(lambda value: value + 0.0)]
"""A number as JSON means it, neither text nor true; -0.0 becomes 0.0: equal means equal."""

Index = Annotated[int, Field(strict=True)]
"""A whole number, likewise."""


class Prediction(StrEnum):
    """Which output of the network a rule extrapolates."""

    NOISE = "noise"
    DATA = "data"
    V3 = "v3"  # DPM-Solver-v3's g, made of both with EMS statistics; `Taylor` alone knows it


INVARIANT_TOLERANCE = 1e-9
"""What a row may lose of a constant noise or image, of its own absolute sum; rounding leaves 1e-13
even at order 4."""

LINEAR_PREDICTIONS = (Prediction.NOISE, Prediction.DATA)
"""The predictions that need no statistics."""


class Level(NamedTuple):
    """A time with its signal and noise level."""

    t: float
    alpha: float
    sigma: float
    lam: float


@lru_cache(maxsize=65_536)
def level(process: NoiseProcess, t: float) -> Level:
    """The level of ``process`` at time ``t``."""
    return Level(t, process.alpha(t), process.sigma(t), process.lam(t))


@dataclass(frozen=True, slots=True)
class Point:
    """A state of the trajectory at which the network was called.

    ``state`` is where a step starts from, ``evaluated_at`` is what the network was given: they
    differ after a pseudo corrector, which moves the state and keeps the call.  ``called_at`` is
    the level of the time that the network was told, None where that is the point's own.
    """

    level: Level
    state: LinearForm
    evaluated_at: LinearForm
    data: LinearForm
    called_at: Level | None = None

    def predicted(self, prediction: Prediction) -> LinearForm:
        """D, or eps = (x - alpha D) / sigma at the level that the network was told."""
        if prediction is Prediction.DATA:
            return self.data
        assert prediction is Prediction.NOISE, "v3 predictions need statistics"
        _, alpha, sigma, _ = self.called_at or self.level
        return combine(((1.0 / sigma, self.evaluated_at), (-alpha / sigma, self.data)))


class Problem(NamedTuple):
    """Why a rule cannot be used where it stands: the field at fault and a sentence."""

    field: str
    message: str


class RuleModel(BaseModel):
    """Base of all rules: frozen, strict, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def carries_constants(self) -> bool:
        """Whether its rows carry a constant noise and image exactly; a plan checks those that
        do.
        """
        return True

    @property
    def mixes_predictions(self) -> bool:
        """Whether it extrapolates a mixture of D and eps, which a network time tells apart."""
        return False

    def problem(self, levels: Sequence[Level], to: Level) -> Problem | None:
        """What makes this rule impossible after points at ``levels``; None when nothing does."""
        raise NotImplementedError

    @property
    def needs_ems(self) -> bool:
        """Whether the rule is computed with EMS statistics, by `next_state_with`.

        Its rows then have tensors for weights and do not obey the invariants of `Plan`.
        """
        return False

    def next_state_with(
        self, ems: EmsStatistics, history: Sequence[Point], to: Level
    ) -> LinearForm:
        """The state at ``to`` of a rule that needs EMS statistics."""
        raise NotImplementedError

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` as a linear form; every rule without a `problem` has one."""
        raise NotImplementedError


def missing_point(field: str, indices: Sequence[int], n_points: int) -> Problem | None:
    """The problem of addressing a point that does not exist, or one twice."""
    for index in indices:
        if not -n_points <= index <= -1:
            return Problem(field, f"point {index} does not exist, the history holds {n_points}")
    if len(set(indices)) != len(indices):
        return Problem(field, f"points {list(indices)} name one point twice")
    return None


def first_order(point: Point, prediction: Prediction, to: Level) -> LinearForm:
    """The exponential Euler step from ``point`` (DDIM), for either prediction.

    Data: (sigma_t / sigma_s) x + (alpha_t - sigma_t alpha_s / sigma_s) D.  Noise: (alpha_t /
    alpha_s) x - sigma_t (e^h - 1) eps, rearranged with eps = (x' - alpha_s D) / sigma_s, x' the
    state the network saw, into the data form at x' plus
    (alpha_t / alpha_s)(x - x').  Neither divides by alpha_s when x = x', so a flow may start at
    alpha = 0; neither needs h, so the target may be clean (sigma_t = 0).

    Where the network was told another time, D and eps belong to its level, not to s, and the two
    formulas are no longer the same map: they are taken as they stand.
    """
    _, alpha_s, sigma_s, _ = point.level
    scale = to.sigma / sigma_s
    if point.called_at is not None:
        if prediction is Prediction.DATA:
            return combine(((scale, point.state), (to.alpha - scale * alpha_s, point.data)))
        ratio = to.alpha / alpha_s
        noise = point.predicted(Prediction.NOISE)
        return combine(((ratio, point.state), (to.sigma - ratio * sigma_s, noise)))
    step = combine(((scale, point.evaluated_at), (to.alpha - scale * alpha_s, point.data)))
    if point.state is point.evaluated_at:
        return step
    factor = scale if prediction is Prediction.DATA else to.alpha / alpha_s
    return combine(((1.0, step), (factor, point.state), (-factor, point.evaluated_at)))


def endless_step(field: str, start: Level, to: Level) -> Problem | None:
    """The problem of a step above first order whose h is infinite."""
    if math.isfinite(to.lam - start.lam):
        return None
    end = "the clean end (sigma = 0)" if to.sigma == 0.0 else "pure noise (alpha = 0)"
    return Problem(field, f"has no value above order 1 for a step that touches {end}; use order 1")


def slopes_problem(start: int, points: tuple[int, ...], levels: Sequence[Level]) -> Problem | None:
    """What makes a step along the slopes at ``points`` impossible: one is missing, or at pure
    noise where the step is not Euler's.
    """
    found = missing_point("start", (start,), len(levels))
    found = found or missing_point("points", points, len(levels))
    if found is not None:
        return found
    used = [levels[p] for p in (start, *points)]
    return noisy_point("points", used, is_euler=points == (start,))


def noisy_point(field: str, used: Sequence[Level], *, is_euler: bool) -> Problem | None:
    """The problem of a step above Euler's that looks at pure noise, where rho is infinite."""
    if is_euler or all(at.alpha > 0.0 for at in used):
        return None
    return Problem(field, "has no value from pure noise (alpha = 0); use Euler's step there")
