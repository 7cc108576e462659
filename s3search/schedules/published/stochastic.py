"""Samplers with fresh noise in every step: DDPM and the ancestral ones.

In y = x / alpha and rho = sigma / alpha, from rho_s to rho_t: a step of first order goes to
rho_down, and fresh noise brings the state up to rho_t,

    rho_t^2 = rho_down^2 + rho_up^2,   rho_up = min(rho_t, eta rho_t sqrt(1 - rho_t^2 / rho_s^2))

which is the posterior of the forward process for eta = 1 and the deterministic step for eta = 0
(DDIM, arXiv:2010.02502, eq. 16, and k-diffusion's ancestral steps alike).
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

from s3search.processes import NoiseProcess
from s3search.rules import Adams, Prediction, StepNoise, Taylor, level, refuse_pure_noise
from s3search.schedules.published.common import on_times, paired_calls
from s3search.schedules.published.raised import Leg, Method, check_calls, raised_on
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid


class Variance(StrEnum):
    """The variance of DDPM's steps (arXiv:2006.11239, sec. 3.2)."""

    FIXED_SMALL = "fixed_small"  # of the posterior of the forward process: the level's variance
    FIXED_LARGE = "fixed_large"  # that of the forward step, beta: more than the level has


def ddpm(
    process: NoiseProcess,
    *,
    nfe: int,
    variance: Variance | str = Variance.FIXED_SMALL,
    spacing: Spacing | str = "uniform",
    end: End | None = None,
) -> Schedule:
    """DDPM's ancestral sampling (arXiv:2006.11239, alg. 2) on chosen times, by default to the
    clean end, a step that adds no noise.

    With `fixed_small` it is DDIM with eta 1.  With `fixed_large` a state has more noise than its
    level: the noise of a step is multiplied by sigma_s / sigma_t of a variance preserving process.
    """
    times = grid(process, nfe, spacing, end or End(rule=EndRule.DENOISE))
    return on_times(process, times, ddpm_steps(process, times, variance))


def ddpm_steps(
    process: NoiseProcess, times: Sequence[float], variance: Variance | str = Variance.FIXED_SMALL
) -> tuple[Step, ...]:
    """DDPM's steps between these times."""
    kept = Variance(variance) is Variance.FIXED_SMALL
    steps = []
    for s, t in pairwise(times):
        scale = 1.0 if kept or t == process.clean_time else _larger(process, s, t)
        steps.append(Step(predictor=_FIRST_ORDER, noise=StepNoise(scale=scale)))
    return tuple(steps)


def euler_ancestral(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """Euler's step in sigma / alpha and fresh noise (k-diffusion's sample_euler_ancestral), by
    default to the clean end, a step that adds none; ``s_noise`` multiplies the noise.
    """
    times = grid(process, nfe, spacing, end or End(rule=EndRule.DENOISE))
    return on_times(process, times, euler_ancestral_steps(nfe, eta, s_noise))


def euler_ancestral_steps(n: int, eta: float = 1.0, s_noise: float = 1.0) -> tuple[Step, ...]:
    """n steps of Euler with the noise of such an ``eta``, multiplied by ``s_noise``."""
    noise = StepNoise(amount=eta, scale=s_noise) if eta != 0.0 else None
    return (Step(predictor=Adams(), noise=noise),) * n


def ancestral_on(
    process: NoiseProcess,
    times: Sequence[float],
    method: Method | str,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Schedule:
    """A solver's ancestral steps on falling times; one that reaches the clean end before its
    noise, as eta > 1 allows, is a step of one call.
    """
    noise, legs = StepNoise(amount=eta, scale=s_noise), []
    for s, t in pairwise(times):
        levels = level(process, s), level(process, t)
        is_clean = t == process.clean_time
        legs.append(Leg(t if is_clean else noise.below(process, *levels).t, t))
    return raised_on(process, times[0], legs, method, s_noise=s_noise)


def heun_ancestral(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """Heun's step (EDM, arXiv:2206.00364) to below the target and fresh noise: two calls per step,
    one on a last step to the clean end; ``nfe`` is odd there and even for the `stop` end.
    """
    grid_of = _paired_grid(process, Method.HEUN, nfe, spacing, end)
    return check_calls(ancestral_on(process, grid_of, Method.HEUN, eta=eta, s_noise=s_noise), nfe)


def dpm_2_ancestral(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """DPM-Solver-2 to below the target and fresh noise (k-diffusion's sample_dpm_2_ancestral),
    with the calls of `heun_ancestral`.

    Where eta > 1 is capped the published code adds no noise; this does.
    """
    grid_of = _paired_grid(process, Method.DPM_2, nfe, spacing, end)
    return check_calls(ancestral_on(process, grid_of, Method.DPM_2, eta=eta, s_noise=s_noise), nfe)


def dpmpp_2s_ancestral(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """DPM-Solver++(2S) to below the target and fresh noise (k-diffusion's
    sample_dpmpp_2s_ancestral), with the calls of `heun_ancestral`.
    """
    grid_of = _paired_grid(process, Method.DPMPP_2S, nfe, spacing, end)
    return check_calls(
        ancestral_on(process, grid_of, Method.DPMPP_2S, eta=eta, s_noise=s_noise), nfe
    )


def _paired_grid(
    process: NoiseProcess, method: Method, nfe: int, spacing: Spacing | str, end: End | None
) -> tuple[float, ...]:
    """The times of a solver of two calls per step."""
    end, clean = paired_calls(f"{method} ancestral", nfe, end)
    refuse_pure_noise(process)
    return grid(process, (nfe + clean) // 2, spacing, end)


_FIRST_ORDER = Taylor(prediction=Prediction.DATA, order=1)


def _larger(process: NoiseProcess, s: float, t: float) -> float:
    """sqrt(beta) of the step from s to t in terms of the posterior's standard deviation."""
    sigma_s, sigma_t = (1.0 / math.sqrt(1.0 + math.exp(2.0 * process.lam(at))) for at in (s, t))
    return sigma_s / sigma_t
