"""Golden cases of shifted network times and compensated predictions, see golden_cases.py."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from s3search.models.denoiser import variance_matched
from s3search.processes import NoiseProcess
from s3search.rules import (
    Adams,
    Derivative,
    Level,
    Prediction,
    Relaxation,
    RelaxationKind,
    Taylor,
    level,
)
from s3search.rules.exponential import phi
from s3search.rules.taylor import derivative_weights
from s3search.schedules import published
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Step
from s3search.solvers.sample import Denoiser

Case = Mapping[str, Any]


class Waits(Exception):
    """The project has no such solver yet; the message says what is missing."""


def _times(case: Case, field: str = "timesteps") -> list[float]:
    """A grid of the case in our unit."""
    if case["process"].get("time", "i") == "(i+1)/n":
        return [t * case["process"]["n"] - 1 for t in case[field]]
    return list(case[field])


# --- LD3 ---


def _ld3(case: Case, process: NoiseProcess) -> Schedule:
    """A multistep solver whose network is told ``timesteps2``."""
    times = _times(case)
    prediction = Prediction(
        case["solver"]["constructor"]["algorithm_type"].removesuffix("_prediction")
    )
    arguments = dict(case["solver"]["sample_simple"])
    order, lowers = arguments.pop("order"), arguments.pop("lower_order_final", False)
    if arguments:
        raise ValueError(f"unknown arguments {sorted(arguments)}")
    n = len(times) - 1
    entry = case["source"]["entry"]
    steps: Sequence[Step]
    if entry.startswith("samplers/dpm_solverpp.py"):
        steps = published.dpm_multistep_steps(
            n, order=order, prediction=prediction, lower_order_final=lowers
        )
    elif entry.startswith("samplers/uni_pc.py"):
        steps = published.unipc_steps(
            n,
            order=order,
            variant=case["solver"]["constructor"]["variant"],
            prediction=prediction,
            lower_order_final=lowers,
        )
    elif entry.startswith("samplers/ipndm.py"):
        steps = _ipndm([level(process, t) for t in times], order)
    else:
        raise ValueError(f"unknown entry {entry!r}")
    return published.with_network_times(
        published.on_times(process, times, steps), _times(case, "timesteps2")[:n]
    )


_CONSTANT_STEP_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)  # Adams-Bashforth, newest first


def _ipndm(levels: Sequence[Level], order: int) -> list[Step]:
    """DDIM steps with eps mixed by Adams-Bashforth's constant-step weights, as Taylor steps.

    Derivative d takes the d points before the start, so the scales follow from the oldest on.
    """
    steps = []
    for i, (s, t) in enumerate(itertools.pairwise(levels)):
        own = min(order, i + 1)
        h = t.lam - s.lam
        left = [h * phi(1, h) * w for w in _CONSTANT_STEP_WEIGHTS[own - 1]]
        derivatives = []
        for d in range(own - 1, 0, -1):
            points = tuple(range(-d - 1, -1))
            a = derivative_weights(d, [levels[i + 1 + p].lam - s.lam for p in points])
            size = h ** (d + 1) * phi(d + 1, h)
            scale = left[d] / (size * a[0])
            for p, weight in zip(points, a, strict=True):
                left[-p - 1] -= size * scale * weight
            relaxation = Relaxation(kind=RelaxationKind.SCALE, coefficient=scale)
            derivatives.append(Derivative(points=points, relaxation=relaxation))
        rule = Taylor(prediction=Prediction.NOISE, order=own, derivatives=tuple(derivatives[::-1]))
        steps.append(Step(predictor=rule))
    return steps


# --- TS-DPM ---


def _time_shift(case: Case, process: NoiseProcess) -> Schedule:
    """PNDM's solvers on the grid; where the case shifts, `wrapped` does so in the denoiser."""
    times, method = _times(case), case["solver"]["method"]
    n = len(times) - 1
    match method:
        case "euler":
            steps = tuple(Step(predictor=Adams()) for _ in range(n))
        case "improved_euler_solver":  # the slope's average is the trapezoid rule in sigma / alpha
            steps = published.heun_steps(n, ends_clean=False)
        case "s_pndm":
            steps = _s_pndm([level(process, t) for t in times])
        case "runge_kutta" | "f_pndm":
            raise Waits("Runge-Kutta steps that keep two calls of one level")
        case _:
            raise ValueError(f"unknown method {method!r}")
    return published.on_times(process, times, steps)


def _s_pndm(levels: Sequence[Level]) -> list[Step]:
    """A trapezoid step called again at its end, then Adams-Bashforth of two."""
    trapezoid = Corrector(kind=CorrectorKind.IMPLICIT, rule=Adams(start=-2, points=(-2, -1)))
    return [Step(predictor=Adams(), corrector=trapezoid), *_ipndm(levels, 2)[1:]]


# --- DC-Solver ---


def _dc_solver(case: Case, process: NoiseProcess) -> Schedule:
    """UniPC with the case's ratios."""
    constructor, arguments = dict(case["solver"]["constructor"]), dict(case["solver"]["sample"])
    prediction = "data" if constructor.pop("predict_x0") else "noise"
    variant, dc_order = constructor.pop("variant"), constructor.pop("dc_order")
    order, ratios = arguments.pop("order"), arguments.pop("dc_ratios")
    lowers = arguments.pop("lower_order_final", True)
    if constructor.pop("thresholding") or arguments.pop("method") != "multistep":
        raise ValueError("an argument that nobody has looked at")
    unknown = {*constructor, *arguments} - {"steps", "skip_type"}
    if unknown:
        raise ValueError(f"unknown arguments {sorted(unknown)}")
    times = _times(case)
    steps = published.unipc_steps(
        len(times) - 1,
        order=order,
        variant=variant,
        prediction=prediction,
        lower_order_final=lowers,
    )
    plain = published.on_times(process, times, steps)
    return published.with_ratios(plain, ratios, dc_order=dc_order, prediction=prediction)


# --- what the test asks for ---

FAMILIES: dict[str, Callable[[Case, NoiseProcess], Schedule]] = {
    "ld3": _ld3,
    "time_shift": _time_shift,
    "dc_solver": _dc_solver,
}


def wrapped(case: Case, denoiser: Denoiser) -> Denoiser:
    """The denoiser as the published method calls it."""
    solver = case["solver"]
    if solver.get("shift_time_step"):
        return variance_matched(denoiser, solver["window_size"], solver["cut_off_value"])
    return denoiser


def unused_calls(case: Case) -> int:
    """Calls after the last step, whose answer the published code drops."""
    ends_idle = not case["source"]["entry"].startswith("samplers/ipndm.py")
    return int(case["family"] == "ld3" and ends_idle)
