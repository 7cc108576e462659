"""Samplers that go (nearly) clean at every step and add the noise of the next level anew.

They are for networks that answer well in few calls: consistency and distilled models.

    LCM     x_0 = c_skip x + c_out D, then the noise of the next time (arXiv:2310.04378),
            c_skip = s^2 / ((k t)^2 + s^2),  c_out = k t / sqrt((k t)^2 + s^2),  s = 1/2,  t a
            training index and k its scaling
    TCD     DDIM to s = (1 - eta) t of the next time t, then noise (arXiv:2402.19159, alg. 2)
    DMD2    D, then the noise of the next time (arXiv:2405.14867); so do the stochastic
            flow samplers of diffusers
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from s3search.errors import InvalidSchedule
from s3search.processes import Edm, NoiseProcess, VpDiscrete, VpLinear
from s3search.rules import Free, NoiseKind, Prediction, StepNoise, Taylor
from s3search.schedules.published.common import on_times
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid

_SIGMA_DATA = 0.5
_FIRST_ORDER = Taylor(prediction=Prediction.DATA, order=1)


def renoised(
    process: NoiseProcess,
    *,
    nfe: int,
    gamma: float = 1.0,
    spacing: Spacing | str = "uniform",
    end: End | None = None,
) -> Schedule:
    """Every step goes to 1 - gamma of the next level's sigma / alpha, and noise brings it back up;
    with ``gamma`` 1, as DMD2 and diffusers' stochastic flow samplers, from the clean end.
    """
    times = grid(process, nfe, spacing, end or End(rule=EndRule.DENOISE))
    return on_times(process, times, renoised_steps(nfe, gamma))


def renoised_steps(n: int, gamma: float = 1.0, s_noise: float = 1.0) -> tuple[Step, ...]:
    """n steps with such noise, multiplied by ``s_noise``."""
    noise = StepNoise(kind=NoiseKind.GAMMA, amount=gamma, scale=s_noise) if gamma else None
    return (Step(predictor=_FIRST_ORDER, noise=noise),) * n


def distilled_times(process: VpDiscrete, n: int, original_steps: int = 50) -> list[float]:
    """The training indices of LCM and TCD: n of those on which the network was distilled."""
    if not 1 <= n <= original_steps <= process.n:
        raise InvalidSchedule(
            f"{original_steps=}: distilled models take 1 to that many calls, at most {process.n}; "
            f"asked for {n}"
        )
    stride = process.n // original_steps
    trained = [stride * (i + 1) - 1 for i in reversed(range(original_steps))]
    return [float(trained[i * original_steps // n]) for i in range(n)]


def lcm(
    process: VpDiscrete, *, nfe: int, timestep_scaling: float = 10.0, original_steps: int = 50
) -> Schedule:
    """Multistep sampling of latent consistency models (arXiv:2310.04378), with their boundary
    condition and on their timesteps.
    """
    times = [*distilled_times(process, nfe, original_steps), process.clean_time]
    return lcm_on(process, times, timestep_scaling)


def lcm_on(process: VpDiscrete, times: Sequence[float], timestep_scaling: float) -> Schedule:
    """LCM's steps on falling training indices, the last time the clean end."""
    steps = []
    for t, to in pairwise(times):
        scaled = timestep_scaling * t
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        out = scaled / math.sqrt(scaled**2 + _SIGMA_DATA**2)
        alpha = process.alpha(to)
        rule = Free(
            p=((-1, alpha * skip),), q=(alpha * out,), noise=process.sigma(to), carries=False
        )
        steps.append(Step(predictor=rule))
    return Schedule(process=process, times=times, steps=steps)


def tcd(process: VpDiscrete, *, nfe: int, eta: float = 0.3, original_steps: int = 50) -> Schedule:
    """Strategic stochastic sampling of trajectory consistency models (arXiv:2402.19159) on their
    timesteps, to training index 0; ``eta`` is their gamma, 0 deterministic.
    """
    return tcd_on(process, [*distilled_times(process, nfe, original_steps), 0.0], eta)


def tcd_on(process: NoiseProcess, times: Sequence[float], eta: float) -> Schedule:
    """TCD's steps on falling times, with whole training indices in between where the process has
    some; the last step adds no noise.
    """
    if not 0.0 <= eta <= 1.0:
        raise InvalidSchedule(f"eta: a share of the next time from 0 to 1, found {eta}")
    steps = []
    for to in times[1:-1]:
        s = _cleaner_time(process, to, 1.0 - eta)
        noise = StepNoise(kind=NoiseKind.TIME, amount=s) if s < to else None
        steps.append(Step(predictor=_FIRST_ORDER, noise=noise))
    return Schedule(process=process, times=times, steps=[*steps, Step(predictor=_FIRST_ORDER)])


def _cleaner_time(process: NoiseProcess, t: float, share: float) -> float:
    """The time at a share of ``t``, for `edm` in the time of the linear VP process."""
    if isinstance(process, VpDiscrete):
        return float(math.floor(share * t))
    if not isinstance(process, Edm):
        return share * t
    clock = VpLinear()
    at = share * clock.time_of_lam(process.lam(t))
    return process.time_of_lam(clock.lam(at)) if at > 0.0 else process.clean_time
