"""Golden cases of SA-Solver: the authors' code and diffusers' scheduler."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from s3search.schedules import published
from s3search.schedules.schedule import CorrectorKind, Schedule, Step
from s3search.solvers.sample import Denoiser
from tests.support.golden import cases
from tests.support.golden.ancestral import check_arguments, check_config
from tests.support.golden.diffusers import Thresholded
from tests.support.golden.levels import (
    FLOW_KEYS,
    KARRAS_KEYS,
    THRESHOLDING_KEYS,
    idle_steps,
    level_times,
)

Case = Mapping[str, Any]

_PREDICTIONS = {"data_prediction": "data", "noise_prediction": "noise"}


def tau_of(given: Mapping[str, Any]) -> Callable[[float], float]:
    """tau as a function of the published code's time."""
    match given:
        case {"type": "constant", "value": value}:
            return lambda _: float(value)
        case {"type": "interval", "low": low, "high": high, "inside": inside, "outside": outside}:
            return lambda t: float(inside if low <= t <= high else outside)
    raise ValueError(f"unknown tau {given!r}")


def authors(case: Case) -> "cases.Problem":
    """scxue/SA-Solver, whose tau is that of a step's end."""
    names = ("skip_type", "t_start", "t_end", "steps", "mode", "predictor_order", "pc_mode")
    known = ("name", *names, "corrector_order", "algorithm_type", "tau")
    given = check_arguments(case["solver"], *known)
    process = cases.process_of(case)
    times, mode = cases.times_of(case, process), given["mode"]
    if mode not in ("few_steps", "more_steps"):
        raise ValueError(f"unknown mode {mode!r}")
    ends_clean = mode == "more_steps"
    kind = {"PEC": CorrectorKind.PSEUDO, "PECE": CorrectorKind.IMPLICIT}[given["pc_mode"]]
    tau, n = tau_of(given["tau"]), len(times) - 1
    steps = []
    for k, orders in enumerate(_authors_orders(n, given), start=1):
        is_last = k == n
        own = (orders[0], 0) if is_last and not ends_clean else orders
        steps.append(
            published.sa_step(
                own,
                0.0 if is_last and not ends_clean else tau(times[k]),
                prediction=_PREDICTIONS[given["algorithm_type"]],
                rescaled=not ends_clean,
                # at the end of a run that goes on to the clean end the network is called again
                kind=CorrectorKind.IMPLICIT if is_last else kind,
            )
        )
    if ends_clean:
        times, steps = [*times, process.clean_time], [*steps, *published.ddim_steps(1)]
    # without a corrector the clean image is made of a state that was seen already
    repeated = int(ends_clean and given["corrector_order"] == 0)
    return cases.Problem(
        schedule=published.on_times(process, times, steps),
        denoiser=cases.mixture(process),
        unused_calls=repeated,
    )


def _authors_orders(n: int, given: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Orders of predictors and correctors: lowered near the end, but not while they still rise."""
    p, c = given["predictor_order"], given["corrector_order"]
    rising = max(p, c - 1)
    return [
        (min(p, k), min(c, k + 1)) if k < rising else (min(p, n - k + 1), min(c, n - k + 2))
        for k in range(1, n + 1)
    ]


def diffusers(case: Case) -> "cases.Problem":
    """diffusers' SASolverScheduler, whose tau is that of a step's start."""
    known = ("predictor_order", "corrector_order", "algorithm_type", "lower_order_final")
    config = check_config(case, *known, *KARRAS_KEYS, *FLOW_KEYS, *THRESHOLDING_KEYS)
    check_arguments(case["solver"]["step"])
    times, tau = level_times(case), tau_of(case["solver"].get("tau", _USUAL))
    # where the last two levels are equal only a corrector moves the state there
    n = len(times) - 1
    process = cases.process_of(case)
    idle = idle_steps(case, times)
    steps = _diffusers_steps([tau(t) for t in case["timesteps"][:n]], config)
    schedule = Schedule(process=process, times=times[: n + 1 - idle], steps=steps[: n - idle])
    denoiser: Denoiser = cases.mixture(process)
    if config.get("thresholding"):
        denoiser = Thresholded(denoiser, config)
    return cases.Problem(schedule=schedule, denoiser=denoiser)


_USUAL = {"type": "interval", "low": 200, "high": 800, "inside": 1.0, "outside": 0.0}


def _diffusers_steps(taus: Sequence[float], config: Mapping[str, Any]) -> list[Step]:
    n = len(taus)
    p, c = config.get("predictor_order", 2), config.get("corrector_order", 2)
    prediction = _PREDICTIONS[config.get("algorithm_type", "data_prediction")]
    lowers = config.get("lower_order_final", True)
    steps = []
    for i, tau in enumerate(taus):
        predictor = min(p, i + 1, n - i if lowers else p)
        corrector = min(c, i + 2, n - i + 1 if lowers else c)
        orders = (predictor, corrector if i < n - 1 else 0)
        steps.append(published.sa_step(orders, tau, prediction=prediction))
    return steps


SAMPLERS: dict[str, Callable[[Case], "cases.Problem"]] = {
    "SASolver": authors,
    "SASolverScheduler": diffusers,
}
"""By their names."""
