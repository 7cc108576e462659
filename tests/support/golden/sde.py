"""Golden cases of the multistep and multistage solvers of the reverse SDE."""

from collections.abc import Callable, Mapping
from typing import Any

from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from tests.support.golden import cases
from tests.support.golden.ancestral import sampler_arguments

Case = Mapping[str, Any]


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


SAMPLERS: dict[str, Callable[[Case], Schedule]] = {
    "sample_dpmpp_2m_sde": dpmpp_2m_sde,
    "sample_dpmpp_3m_sde": dpmpp_3m_sde,
}
"""Samplers of k-diffusion and schedulers of diffusers by their names."""
