"""SDE-DPM-Solver and SDE-DPM-Solver++ (arXiv:2211.01095), as diffusers and k-diffusion run them.

eta is k-diffusion's: 1 is the usual reverse SDE, 0 the deterministic solver.  s_noise multiplies
the noise.  By default they end clean, with a step that draws nothing.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

from s3search.processes import NoiseProcess
from s3search.rules import (
    Derivative,
    NoiseKind,
    Prediction,
    Relaxation,
    RelaxationKind,
    SdeTaylor,
    StepNoise,
    Taylor,
)
from s3search.schedules.published.common import check_order, on_times, paired_calls, rising_orders
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid

CLEAN = End(rule=EndRule.DENOISE)
"""The end of solvers with noise unless another is asked for."""

_HALF_BH2 = Relaxation(kind=RelaxationKind.DPMSOLVER_2)
_EULER = Taylor(prediction=Prediction.DATA, order=1)
_HALF = Relaxation(kind=RelaxationKind.SCALE, coefficient=0.5)


class SdeVariant(StrEnum):
    """What the slope of a second-order step is multiplied by: half of the first-order step's
    length, or its integral.
    """

    MIDPOINT = "midpoint"
    HEUN = "heun"


def sde_noise(eta: float = 1.0, s_noise: float = 1.0) -> StepNoise:
    """The noise of an SDE step with k-diffusion's two numbers."""
    return StepNoise(kind=NoiseKind.SDE, amount=eta, scale=s_noise)


def dpmpp_2m_sde(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    variant: SdeVariant | str = SdeVariant.MIDPOINT,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """SDE-DPM-Solver++(2M): two predictions a step, one of them new."""
    steps = sde_steps(nfe, order=2, noise=sde_noise(eta, s_noise), variant=variant)
    return on_times(process, grid(process, nfe, spacing, end or CLEAN), steps)


def dpmpp_3m_sde(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """SDE-DPM-Solver++(3M) as k-diffusion has it: with half the second derivative, like every
    published DPM-Solver++(3M).
    """
    noise = sde_noise(eta, s_noise)
    steps = sde_steps(nfe, order=3, noise=noise, variant=SdeVariant.HEUN)
    return on_times(process, grid(process, nfe, spacing, end or CLEAN), steps)


def sde_dpm_solver(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 2,
    variant: SdeVariant | str = SdeVariant.MIDPOINT,
    spacing: Spacing | str = "logsnr",
    end: End | None = None,
) -> Schedule:
    """SDE-DPM-Solver, orders 1 and 2: the SDE with the noise prediction extrapolated."""
    check_order(order, 2)
    steps = sde_steps(nfe, order=order, prediction=Prediction.NOISE, variant=variant)
    return on_times(process, grid(process, nfe, spacing, end or CLEAN), steps)


def sde_steps(
    n: int,
    *,
    order: int,
    prediction: Prediction | str = Prediction.DATA,
    noise: StepNoise | None = None,
    variant: SdeVariant | str = SdeVariant.MIDPOINT,
    lower_order_final: bool = False,
) -> tuple[Step, ...]:
    """Multistep steps of orders 1 to 3, with eta 1 unless ``noise`` says otherwise."""
    orders = rising_orders(n, order, lowers=lower_order_final)
    return tuple(sde_step(own, prediction, noise=noise, variant=variant) for own in orders)


def sde_step(
    order: int,
    prediction: Prediction | str = Prediction.DATA,
    *,
    noise: StepNoise | None = None,
    variant: SdeVariant | str = SdeVariant.MIDPOINT,
) -> Step:
    """One multistep step; ``variant`` makes a difference at order 2 only."""
    check_order(order, 3)
    derivatives: Sequence[Derivative] = ()
    if order == 2:
        relaxation = _HALF_BH2 if SdeVariant(variant) is SdeVariant.MIDPOINT else None
        derivatives = [Derivative(points=(-2,), relaxation=relaxation)]
    if order == 3:
        both = (-3, -2)
        derivatives = [Derivative(points=both), Derivative(points=both, relaxation=_HALF)]
    rule = SdeTaylor(
        prediction=Prediction(prediction),
        order=order,
        derivatives=tuple(derivatives),
        noise=noise or sde_noise(),
    )
    return Step(predictor=rule)


def dpmpp_sde(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """DPM-Solver++(SDE) of k-diffusion and diffusers: two calls a step, the second at a part r of
    it; by default with a last call that makes the clean image, for which ``nfe`` is odd.
    """
    end, clean = paired_calls("dpmpp_sde", nfe, end)
    outer = grid(process, nfe // 2 + clean, spacing, end)
    times, steps = dpmpp_sde_on(process, outer, eta, s_noise, r)
    return on_times(process, times, steps)


def dpmpp_sde_on(
    process: NoiseProcess,
    outer: Sequence[float],
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> tuple[tuple[float, ...], tuple[Step, ...]]:
    """DPM-Solver++(SDE) between chosen times: the times with those of the inner calls, and steps.

    Inner point and end are both reached by an ancestral step from its start with a draw of its
    own; the one to the clean end is Euler's.
    """
    noise = StepNoise(amount=eta, scale=s_noise)
    slope = (Derivative(points=(-1,), relaxation=_HALF_BH2),)
    full = SdeTaylor(prediction=Prediction.DATA, order=2, start=-2, derivatives=slope, noise=noise)
    inner = Step(predictor=_EULER, noise=noise if eta else None)
    times, steps = [outer[0]], list[Step]()
    for s, t in pairwise(outer):
        if t == process.clean_time:
            times, steps = [*times, t], [*steps, Step(predictor=_EULER)]
            continue
        times += [between(process, s, t, r), t]
        steps += [inner, Step(predictor=full)]
    return tuple(times), tuple(steps)


def between(process: NoiseProcess, s: float, t: float, r: float) -> float:
    """The time at a part ``r`` of the way from s to t in log(alpha / sigma)."""
    return process.time_of_lam((1.0 - r) * process.lam(s) + r * process.lam(t))
