"""Golden cases of ancestral samplers: k-diffusion's, and those of diffusers with DDIM and DDPM."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from s3search.processes import VpDiscrete, edm
from s3search.rules import Free, level
from s3search.schedules import published
from s3search.schedules.published.raised import Method
from s3search.schedules.published.stochastic import ancestral_on
from s3search.schedules.schedule import Schedule, Step
from s3search.solvers.sample import Denoiser
from tests.support.golden import cases
from tests.support.golden.diffusers import Thresholded
from tests.support.helpers import NoSchedule

Case = Mapping[str, Any]

MODEL_KEYS = frozenset(
    {
        "beta_end",
        "beta_schedule",
        "beta_start",
        "num_train_timesteps",
        "prediction_type",
        "steps_offset",
        "timestep_spacing",
        "trained_betas",
        "use_beta_sigmas",
        "use_exponential_sigmas",
        "use_karras_sigmas",
    }
)
"""Of a scheduler's config: what a case's process and levels say already."""


def check_config(case: Case, *known: str) -> Mapping[str, Any]:
    """The config of a diffusers case; raises `ValueError` for a key that nobody has looked at."""
    config: Mapping[str, Any] = case["solver"]["config"]
    unknown = set(config) - MODEL_KEYS - set(known)
    if unknown:
        raise ValueError(f"{case['solver']['name']}: unknown settings {sorted(unknown)}")
    return config


def check_arguments(arguments: Mapping[str, Any], *known: str) -> Mapping[str, Any]:
    """Arguments of a call; raises `ValueError` for one that nobody has looked at."""
    unknown = set(arguments) - set(known)
    if unknown:
        raise ValueError(f"unknown arguments {sorted(unknown)}")
    return arguments


def sampler_arguments(case: Case, *known: str) -> Mapping[str, Any]:
    """What a k-diffusion sampler was called with."""
    given = {key: value for key, value in case["solver"].items() if key not in ("name", "sigmas")}
    return check_arguments(given, *known)


def sigmas_of(case: Case) -> list[float]:
    """The noise levels of all calls and of the end, of a state that is kept at x / alpha."""
    if case["solver"].get("state_scaling", "ve") != "ve":
        raise ValueError(f"a state scaled as {case['solver']['state_scaling']!r}")
    ratio = case["std_end"] / case["alpha_end"]
    return [*case["sigmas"][: case["nfe"]], ratio]


def k_euler(case: Case) -> Schedule:
    """k-diffusion's sample_euler_ancestral."""
    given = sampler_arguments(case, "eta", "s_noise")
    times = case["timesteps"]
    steps = published.euler_ancestral_steps(
        len(times) - 1, given.get("eta", 1.0), given.get("s_noise", 1.0)
    )
    return published.on_times(cases.process_of(case), times, steps)


def euler(case: Case) -> Schedule:
    """diffusers' EulerAncestralDiscreteScheduler, which keeps its state at x / alpha."""
    check_config(case, "rescale_betas_zero_snr")
    check_arguments(case["solver"]["step"])
    sigmas = sigmas_of(case)
    return published.on_times(edm(), sigmas, published.euler_ancestral_steps(len(sigmas) - 1))


def k_two_calls(case: Case) -> Schedule:
    """k-diffusion's sample_dpm_2_ancestral and sample_dpmpp_2s_ancestral."""
    given = sampler_arguments(case, "eta", "s_noise")
    method = case["solver"]["name"].removeprefix("sample_").removesuffix("_ancestral")
    if method == Method.DPM_2 and case.get("upstream_defect"):
        raise NoSchedule(case["upstream_defect"])
    return ancestral_on(cases.process_of(case), case["timesteps"], method, **given)


def kdpm_2(case: Case) -> Schedule:
    """diffusers' KDPM2AncestralDiscreteScheduler: two calls per step, one on the last."""
    check_config(case)
    check_arguments(case["solver"]["step"])
    sigmas = sigmas_of(case)
    return ancestral_on(edm(), [*sigmas[:-1:2], sigmas[-1]], Method.DPM_2)


def ddim(case: Case) -> "cases.Problem":
    """diffusers' DDIMScheduler with eta."""
    config = check_config(case, "set_alpha_to_one", *CHANGES)
    given = check_arguments(case["solver"]["step"], "eta", "use_clipped_model_output")
    if _changes_data(config, clips=True) and not given.get("use_clipped_model_output"):
        raise NoSchedule("x0 is changed and the noise beside it is not")
    process, times = index_times(case)
    unused_calls = int(times[-1] >= times[-2])  # set_alpha_to_one false: from index 0 to itself
    times = times[: len(times) - unused_calls]
    eta, targets = given.get("eta", 0.0), _targets(case, process, times)
    if targets == times[1:]:
        steps = published.ddim_steps(len(targets), eta)
        schedule = published.on_times(process, times, steps)
    else:
        schedule = _ddim_beside(process, times, targets, eta)
    return cases.Problem(
        schedule=schedule,
        denoiser=changed(cases.mixture(process), config, clips=True),
        unused_calls=unused_calls,
    )


def ddpm(case: Case) -> "cases.Problem":
    """diffusers' DDPMScheduler with a fixed variance."""
    config = check_config(case, "variance_type", *CHANGES)
    check_arguments(case["solver"]["step"])
    process, times = index_times(case)
    variance = str(config.get("variance_type", "fixed_small"))
    if variance.startswith("learned"):
        raise NoSchedule("the network says the variance")
    if variance == "fixed_large_log":
        raise NoSchedule("published code gives NaN")
    name = variance.removesuffix("_log")
    wasted = _drawn_at_the_end(case, times)
    if wasted and name == "fixed_large":
        raise NoSchedule("noise is added to the clean image")
    schedule = published.on_times(process, times, published.ddpm_steps(process, times, name))
    denoiser = changed(cases.mixture(process), config, clips=True)
    return cases.Problem(schedule=schedule, denoiser=denoiser, unused_draws=wasted)


def _drawn_at_the_end(case: Case, times: Sequence[float]) -> frozenset[int]:
    """The number of the draw that a last step adds to the clean image: one of DDPM's that does
    not begin at index 0, with a deviation of 1e-10 where the variance is small.
    """
    draws = len(case["noises"])
    is_drawn = times[-2] > 0.0 and draws == len(times) - 1
    return frozenset({draws - 1}) if is_drawn else frozenset()


def index_times(case: Case) -> tuple[VpDiscrete, list[float]]:
    """The process and the times of all calls and of the end, of a state of its scale."""
    if case["solver"]["state_scaling"] != "vp":
        raise ValueError(f"a state scaled as {case['solver']['state_scaling']!r}")
    process = cases.process_of(case)
    assert isinstance(process, VpDiscrete)
    times = [float(t) for t in case["timesteps"][:-1]]
    if case["std_end"] == 0.0:
        return process, [*times, process.clean_time]
    end = process.time_of_lam(_lam(case["alpha_end"], case["std_end"]))
    return process, [*times, round(end, 6) + 0.0]


def _lam(alpha: float, sigma: float) -> float:
    return float(torch.log(torch.tensor(alpha / sigma, dtype=torch.float64)))


def _targets(case: Case, process: VpDiscrete, times: Sequence[float]) -> list[float]:
    """The level at which each step of DDIM ends: t - 1000 // n, clean below index 0, and the last
    one that of the case.
    """
    training_steps = case["solver"]["config"].get("num_train_timesteps", 1000)
    stride = training_steps // case["solver"]["num_inference_steps"]
    below = [t - stride for t in times[:-2]]
    return [*(t if t >= 0.0 else process.clean_time for t in below), times[-1]]


def _ddim_beside(
    process: VpDiscrete, times: Sequence[float], targets: Sequence[float], eta: float
) -> Schedule:
    """DDIM whose steps end beside the times that the next ones read their states at; what noise
    and image a state has is not what its level says.
    """
    steps = []
    for s, t in zip(times, targets, strict=False):
        at, to = level(process, s), level(process, t)
        beta = 1.0 - (at.alpha / to.alpha) ** 2
        fresh = eta * to.sigma / at.sigma * math.sqrt(beta)
        slope = math.sqrt(to.sigma**2 - fresh**2) / at.sigma  # of eps, in terms of x - alpha D
        rule = Free(p=((-1, slope),), q=(to.alpha - slope * at.alpha,), noise=fresh, carries=False)
        steps.append(Step(predictor=rule))
    return Schedule(process=process, times=times, steps=steps)


CHANGES = (
    "clip_sample",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "thresholding",
)
"""Settings by which a scheduler changes x0."""


def _changes_data(config: Mapping[str, Any], *, clips: bool) -> bool:
    return bool(config.get("thresholding") or config.get("clip_sample", clips))


def changed(denoiser: Denoiser, config: Mapping[str, Any], *, clips: bool) -> Denoiser:
    """The denoiser as a scheduler changes its answers; ``clips`` is what it does by itself."""
    if config.get("thresholding"):
        return Thresholded(denoiser, config)
    if config.get("clip_sample", clips):
        return Clipped(denoiser, config.get("clip_sample_range", 1.0))
    return denoiser


class Clipped:
    """x0 clamped to [-bound, bound]."""

    def __init__(self, denoiser: Denoiser, bound: float) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self._denoiser, self._bound = denoiser, bound

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self._denoiser(x, t, **condition).clamp(-self._bound, self._bound)
