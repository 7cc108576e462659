"""SDE-DPM-Solver and SDE-DPM-Solver++ (arXiv:2211.01095), as diffusers and k-diffusion run them.

eta is k-diffusion's: 1 is the usual reverse SDE, 0 the deterministic solver.  s_noise multiplies
the noise.  By default they end clean, with a step that draws nothing.
"""

from collections.abc import Sequence
from enum import StrEnum

from s3search.processes import NoiseProcess
from s3search.rules import (
    Derivative,
    NoiseKind,
    Prediction,
    Relaxation,
    RelaxationKind,
    SdeTaylor,
    StepNoise,
)
from s3search.schedules.published.common import check_order, on_times, rising_orders
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid

CLEAN = End(rule=EndRule.DENOISE)
"""The end of solvers with noise unless another is asked for."""

_HALF_BH2 = Relaxation(kind=RelaxationKind.DPMSOLVER_2)
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
    check_order(order, 3)
    orders = rising_orders(n, order, lowers=lower_order_final)
    noise, prediction = noise or sde_noise(), Prediction(prediction)
    return tuple(
        Step(predictor=_multistep(prediction, own, noise, SdeVariant(variant))) for own in orders
    )


def _multistep(
    prediction: Prediction, order: int, noise: StepNoise, variant: SdeVariant
) -> SdeTaylor:
    derivatives: Sequence[Derivative] = ()
    if order == 2:
        relaxation = _HALF_BH2 if variant is SdeVariant.MIDPOINT else None
        derivatives = [Derivative(points=(-2,), relaxation=relaxation)]
    if order == 3:
        both = (-3, -2)
        derivatives = [Derivative(points=both), Derivative(points=both, relaxation=_HALF)]
    return SdeTaylor(
        prediction=prediction, order=order, derivatives=tuple(derivatives), noise=noise
    )
