"""Samplers with fresh noise in every step, one network call each: DDPM and Euler ancestral.

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
from s3search.rules import Adams, Prediction, StepNoise, Taylor
from s3search.schedules.published.common import on_times
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


_FIRST_ORDER = Taylor(prediction=Prediction.DATA, order=1)


def _larger(process: NoiseProcess, s: float, t: float) -> float:
    """sqrt(beta) of the step from s to t in terms of the posterior's standard deviation."""
    sigma_s, sigma_t = (1.0 / math.sqrt(1.0 + math.exp(2.0 * process.lam(at))) for at in (s, t))
    return sigma_s / sigma_t
