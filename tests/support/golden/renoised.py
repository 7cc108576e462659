"""Golden cases of samplers that go clean and add noise anew, of flows' ancestral steps, and of
AdaSDE.
"""

from collections.abc import Mapping
from typing import Any

from s3search.processes import Edm, flow
from s3search.schedules import published
from s3search.schedules.published.ada_sde import InnerPoint, ada_sde
from s3search.schedules.published.flow_noise import flow_2s_ancestral_on, flow_ancestral_steps
from s3search.schedules.published.renoised import lcm_on, renoised_steps, tcd_on
from s3search.schedules.schedule import Schedule
from tests.support.golden import ancestral, cases
from tests.support.helpers import NoSchedule

Case = Mapping[str, Any]

_FLOW_LEVELS = (
    "base_image_seq_len",
    "base_shift",
    "max_image_seq_len",
    "max_shift",
    "shift",
    "shift_terminal",
    "time_shift_type",
    "use_dynamic_shifting",
)
_DISTILLED = ("original_inference_steps", "set_alpha_to_one", "timestep_scaling")
_UNUSED_CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")  # of FlowMatchEuler, which ignores it


def _flow_times(case: Case) -> list[float]:
    """The times of all calls and of the end."""
    if case["solver"].get("state_scaling", "flow") != "flow":
        raise ValueError(f"a state scaled as {case['solver']['state_scaling']!r}")
    return [*case["stds"][: case["nfe"]], case["std_end"]]


def flow_euler(case: Case) -> Schedule:
    """FlowMatchEulerDiscreteScheduler with stochastic_sampling."""
    config = ancestral.check_config(case, "stochastic_sampling", *_FLOW_LEVELS)
    ancestral.check_arguments(case["solver"]["step"], *_UNUSED_CHURN)
    times = _flow_times(case)
    gamma = 1.0 if config.get("stochastic_sampling") else 0.0
    return published.on_times(flow(), times, renoised_steps(len(times) - 1, gamma))


def flow_lcm(case: Case) -> Schedule:
    """FlowMatchLCMScheduler, which may not change the size of its images here."""
    ancestral.check_config(case, *_FLOW_LEVELS)
    ancestral.check_arguments(case["solver"]["step"])
    times = _flow_times(case)
    return published.on_times(flow(), times, renoised_steps(len(times) - 1))


def ltx(case: Case) -> Schedule:
    """LTXEulerAncestralRFScheduler."""
    config = ancestral.check_config(case, "eta", "s_noise")
    ancestral.check_arguments(case["solver"]["step"])
    times = _flow_times(case)
    steps = flow_ancestral_steps(
        len(times) - 1, config.get("eta", 1.0), config.get("s_noise", 1.0)
    )
    return published.on_times(flow(), times, steps)


def k_flow_euler(case: Case) -> Schedule:
    """ComfyUI's sample_euler_ancestral_RF."""
    given = ancestral.sampler_arguments(case, "eta", "s_noise")
    times = case["timesteps"]
    steps = flow_ancestral_steps(len(times) - 1, **given)
    return published.on_times(flow(), times, steps)


def k_flow_2s(case: Case) -> Schedule:
    """ComfyUI's sample_dpmpp_2s_ancestral_RF."""
    given = ancestral.sampler_arguments(case, "eta", "s_noise")
    return flow_2s_ancestral_on(flow(), case["timesteps"], **given)


def lcm(case: Case) -> "cases.Problem":
    """diffusers' LCMScheduler."""
    config = ancestral.check_config(case, *_DISTILLED, *ancestral.CHANGES)
    ancestral.check_arguments(case["solver"]["step"])
    process, times = ancestral.index_times(case)
    schedule = lcm_on(process, times, config.get("timestep_scaling", 10.0))
    denoiser = ancestral.changed(cases.mixture(process), config, clips=False)
    return cases.Problem(schedule=schedule, denoiser=denoiser)


def tcd(case: Case) -> Schedule:
    """diffusers' TCDScheduler."""
    config = ancestral.check_config(case, *_DISTILLED, *ancestral.CHANGES)
    given = ancestral.check_arguments(case["solver"]["step"], "eta")
    if config.get("clip_sample") or config.get("thresholding"):
        raise NoSchedule("x0 is changed and the noise beside it is not")
    process, times = ancestral.index_times(case)
    return tcd_on(process, times, given.get("eta", 0.3))


def ada(case: Case) -> Schedule:
    """AdaSDE's sampler with given parameters."""
    solver, process = case["solver"], cases.process_of(case)
    ancestral.check_arguments(
        solver,
        *("name", "sigma_min", "sigma_max", "schedule_type", "schedule_rho", "num_steps"),
        *("afs", "denoise_to_zero", "parameters"),
    )
    given = dict(solver["parameters"])
    drops_last = given.pop("fcn", False)
    names = ("r", "scale_dir", "scale_time", "gamma", "weight")
    ancestral.check_arguments(given, *names)
    rows = [[given[name][i] for name in names] for i in range(len(given["r"]))]
    points = [
        [InnerPoint(**dict(zip(names, own, strict=True))) for own in zip(*row, strict=True)]
        for row in rows
    ]
    if drops_last:
        points[-1] = [
            InnerPoint(r=own.r, scale_time=own.scale_time, weight=own.weight, gamma=own.gamma)
            for own in points[-1]
        ]
    times = list(case["timesteps"])
    if solver["denoise_to_zero"] and times[-1] != 0.0:
        times.append(0.0)
    assert isinstance(process, Edm)
    return ada_sde(process, times, points, afs=solver["afs"])
