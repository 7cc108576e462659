"""AdaSDE (arXiv:2510.23285): one noise number per step, learned with the step's inner points.

With sigma the time of `edm`, from sigma_s to sigma_t, the state first raised by fresh noise:

    sigma_hat = (1 + gamma) sigma_s          e = (x_hat - D(x_hat, sigma_hat)) / sigma_hat
    sigma_j = sigma_t^r_j sigma_hat^(1 - r_j)          x_j = x_hat + (sigma_j - sigma_hat) e
    e_j = (x_j - D(x_j, a_j sigma_j)) / sigma_j
    x_t = x_hat + (sigma_t - sigma_hat) sum_j w_j c_j e_j

The network is told a_j sigma_j; weights times c_j need not sum to 1, so that a step carries no
constant noise exactly.  gamma of a step is sum_j w_j gamma_j, and 0 at the first one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from s3search.errors import InvalidSchedule
from s3search.processes import Edm
from s3search.rules import Free
from s3search.schedules.schedule import Schedule, Start, StartKind, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerPoint:
    """One inner point: r_j, c_j, a_j and w_j of the module's docstring, and its gamma."""

    r: float = 0.5
    scale_dir: float = 1.0
    scale_time: float = 1.0
    weight: float = 1.0
    gamma: float = 0.0


def ada_sde(
    process: Edm,
    times: Sequence[float],
    points: Sequence[Sequence[InnerPoint]],
    *,
    afs: bool = False,
) -> Schedule:
    """AdaSDE's sampler on falling noise levels, with the learned ``points`` of every step: one
    call at its beginning and one per point.  ``afs`` saves the first call by a unit Gaussian's.

    A last time 0 takes the network's answer at the level before it, one call without points.
    """
    n = len(times) - 1 - (times[-1] == 0.0)
    if len(points) != n:
        raise InvalidSchedule(f"points: {n} steps need {n} lists of points, found {len(points)}")
    gammas = [0.0, *(sum(own.weight * own.gamma for own in each) for each in points[1:]), 0.0]
    hats = [(1.0 + gamma) * t for gamma, t in zip(gammas, times, strict=False)]
    visited, steps = [hats[0]], list[Step]()
    for own, (hat, raised), below in zip(points, pairwise(hats), times[1:], strict=False):
        inner, made = _step(own, hat, below, raised)
        visited += [*inner, raised]
        steps += made
    if times[-1] == 0.0:
        visited, steps = [*visited, 0.0], [*steps, Step(predictor=Free(q=(1.0,)))]
    start = Start(kind=StartKind.UNIT_NOISE if afs else StartKind.NETWORK)
    return Schedule(process=process, times=visited, steps=steps, start=start)


def _step(
    points: Sequence[InnerPoint], hat: float, below: float, raised: float
) -> tuple[list[float], list[Step]]:
    """The times and steps to the inner points, the noisiest first, and to the end."""
    ordered = sorted(points, key=lambda own: own.r)
    inner = [below**own.r * hat ** (1.0 - own.r) for own in ordered]
    steps = []
    for j, (own, sigma) in enumerate(zip(ordered, inner, strict=True)):
        kept = sigma / hat
        rule = Free(p=((-1 - j, kept),), q=(1.0 - kept, *[0.0] * j))
        network_time = own.scale_time * sigma if own.scale_time != 1.0 else None
        steps.append(Step(predictor=rule, network_time=network_time))
    slopes = [
        (below - hat) * own.weight * own.scale_dir / sigma
        for own, sigma in zip(ordered, inner, strict=True)
    ]
    m = len(points)
    rule = Free(
        p=((-1 - m, 1.0), *((j - m, slope) for j, slope in enumerate(slopes))),
        q=tuple(-slope for slope in slopes),
        noise=math.sqrt(max(0.0, raised**2 - below**2)),
        carries=False,
    )
    return inner, [*steps, Step(predictor=rule)]
