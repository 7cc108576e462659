"""DDIM (arXiv:2010.02502), DPM-Solver (arXiv:2206.00927) and DPM-Solver++ (arXiv:2211.01095).

As in the authors' code: 2M and 3M are multistep, 2S and 3S singlestep; 3M uses half the second
derivative, so its order is two.
"""

from collections.abc import Sequence

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, VpDiscrete
from s3search.rules import (
    Derivative,
    Prediction,
    Relaxation,
    RelaxationKind,
    StepNoise,
    Taylor,
)
from s3search.schedules.published.common import check_order, on_times, rising_orders
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid, spaced

_SHORT_RUN = 10  # below this many steps DPM-Solver's code lowers the order at the end
_HALF_BH2 = Relaxation(kind=RelaxationKind.DPMSOLVER_2)
_HALF = Relaxation(kind=RelaxationKind.SCALE, coefficient=0.5)


def ddim(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 0.0,
    spacing: Spacing | str = "uniform",
    end: End | None = None,
) -> Schedule:
    """DDIM: first order throughout; with ``eta`` > 0 every step but one to the clean end adds
    noise, as much as that of DDPM at 1 (arXiv:2010.02502, eq. 12 and 16).
    """
    return on_times(process, grid(process, nfe, spacing, end), ddim_steps(nfe, eta))


def ddim_steps(n: int, eta: float = 0.0) -> tuple[Step, ...]:
    """n exponential Euler steps, each with the noise of such an ``eta``."""
    step = _taylor(Prediction.DATA, 1)
    if eta != 0.0:
        step = Step(predictor=step.predictor, noise=StepNoise(amount=eta))
    return (step,) * n


def ddim_on(process: VpDiscrete, timesteps: Sequence[int]) -> Schedule:
    """DDIM on chosen training timesteps, in any order, then to the clean end: one call each.

    What AutoDiffusion (arXiv:2309.10438) searches; a timestep named twice is an error there too,
    only a silent one.
    """
    chosen = sorted(timesteps, reverse=True)
    if len(set(chosen)) != len(chosen):
        raise InvalidSchedule(f"timesteps: {list(timesteps)} name one timestep twice")
    times = [*map(float, chosen), process.clean_time]
    return on_times(process, times, ddim_steps(len(chosen)))


def dpmpp_2m(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "logsnr", end: End | None = None
) -> Schedule:
    """DPM-Solver++(2M), multistep of order two (arXiv:2211.01095)."""
    return on_times(process, grid(process, nfe, spacing, end), dpm_multistep_steps(nfe, order=2))


def dpmpp_3m(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "logsnr", end: End | None = None
) -> Schedule:
    """DPM-Solver++(3M), multistep, as its authors publish it (arXiv:2211.01095)."""
    return on_times(process, grid(process, nfe, spacing, end), dpm_multistep_steps(nfe, order=3))


def dpm_multistep_steps(
    n: int,
    *,
    order: int,
    prediction: Prediction | str = Prediction.DATA,
    taylor: bool = False,
    lower_order_final: bool | None = None,
) -> tuple[Step, ...]:
    """Multistep DPM-Solver (noise) and DPM-Solver++ (data) of orders 1 to 3.

    ``taylor`` is the authors' solver_type "taylor"; it differs at order 2 only.
    ``lower_order_final`` limits the order by the steps left; None does so below 10 steps, as their
    code does.
    """
    prediction = Prediction(prediction)
    check_order(order, 3)
    lowers = n < _SHORT_RUN if lower_order_final is None else lower_order_final
    steps = []
    for own in rising_orders(n, order, lowers=lowers):
        if own == 3:
            both = (-3, -2)
            derivatives = (Derivative(points=both), Derivative(points=both, relaxation=_HALF))
            rule = Taylor(prediction=prediction, order=3, derivatives=derivatives)
            steps.append(Step(predictor=rule))
        else:
            steps.append(_taylor(prediction, own, halved=not taylor))
    return tuple(steps)


def dpmpp_2s(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "logsnr", end: End | None = None
) -> Schedule:
    """DPM-Solver++(2S), singlestep: pairs of calls, a first-order step where one call is left."""
    return dpm_singlestep(process, nfe=nfe, order=2, spacing=spacing, end=end)


def dpmpp_3s(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "logsnr", end: End | None = None
) -> Schedule:
    """DPM-Solver++(3S), singlestep: triples of calls, then 2 + 1, 2 or 1."""
    return dpm_singlestep(process, nfe=nfe, order=3, spacing=spacing, end=end)


def dpm_singlestep(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int,
    prediction: Prediction | str = Prediction.DATA,
    spacing: Spacing | str = "logsnr",
    end: End | None = None,
) -> Schedule:
    """Singlestep DPM-Solver of order 2 or 3 on the authors' grid; with the `denoise` end the last
    call finishes the image.
    """
    end, spacing = end or End(), Spacing(spacing)
    denoise = end.rule is EndRule.DENOISE
    orders = singlestep_orders(nfe - denoise, order)
    stop = end.model_copy(update={"rule": EndRule.STOP})
    if spacing is Spacing.LOGSNR:
        outer = grid(process, len(orders), spacing, stop)
    else:
        fine = grid(process, nfe - denoise, spacing, stop)
        outer = tuple(fine[sum(orders[:i])] for i in range(len(orders) + 1))
    times, steps = singlestep_on(process, outer, orders, spacing, prediction=prediction)
    if denoise:
        times, steps = (*times, process.clean_time), (*steps, _taylor(Prediction.DATA, 1))
    return on_times(process, times, steps)


def singlestep_orders(nfe: int, order: int) -> tuple[int, ...]:
    """How DPM-Solver splits ``nfe`` calls into singlestep steps of at most ``order`` (2 or 3)."""
    if nfe < 1 or order not in (1, 2, 3):
        raise InvalidSchedule(f"singlestep solvers have order 1 to 3, asked for {order=}, {nfe=}")
    if order == 1:
        return (1,) * nfe
    if order == 2:
        return (2,) * (nfe // 2) + (1,) * (nfe % 2)
    whole, left = divmod(nfe, 3)
    if left == 0:
        return (3,) * (whole - 1) + (2, 1)
    return (3,) * whole + (left,)


def singlestep_on(
    process: NoiseProcess,
    outer: Sequence[float],
    orders: Sequence[int],
    spacing: Spacing | str,
    *,
    prediction: Prediction | str = Prediction.DATA,
    taylor: bool = False,
) -> tuple[tuple[float, ...], tuple[Step, ...]]:
    """Times with the inner nodes filled in, and the steps; inner nodes follow the spacing inside
    each step.
    """
    times, steps = [outer[0]], []
    for s, t, order in zip(outer, outer[1:], orders, strict=False):
        times += spaced(process, s, t, order, Spacing(spacing).within_steps)[1:]
        steps += _singlestep(Prediction(prediction), order, taylor=taylor)
    return tuple(times), tuple(steps)


def _singlestep(prediction: Prediction, order: int, *, taylor: bool) -> list[Step]:
    """The steps to the inner nodes and the end of one singlestep step; all start from its first
    point.
    """
    if order == 1:
        return [_taylor(prediction, 1)]
    if order == 2:
        relaxation = None if taylor else _HALF_BH2
        last = (Derivative(points=(-1,), relaxation=relaxation),)
        end = Taylor(prediction=prediction, order=2, start=-2, derivatives=last)
        return [_taylor(prediction, 1), Step(predictor=end)]
    first = Derivative(points=(-1,))
    middle = Taylor(prediction=prediction, order=2, start=-2, derivatives=(first,))
    if taylor:
        both = Derivative(points=(-2, -1))
        end = Taylor(prediction=prediction, order=3, start=-3, derivatives=(both, both))
    else:
        end = Taylor(prediction=prediction, order=2, start=-3, derivatives=(first,))
    return [_taylor(prediction, 1), Step(predictor=middle), Step(predictor=end)]


def _taylor(prediction: Prediction, order: int, *, halved: bool = True) -> Step:
    if order == 1:
        return Step(predictor=Taylor(prediction=prediction, order=1))
    derivative = Derivative(points=(-2,), relaxation=_HALF_BH2 if halved else None)
    return Step(predictor=Taylor(prediction=prediction, order=2, derivatives=(derivative,)))
