r"""Stochastic samplers of flows: ancestral steps, and the interpolant's tunable diffusion.

In the time u of a rectified flow, alpha = 1 - u and sigma = u; any other process is seen at the
times of equal sigma / alpha, rho = u / (1 - u).

Ancestral steps (ComfyUI's `*_ancestral_RF`, diffusers' LTXEulerAncestralRFScheduler) from u_s to
u_t go below, to u_t (1 + (u_t / u_s - 1) eta).

Stochastic interpolants (arXiv:2303.08797; SiT, arXiv:2401.08740) have the same
marginals for every diffusion coefficient epsilon(u) >= 0.  Backwards in u, with b the velocity and
s = -E[eps | x] / sigma the score,

    dX = (b - epsilon s) du + sqrt(2 epsilon) dW

Solved from u_s to u_t for a constant D, which is exact for data that are one image, this is a
deterministic step to a part of the target's noise, and fresh noise:

    rho_d = rho_t exp(-E),   E = int_{u_t}^{u_s} epsilon(u) / u^2 du

that is, noise of kind gamma with gamma = 1 - exp(-E).  epsilon = 0 is the ODE;
epsilon = u / (1 - u) is the reverse of the forward process, E = log(rho_s / rho_t), which is DDPM
(eta 1); epsilon = u / 2 is SiT's (its w(u) = sigma = 2 epsilon), finite from pure noise on; from
pure noise the reverse process forgets all, E = inf, as re-noising does at every step.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from s3search.errors import InvalidSchedule
from s3search.processes import Flow, NoiseProcess
from s3search.rules import (
    Adams,
    Free,
    Level,
    NoiseKind,
    Prediction,
    StepNoise,
    Taylor,
    level,
)
from s3search.schedules.published.common import on_times, paired_calls
from s3search.schedules.published.raised import Leg, Method, check_calls, raised_on
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid

Diffusion = Callable[[float], float]
"""epsilon(u) for 0 < u <= 1, a number at least 0 or inf."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_NEARLY_PURE = 0.9999  # of a flow, the inner point of a step from pure noise, as ComfyUI has it


def flow_ancestral(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "flow shift 1",
    end: End | None = None,
) -> Schedule:
    """Ancestral Euler steps of flows, one call each, by default to the clean end."""
    times = grid(process, nfe, spacing, end or End(rule=EndRule.DENOISE))
    return on_times(process, times, flow_ancestral_steps(nfe, eta, s_noise))


def flow_ancestral_steps(n: int, eta: float = 1.0, s_noise: float = 1.0) -> tuple[Step, ...]:
    """n ancestral Euler steps of a flow."""
    noise = StepNoise(kind=NoiseKind.FLOW_ETA, amount=eta, scale=s_noise) if eta else None
    return (Step(predictor=Adams(), noise=noise),) * n


def flow_2s_ancestral(
    process: Flow,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "flow shift 1",
    end: End | None = None,
) -> Schedule:
    """Ancestral DPM-Solver++(2S) steps of a flow from pure noise (ComfyUI's
    sample_dpmpp_2s_ancestral_RF): two calls each, one to the clean end, by default, with an odd
    ``nfe``.
    """
    end, clean = paired_calls("flow_2s_ancestral", nfe, end)
    times = grid(process, (nfe + clean) // 2, spacing, end)
    return check_calls(flow_2s_ancestral_on(process, times, eta=eta, s_noise=s_noise), nfe)


def flow_2s_ancestral_on(
    process: Flow, times: Sequence[float], *, eta: float = 1.0, s_noise: float = 1.0
) -> Schedule:
    """Ancestral DPM-Solver++(2S) steps of a flow on falling times: two calls per step, one to the
    clean end.  A first step from pure noise looks at u = 0.9999 instead of the middle.
    """
    noise, legs = StepNoise(kind=NoiseKind.FLOW_ETA, amount=eta, scale=s_noise), []
    for s, t in pairwise(times):
        below = t if t == 0.0 else noise.below(process, level(process, s), level(process, t)).t
        legs.append(Leg(below, t))
    if process.alpha(times[0]) > 0.0 or legs[0].to == 0.0:
        return raised_on(process, times[0], legs, Method.DPMPP_2S, s_noise=s_noise)
    first = _from_pure_noise(process, legs[0], s_noise)
    if len(legs) == 1:
        return Schedule(process=process, times=(times[0], _NEARLY_PURE, times[1]), steps=first)
    rest = raised_on(process, times[1], legs[1:], Method.DPMPP_2S, s_noise=s_noise)
    return Schedule(
        process=process,
        times=(times[0], _NEARLY_PURE, *rest.times),
        steps=(*first, *rest.steps),
    )


def interpolant_sde(
    process: NoiseProcess,
    *,
    nfe: int,
    epsilon: Diffusion | float,
    spacing: Spacing | str = "flow shift 1",
    end: End | None = None,
) -> Schedule:
    """Stochastic interpolants (arXiv:2303.08797) with a diffusion coefficient, a number or a
    function of the flow's time, by steps of first order, one call each.

    >>> interpolant_sde(Flow(), nfe=8, epsilon=sit_diffusion)
    """
    times = grid(process, nfe, spacing, end or End(rule=EndRule.DENOISE))
    steps = []
    for s, t in pairwise(times):
        noise = None
        if t != process.clean_time:
            noise = _diffused(level(process, s), level(process, t), epsilon)
        steps.append(Step(predictor=_FIRST_ORDER, noise=noise))
    return on_times(process, times, steps)


def sit_diffusion(u: float) -> float:
    """SiT's default: half of sigma."""
    return 0.5 * u


def full_diffusion(u: float) -> float:
    """That of the reverse of the forward process: u / (1 - u), infinite at pure noise."""
    return u / (1.0 - u) if u < 1.0 else math.inf


_FIRST_ORDER = Taylor(prediction=Prediction.DATA, order=1)


def _diffused(start: Level, to: Level, epsilon: Diffusion | float) -> StepNoise | None:
    """The noise of a step with this diffusion; None where there is none."""
    total = _total(_flow_time(to), _flow_time(start), epsilon)
    if not total >= 0.0:
        raise InvalidSchedule(f"epsilon: a diffusion coefficient is at least 0, found {epsilon!r}")
    gamma = -math.expm1(-total)
    return StepNoise(kind=NoiseKind.GAMMA, amount=gamma) if gamma > 0.0 else None


def _total(low: float, high: float, epsilon: Diffusion | float) -> float:
    """E, the integral of epsilon(u) / u^2."""
    if not callable(epsilon):
        return epsilon * (1.0 / low - 1.0 / high)
    if high == 1.0 and math.isinf(epsilon(1.0)):
        return math.inf
    # in log u, in whose terms published coefficients are smooth towards the clean end; near pure
    # noise an infinite one is smooth in log rho
    if high == 1.0:
        places = _places(math.log(low), 0.0)
        return sum(w * epsilon(math.exp(v)) / math.exp(v) for v, w in places)
    places = _places(math.log(low / (1.0 - low)), math.log(high / (1.0 - high)))
    times = [(1.0 / (1.0 + math.exp(-v)), w) for v, w in places]
    return sum(w * epsilon(u) * (1.0 - u) / u for u, w in times)


def _places(low: float, high: float) -> list[tuple[float, float]]:
    """Nodes and weights of an integral."""
    half, middle = 0.5 * (high - low), 0.5 * (high + low)
    return [
        (middle + half * float(x), half * float(w)) for x, w in zip(_NODES, _WEIGHTS, strict=True)
    ]


def _flow_time(at: Level) -> float:
    return at.sigma / (at.alpha + at.sigma)


def _from_pure_noise(process: Flow, leg: Leg, s_noise: float) -> tuple[Step, Step]:
    """The two steps of a leg from u = 1, where no solver of order two has a value."""
    below, to = level(process, leg.below), level(process, leg.to)
    raised = to.alpha / below.alpha
    fresh = math.sqrt(max(0.0, to.sigma**2 - (raised * below.sigma) ** 2))
    rule = Free(
        p=((-2, raised * below.sigma),),
        q=(raised * (1.0 - below.sigma),),
        noise=s_noise * fresh,
        carries=s_noise == 1.0,
    )
    return Step(predictor=_FIRST_ORDER), Step(predictor=rule)
