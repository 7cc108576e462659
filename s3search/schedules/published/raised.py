"""Steps that end below a level and are raised to it by noise, of one network call or two.

A leg goes from where the last one ended to ``below``, as a deterministic solver would; fresh noise
then brings the state up to ``to``, where the next leg begins.  Ancestral steps, churn and restart
intervals are such legs and differ in their levels alone.  A solver of two calls sees its first
target, an inner level or ``below`` itself, so that the time may rise at the second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import Adams, NoiseKind, StepNoise
from s3search.schedules.published.dpm import ddim_steps, singlestep_on
from s3search.schedules.published.runge_kutta import dpm2_on
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Start, Step
from s3search.schedules.spacing import Spacing

_CLOSE = 1e-9  # in lam: an inner level that falls on the leg's end but for rounding


class Method(StrEnum):
    """The deterministic solver of a leg."""

    EULER = "euler"
    HEUN = "heun"
    DPM_2 = "dpm_2"
    DPMPP_2S = "dpmpp_2s"

    @property
    def n_calls(self) -> int:
        """Network calls of a leg that does not end clean."""
        return 1 if self is Method.EULER else 2


@dataclass(frozen=True, slots=True)
class Leg:
    """Down to the time ``below``, up to the time ``to`` by noise; both are one where none is."""

    below: float
    to: float
    scale: float | None = None  # of the noise, where it is not that of the other legs


_Made = tuple[Sequence[float], Sequence[Step]]


def raised_on(
    process: NoiseProcess,
    first: float,
    legs: Sequence[Leg],
    method: Method | str,
    *,
    s_noise: float = 1.0,
    start: Start | None = None,
) -> Schedule:
    """The schedule of these legs from the time ``first``; ``s_noise`` multiplies all noise.

    A leg through the clean end is one call of first order, whatever the method.
    """
    method = Method(method)
    times, steps = [first], list[Step]()
    for leg in legs:
        scale = s_noise if leg.scale is None else leg.scale
        inner, made = _leg(process, times[-1], leg, method, scale)
        times += inner
        steps += made
    last = steps[-1].corrector
    if last is not None:  # nothing uses a second call after the last step
        steps[-1] = Step(predictor=steps[-1].predictor, corrector=Corrector(rule=last.rule))
    return Schedule(process=process, times=times, steps=steps, start=start or Start())


def check_calls(schedule: Schedule, nfe: int) -> Schedule:
    """The schedule; raises `InvalidSchedule` where it does not make these calls."""
    if schedule.nfe != nfe:
        raise InvalidSchedule(
            f"these levels and this noise make {schedule.nfe} calls, asked {nfe}; noise that is "
            "capped, as that of eta > 1, saves a call of the step"
        )
    return schedule


def _leg(process: NoiseProcess, s: float, leg: Leg, method: Method, s_noise: float) -> _Made:
    """The times after ``s``, and the steps to them."""
    noise = None
    if leg.to != leg.below:
        noise = StepNoise(kind=NoiseKind.TIME, amount=leg.below, scale=s_noise)
    if leg.below == process.clean_time:
        times, steps = [leg.to], list(ddim_steps(1))
    elif method is Method.HEUN and noise is None:
        again = Corrector(kind=CorrectorKind.IMPLICIT, rule=_TRAPEZOID)
        return [leg.to], [Step(predictor=Adams(), corrector=again)]
    else:
        inner, made = _SOLVERS[method](process, s, leg.below)
        times, steps = [*inner[1:-1], leg.to], list(made)
        if len(times) == 2 and abs(process.lam(times[0]) - process.lam(leg.to)) < _CLOSE:
            times[0] = leg.to
    if noise is not None:
        if len(steps) == 1 and leg.to < s and leg.below != process.clean_time:
            noise = _as_gamma(process, leg, s_noise)
        steps[-1] = Step(predictor=steps[-1].predictor, noise=noise)
    return times, steps


def _as_gamma(process: NoiseProcess, leg: Leg, s_noise: float) -> StepNoise:
    """The noise of a leg by its share, which does not depend on the time."""
    share = 1.0 - process_ratio(process, leg.below) / process_ratio(process, leg.to)
    return StepNoise(kind=NoiseKind.GAMMA, amount=share, scale=s_noise)


def process_ratio(process: NoiseProcess, t: float) -> float:
    """sigma / alpha at time ``t``."""
    return float(process.sigma(t) / process.alpha(t))


def _euler(process: NoiseProcess, s: float, below: float) -> _Made:
    return (s, below), (Step(predictor=Adams()),)


def _heun(process: NoiseProcess, s: float, below: float) -> _Made:
    """With the new point's call kept: the second step begins where the first one did."""
    return (s, below, below), (Step(predictor=Adams()), Step(predictor=_TRAPEZOID))


def _dpmpp_2s(process: NoiseProcess, s: float, below: float) -> _Made:
    return singlestep_on(process, (s, below), (2,), Spacing.LOGSNR)


_TRAPEZOID = Adams(start=-2, points=(-2, -1))

_SOLVERS: Mapping[Method, Callable[[NoiseProcess, float, float], _Made]] = {
    Method.EULER: _euler,
    Method.HEUN: _heun,
    Method.DPM_2: lambda process, s, below: dpm2_on(process, (s, below)),
    Method.DPMPP_2S: _dpmpp_2s,
}
