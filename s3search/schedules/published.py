"""Published solvers, written as schedules.

Each solver has two forms: ``..._steps`` gives its steps for n intervals (to put on any times with
`on_times`), and the plain name gives the whole schedule for a process, a number of network calls,
a spacing and an end:

>>> baseline = published.unipc(edm(), nfe=8, order=3, variant="bh2", spacing="logsnr")

Sources: DDIM arXiv:2010.02502; DPM-Solver arXiv:2206.00927 (2S, 3S) and DPM-Solver++
arXiv:2211.01095 (2M, 3M) as in the authors' code, whose 3M uses half the second derivative; UniPC
arXiv:2302.04867; Euler and Heun arXiv:2206.00364, alg. 1.
"""

from collections.abc import Callable, Sequence

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import (
    Adams,
    Derivative,
    Prediction,
    Relaxation,
    RelaxationKind,
    Taylor,
    UniPC,
    Variant,
)
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Start, Step
from s3search.schedules.spacing import (
    End,
    EndRule,
    Spacing,
    grid,
    noisy_time,
    spaced,
    usual_end_time,
)

_SHORT_RUN = 10  # below this many steps DPM-Solver's code lowers the order at the end
_HALF_BH2 = Relaxation(kind=RelaxationKind.DPMSOLVER_2)
_HALF = Relaxation(kind=RelaxationKind.SCALE, coefficient=0.5)


def ddim(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "uniform", end: End | None = None
) -> Schedule:
    """DDIM: first order throughout."""
    return on_times(process, grid(process, nfe, spacing, end), ddim_steps(nfe))


def ddim_steps(n: int) -> tuple[Step, ...]:
    """n exponential Euler steps."""
    return tuple(_taylor(Prediction.DATA, 1) for _ in range(n))


def dpmpp_2m(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "logsnr", end: End | None = None
) -> Schedule:
    """DPM-Solver++(2M)."""
    return on_times(process, grid(process, nfe, spacing, end), dpm_multistep_steps(nfe, order=2))


def dpmpp_3m(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "logsnr", end: End | None = None
) -> Schedule:
    """DPM-Solver++(3M)."""
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
    _check_order(order, 3)
    lowers = n < _SHORT_RUN if lower_order_final is None else lower_order_final
    steps = []
    for own in _orders(n, order, lowers=lowers):
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
    stop = End(rule=EndRule.STOP, sigma=end.sigma)
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
        times += spaced(process, s, t, order, Spacing(spacing))[1:]
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


def unipc(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 3,
    variant: Variant | str = "bh2",
    prediction: Prediction | str = Prediction.DATA,
    spacing: Spacing | str = "logsnr",
    end: End | None = None,
) -> Schedule:
    """UniPC of orders 1 to 4 with its corrector on every step but the last."""
    steps = unipc_steps(nfe, order=order, variant=variant, prediction=prediction)
    return on_times(process, grid(process, nfe, spacing, end), steps)


def unipc_steps(
    n: int,
    *,
    order: int,
    variant: Variant | str = "bh2",
    prediction: Prediction | str = Prediction.DATA,
    corrector: bool = True,
    lower_order_final: bool = True,
) -> tuple[Step, ...]:
    """UniPC predictors of rising order, each corrected at its own order by the next call (no extra
    call).
    """
    _check_order(order, 4)
    prediction, variant = Prediction(prediction), Variant(variant)
    steps = []
    for i, own in enumerate(_orders(n, order, lowers=lower_order_final)):
        points = tuple(range(-own, -1))
        rule = UniPC(prediction=prediction, variant=variant, points=points)
        back = (*(p - 1 for p in points), -1)
        correct = UniPC(prediction=prediction, variant=variant, start=-2, points=back)
        follows = corrector and i < n - 1
        steps.append(Step(predictor=rule, corrector=Corrector(rule=correct) if follows else None))
    return tuple(steps)


def euler(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "karras", end: End | None = None
) -> Schedule:
    """Euler in sigma / alpha (EDM); the same map as DDIM."""
    return on_times(process, grid(process, nfe, spacing, end), euler_steps(nfe))


def euler_steps(n: int) -> tuple[Step, ...]:
    """n Euler steps."""
    return tuple(Step(predictor=Adams()) for _ in range(n))


def heun(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "karras", end: End | None = None
) -> Schedule:
    """EDM's Heun: two calls per step, one on a last step to the clean end.

    ``nfe`` must be even for the `stop` end and odd for `denoise`.
    """
    end = end or End(rule=EndRule.DENOISE)
    clean = end.rule is EndRule.DENOISE
    if nfe % 2 != clean:
        kind = "an odd" if clean else "an even"
        raise InvalidSchedule(
            f"heun with end rule {end.rule.value!r} needs {kind} nfe, asked {nfe}"
        )
    if process.alpha(noisy_time(process)) == 0.0:
        raise InvalidSchedule("heun works in sigma / alpha, which is infinite where a flow starts")
    n = (nfe + clean) // 2
    return on_times(process, grid(process, n, spacing, end), heun_steps(n, ends_clean=clean))


def heun_steps(n: int, *, ends_clean: bool) -> tuple[Step, ...]:
    """n Heun steps: Euler, corrected by the trapezoid rule and evaluated again; the last of them
    is Euler if it ends clean.
    """
    trapezoid = Adams(start=-2, points=(-2, -1))
    again = Step(
        predictor=Adams(), corrector=Corrector(kind=CorrectorKind.IMPLICIT, rule=trapezoid)
    )
    last = Step(predictor=Adams(), corrector=None if ends_clean else Corrector(rule=trapezoid))
    return (again,) * (n - 1) + (last,)


def on_times(
    process: NoiseProcess,
    times: Sequence[float],
    steps: Sequence[Step],
    start: Start | None = None,
) -> Schedule:
    """Steps on times.

    Where the last step reaches the clean end it is made first order, and where the first starts
    from pure noise it loses its corrector: nothing else has a value there.
    """
    steps = list(steps)
    if process.alpha(times[0]) == 0.0:
        steps[0] = Step(predictor=steps[0].predictor)
    if times[-1] == process.clean_time:
        steps[-1] = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
    return Schedule(process=process, times=times, steps=steps, start=start or Start())


def _orders(n: int, order: int, *, lowers: bool) -> list[int]:
    """Order of each step: limited by the points that exist and, if wanted, by the steps left."""
    return [min(order, i + 1, n - i if lowers else order) for i in range(n)]


def _taylor(prediction: Prediction, order: int, *, halved: bool = True) -> Step:
    if order == 1:
        return Step(predictor=Taylor(prediction=prediction, order=1))
    derivative = Derivative(points=(-2,), relaxation=_HALF_BH2 if halved else None)
    return Step(predictor=Taylor(prediction=prediction, order=2, derivatives=(derivative,)))


def _check_order(order: int, highest: int) -> None:
    if not 1 <= order <= highest:
        raise InvalidSchedule(f"this solver has orders 1 to {highest}, asked for {order}")


def baselines(
    process: NoiseProcess, nfe: int, *, ends: Sequence[End] | None = None
) -> dict[str, Schedule]:
    """Every published solver here, at every spacing and end, that makes exactly ``nfe`` calls.

    Keyed by a readable name.  The default ends are those among which tuned samplers were found
    best; an end below the level that the network was trained down to is left out.
    """
    lowest = usual_end_time(process)
    lowest_ratio = process.sigma(lowest) / process.alpha(lowest)
    found: dict[str, Schedule] = {}
    for end in _ENDS if ends is None else ends:
        if end.sigma is not None and end.sigma < lowest_ratio:
            continue
        tail = end.rule.value + ("" if end.sigma is None else f" {end.sigma:g}")
        for spacing in Spacing:
            for name, make in _FAMILIES.items():
                try:
                    schedule = make(process, nfe, spacing, end)
                except InvalidSchedule:
                    continue  # this solver has no such number of calls, or no such end
                found[f"{name}, {spacing.value}, {tail}"] = schedule
    return found


_ENDS = (
    End(rule=EndRule.STOP),
    End(rule=EndRule.DENOISE),
    End(rule=EndRule.DENOISE, sigma=0.02),
    End(rule=EndRule.DENOISE, sigma=0.06),
    End(rule=EndRule.DENOISE, sigma=0.04),
    End(rule=EndRule.STOP, sigma=0.02),
    End(rule=EndRule.DENOISE, sigma=0.01),
)

_FAMILIES: dict[str, Callable[[NoiseProcess, int, Spacing, End], Schedule]] = {
    "DDIM": lambda p, n, s, e: ddim(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(2M)": lambda p, n, s, e: dpmpp_2m(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(3M)": lambda p, n, s, e: dpmpp_3m(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(2S)": lambda p, n, s, e: dpmpp_2s(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(3S)": lambda p, n, s, e: dpmpp_3s(p, nfe=n, spacing=s, end=e),
    "UniPC-2 bh1": lambda p, n, s, e: unipc(p, nfe=n, order=2, variant="bh1", spacing=s, end=e),
    "UniPC-2 bh2": lambda p, n, s, e: unipc(p, nfe=n, order=2, variant="bh2", spacing=s, end=e),
    "UniPC-3 bh1": lambda p, n, s, e: unipc(p, nfe=n, order=3, variant="bh1", spacing=s, end=e),
    "UniPC-3 bh2": lambda p, n, s, e: unipc(p, nfe=n, order=3, variant="bh2", spacing=s, end=e),
    "Heun": lambda p, n, s, e: heun(p, nfe=n, spacing=s, end=e),
}
