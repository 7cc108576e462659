"""Golden cases of shifted network times and compensated predictions, see golden_cases.py."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from s3search.models.denoiser import variance_matched
from s3search.processes import NoiseProcess
from s3search.rules import (
    Prediction,
)
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step
from s3search.solvers.sample import Denoiser

Case = Mapping[str, Any]


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
        steps = published.ipndm_steps(n, order=order)
    else:
        raise ValueError(f"unknown entry {entry!r}")
    return published.with_network_times(
        published.on_times(process, times, steps), _times(case, "timesteps2")[:n]
    )


# --- DC-Solver ---


def _dc_solver(case: Case, process: NoiseProcess) -> Schedule:
    """UniPC with the case's ratios."""
    constructor, arguments = dict(case["solver"]["constructor"]), dict(case["solver"]["sample"])
    prediction = "data" if constructor.pop("predict_x0") else "noise"
    variant, dc_order = constructor.pop("variant"), constructor.pop("dc_order")
    order, ratios = arguments.pop("order"), arguments.pop("dc_ratios")
    lowers = arguments.pop("lower_order_final", True)
    for key in ("thresholding", "max_val"):  # `problem_of` thresholds the denoiser
        constructor.pop(key, None)
    method = arguments.pop("method", "multistep")
    if method != "multistep":
        raise ValueError(f"unknown method {method!r}")
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
