"""Churn and restarts: noise is added to a state, and the step begins at the higher level.

EDM's stochastic sampler (arXiv:2206.00364, alg. 2), in rho = sigma / alpha:

    gamma = min(S_churn / N, sqrt(2) - 1) where S_min <= rho <= S_max, else 0
    rho_hat = (1 + gamma) rho,   y_hat = y + S_noise sqrt(rho_hat^2 - rho^2) xi

and then a deterministic step from (y_hat, rho_hat).  The network is called at rho_hat, which is
why a schedule has rho_hat among its times, and noise of a step before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from s3search.processes import NoiseProcess
from s3search.rules import NoiseKind, StepNoise, refuse_pure_noise
from s3search.schedules.published.common import paired_calls
from s3search.schedules.published.raised import Leg, Method, check_calls, process_ratio, raised_on
from s3search.schedules.schedule import Schedule, Start
from s3search.schedules.spacing import End, EndRule, Spacing, grid, time_of_ratio

_MOST_GAMMA = math.sqrt(2.0) - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """How much noise is added, at which levels (sigma / alpha), and by what it is multiplied.

    The defaults are those that EDM's authors give for their ImageNet-64 model.
    """

    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.003

    def raised(self, ratio: float, n: int) -> float:
        """rho_hat of a step from ``ratio``, one of n."""
        if not self.s_min <= ratio <= self.s_max:
            return ratio
        return (1.0 + min(self.s_churn / n, _MOST_GAMMA)) * ratio


def churn_on(
    process: NoiseProcess, times: Sequence[float], method: Method | str, churn: Churn
) -> Schedule:
    """A solver with churn on falling times, the last of them clean or not."""
    hats, start = churned(process, times, churn)
    legs = [Leg(t, hat) for t, hat in zip(times[1:], hats[1:], strict=True)]
    return raised_on(process, hats[0], legs, method, s_noise=churn.s_noise, start=start)


def churned(
    process: NoiseProcess, times: Sequence[float], churn: Churn
) -> tuple[list[float], Start]:
    """The times to which churn raises those of a run, the last as it is, and the start there."""
    n = len(times) - 1
    hats = [_raised_time(process, t, churn, n) for t in times[:-1]]
    start = Start()
    if hats[0] != times[0]:
        noise = StepNoise(kind=NoiseKind.TIME, amount=times[0], scale=churn.s_noise)
        start = Start(noise=noise)
    return [*hats, times[-1]], start


def euler_churn(
    process: NoiseProcess,
    *,
    nfe: int,
    churn: Churn | None = None,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """Euler with churn (k-diffusion's sample_euler), one call per step."""
    refuse_pure_noise(process)
    times = grid(process, nfe, spacing, end or End(rule=EndRule.DENOISE))
    return churn_on(process, times, Method.EULER, churn or Churn())


def heun_churn(
    process: NoiseProcess,
    *,
    nfe: int,
    churn: Churn | None = None,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """EDM's stochastic sampler (arXiv:2206.00364, alg. 2): Heun with churn, two calls per step,
    one on a last step to the clean end; ``nfe`` is odd there and even for the `stop` end.
    """
    return _paired(process, Method.HEUN, nfe, churn, (spacing, end))


def dpm_2_churn(
    process: NoiseProcess,
    *,
    nfe: int,
    churn: Churn | None = None,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """DPM-Solver-2 with churn (k-diffusion's sample_dpm_2), with the calls of `heun_churn`."""
    return _paired(process, Method.DPM_2, nfe, churn, (spacing, end))


def _paired(
    process: NoiseProcess,
    method: Method,
    nfe: int,
    churn: Churn | None,
    grid_of: tuple[Spacing | str, End | None],
) -> Schedule:
    spacing, wanted = grid_of
    end, clean = paired_calls(f"{method} with churn", nfe, wanted)
    refuse_pure_noise(process)
    times = grid(process, (nfe + clean) // 2, spacing, end)
    return check_calls(churn_on(process, times, method, churn or Churn()), nfe)


def _raised_time(process: NoiseProcess, t: float, churn: Churn, n: int) -> float:
    ratio = process_ratio(process, t)
    raised = churn.raised(ratio, n)
    return t if raised == ratio else time_of_ratio(process, raised)
