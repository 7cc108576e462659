"""Golden cases of the multistep and multistage solvers of the reverse SDE."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from s3search.processes import NoiseProcess, edm
from s3search.rules import Prediction
from s3search.schedules import published
from s3search.schedules.published import sde_step
from s3search.schedules.schedule import Schedule
from s3search.solvers.sample import Denoiser
from tests.support.golden import cases, er_sde, sa_solver, seeds
from tests.support.golden.ancestral import (
    check_arguments,
    check_config,
    sampler_arguments,
    sigmas_of,
)
from tests.support.golden.diffusers import Thresholded
from tests.support.golden.levels import (
    FLOW_KEYS,
    KARRAS_KEYS,
    THRESHOLDING_KEYS,
    idle_steps,
    level_times,
)
from tests.support.helpers import NoSchedule

Case = Mapping[str, Any]

_SHORT_RUN = 15

MULTISTEP_KEYS = (
    "algorithm_type",
    "solver_order",
    "solver_type",
    "lower_order_final",
    "euler_at_final",
    "final_sigmas_type",
)


def dpmpp_2m_sde(case: Case) -> Schedule:
    """k-diffusion's sample_dpmpp_2m_sde."""
    given = sampler_arguments(case, "eta", "s_noise", "solver_type")
    noise = published.sde_noise(given.get("eta", 1.0), given.get("s_noise", 1.0))
    variant = given.get("solver_type", "midpoint")
    times = case["timesteps"]
    steps = published.sde_steps(len(times) - 1, order=2, noise=noise, variant=variant)
    return published.on_times(cases.process_of(case), times, steps)


def dpmpp_3m_sde(case: Case) -> Schedule:
    """k-diffusion's sample_dpmpp_3m_sde."""
    given = sampler_arguments(case, "eta", "s_noise")
    noise = published.sde_noise(given.get("eta", 1.0), given.get("s_noise", 1.0))
    times = case["timesteps"]
    steps = published.sde_steps(len(times) - 1, order=3, noise=noise, variant="heun")
    return published.on_times(cases.process_of(case), times, steps)


def dpmpp_sde(case: Case) -> Schedule:
    """k-diffusion's sample_dpmpp_sde."""
    given = sampler_arguments(case, "eta", "s_noise", "r")
    process = cases.process_of(case)
    numbers = (given.get(*default) for default in (("eta", 1.0), ("s_noise", 1.0), ("r", 0.5)))
    times, steps = published.dpmpp_sde_on(process, case["timesteps"], *numbers)
    return published.on_times(process, times, steps)


def dpm_solver_sde(case: Case) -> Schedule:
    """diffusers' DPMSolverSDEScheduler, which keeps its state at x / alpha; its levels are listed
    with those of the inner points.
    """
    check_config(case, *KARRAS_KEYS, "noise_sampler_seed")
    check_arguments(case["solver"]["step"], "s_noise")
    levels = sigmas_of(case)
    outer = [*levels[:-1:2], levels[-1]]
    s_noise = case["solver"]["step"].get("s_noise", 1.0)
    times, steps = published.dpmpp_sde_on(edm(), outer, 1.0, s_noise)
    return published.on_times(edm(), times, steps)


# --- multistep schedulers of diffusers ---


def dpm_multistep(case: Case) -> "cases.Problem":
    """diffusers' DPMSolverMultistepScheduler with one of its stochastic algorithms."""
    config = check_config(case, *MULTISTEP_KEYS, *KARRAS_KEYS, *FLOW_KEYS, *THRESHOLDING_KEYS)
    check_arguments(case["solver"]["step"])
    algorithm = config["algorithm_type"]
    predictions = {"sde-dpmsolver++": Prediction.DATA, "sde-dpmsolver": Prediction.NOISE}
    if algorithm not in predictions:
        raise ValueError(f"unknown algorithm {algorithm!r}; known: {sorted(predictions)}")
    if algorithm == "sde-dpmsolver" and config.get("solver_order", 2) == 3:
        raise NoSchedule("published code has no step of order 3 for the noise prediction")
    return _multistep(case, cases.process_of(case), level_times(case), predictions[algorithm])


def cosine_multistep(case: Case) -> "cases.Problem":
    """diffusers' CosineDPMSolverMultistepScheduler, which keeps its state at x / alpha."""
    known = ("sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho")
    config = check_config(case, *MULTISTEP_KEYS, *known)
    check_arguments(case["solver"]["step"])
    if config.get("solver_order", 2) > 2:
        raise NoSchedule("published code has no step of order 3")
    return _multistep(case, edm(), sigmas_of(case), Prediction.DATA)


def _multistep(
    case: Case, process: NoiseProcess, times: Sequence[float], prediction: Prediction
) -> "cases.Problem":
    config, n = case["solver"]["config"], len(times) - 1
    variant = config.get("solver_type", "midpoint")
    orders = multistep_orders(n, config)
    steps = [sde_step(order, prediction, variant=variant) for order in orders]
    # a last step between two equal levels does nothing, at the price of a call
    idle = idle_steps(case, times)
    schedule = published.on_times(process, times[: n + 1 - idle], steps[: n - idle])
    denoiser: Denoiser = cases.mixture(process)
    if config.get("thresholding"):
        denoiser = Thresholded(denoiser, config)
    return cases.Problem(schedule=schedule, denoiser=denoiser, unused_calls=idle)


def multistep_orders(n: int, config: Mapping[str, Any]) -> list[int]:
    """The orders of diffusers' n multistep steps; those near the end are lowered below 15 steps,
    and the last wherever it ends clean.
    """
    highest, is_short = config.get("solver_order", 2), n < _SHORT_RUN
    lowers = config.get("lower_order_final", True) and is_short
    ends_clean = config.get("final_sigmas_type", "zero") == "zero"
    orders = [min(highest, i + 1, n - i if lowers else highest) for i in range(n)]
    if config.get("euler_at_final") or ends_clean:
        orders[-1] = 1
    return orders


SAMPLERS: dict[str, Callable[[Case], "Schedule | cases.Problem"]] = {
    "sample_dpmpp_2m_sde": dpmpp_2m_sde,
    "sample_dpmpp_3m_sde": dpmpp_3m_sde,
    "sample_dpmpp_sde": dpmpp_sde,
    "CosineDPMSolverMultistepScheduler": cosine_multistep,
    "DPMSolverMultistepScheduler": dpm_multistep,
    "DPMSolverSDEScheduler": dpm_solver_sde,
    **er_sde.SAMPLERS,
    **seeds.SAMPLERS,
    **sa_solver.SAMPLERS,
}
"""Samplers of k-diffusion and schedulers of diffusers by their names."""
