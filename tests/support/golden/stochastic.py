"""Golden cases with noise in their steps, as schedules; their README is that of the second set.

A sampler is an adaptor from a case to a schedule, or to a problem where the published code shows
the network something else.  Each raises as `cases.problem_of` does.
"""

from collections.abc import Callable, Mapping
from typing import Any

from s3search.schedules.schedule import Schedule
from tests.support.golden import ancestral, cases, churn, renoised, sde

Case = Mapping[str, Any]
Adaptor = Callable[[Case], "Schedule | cases.Problem"]


def problem_of(case: Case) -> "cases.Problem":
    """The problem that a case states, in our terms."""
    found = FAMILIES[case["family"]](case)
    if isinstance(found, Schedule):
        return cases.Problem(schedule=found, denoiser=cases.mixture(found.process))
    return found


def _by_name(case: Case) -> "Schedule | cases.Problem":
    name = case["solver"]["name"]
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; known: {sorted(SAMPLERS)}")
    return SAMPLERS[name](case)


SAMPLERS: dict[str, Adaptor] = {
    "sample_euler_ancestral": ancestral.k_euler,
    "EulerAncestralDiscreteScheduler": ancestral.euler,
    "sample_dpm_2_ancestral": ancestral.k_two_calls,
    "sample_dpmpp_2s_ancestral": ancestral.k_two_calls,
    "KDPM2AncestralDiscreteScheduler": ancestral.kdpm_2,
    "sample_euler": churn.k_diffusion,
    "sample_heun": churn.k_diffusion,
    "sample_dpm_2": churn.k_diffusion,
    "EulerDiscreteScheduler": churn.diffusers_euler,
    "EDMEulerScheduler": churn.diffusers_euler,
    "sample_euler_ancestral_RF": renoised.k_flow_euler,
    "sample_dpmpp_2s_ancestral_RF": renoised.k_flow_2s,
    "FlowMatchEulerDiscreteScheduler": renoised.flow_euler,
    "FlowMatchLCMScheduler": renoised.flow_lcm,
    "LTXEulerAncestralRFScheduler": renoised.ltx,
    "LCMScheduler": renoised.lcm,
    "TCDScheduler": renoised.tcd,
    "DDIMScheduler": ancestral.ddim,
    "DDPMScheduler": ancestral.ddpm,
    **sde.SAMPLERS,
}
"""Samplers of k-diffusion and schedulers of diffusers by their names."""

FAMILIES: dict[str, Adaptor] = {
    **dict.fromkeys(
        ("er_sde", "sa_solver", "seeds", "sde_diffusers", "sde_k_diffusion"), _by_name
    ),
    "sde_edm": churn.nvlabs,
    "adasde": renoised.ada,
    "restart": churn.restart,
}
