"""SEEDS (arXiv:2305.14267): singlestep solvers of the reverse SDE whose noise is of one path.

Inner points are at parts of the step in lam.  The draws to them come back in the draw of the whole
step.  eta and s_noise are ComfyUI's (1 in the paper).  By default they end clean, with a step that
draws nothing.
"""

from collections.abc import Sequence
from itertools import pairwise

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import (
    Derivative,
    Prediction,
    Relaxation,
    RelaxationKind,
    SdeTaylor,
    StepNoise,
    Taylor,
)
from s3search.schedules.published.common import check_order, on_times
from s3search.schedules.published.sde import CLEAN, SdeVariant, between, sde_noise
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid

_HALF_BH2 = Relaxation(kind=RelaxationKind.DPMSOLVER_2)
_THIRDS = (1.0 / 3.0, 2.0 / 3.0)


def seeds_2(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    variant: SdeVariant | str = SdeVariant.MIDPOINT,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """SEEDS-2: two calls a step, the second at a part r of it, and one to the clean end."""
    outer = _outer(process, nfe, 2, spacing, end)
    noise = sde_noise(eta, s_noise)
    times, steps = seeds_on(process, outer, 2, noise=noise, parts=(r,), variant=variant)
    return on_times(process, times, steps)


def seeds_3(
    process: NoiseProcess,
    *,
    nfe: int,
    eta: float = 1.0,
    s_noise: float = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """SEEDS-3: three calls a step, at its start and thirds, and one to the clean end."""
    outer = _outer(process, nfe, 3, spacing, end)
    times, steps = seeds_on(process, outer, 3, noise=sde_noise(eta, s_noise))
    return on_times(process, times, steps)


def seeds_on(
    process: NoiseProcess,
    outer: Sequence[float],
    order: int,
    *,
    prediction: Prediction | str = Prediction.DATA,
    noise: StepNoise | None = None,
    parts: Sequence[float] | None = None,
    variant: SdeVariant | str = SdeVariant.MIDPOINT,
) -> tuple[tuple[float, ...], tuple[Step, ...]]:
    """SEEDS of orders 1 to 3 between chosen times: the times with those of the inner calls, and
    steps; the one to the clean end is Euler's.

    ``parts`` are where the inner points lie; ``variant`` makes a difference at order 2 only.
    """
    check_order(order, 3)
    inner = {1: (), 2: (0.5,), 3: _THIRDS}[order] if parts is None else tuple(parts)
    if len(inner) != order - 1:
        raise InvalidSchedule(f"parts: order {order} has {order - 1}, found {len(inner)}")
    steps_within = _steps_within(
        order, Prediction(prediction), noise or sde_noise(), SdeVariant(variant)
    )
    times, steps = [outer[0]], list[Step]()
    for s, t in pairwise(outer):
        if t == process.clean_time:
            times, steps = [*times, t], [*steps, _EULER]
            continue
        times += [*(between(process, s, t, part) for part in inner), t]
        steps += steps_within
    return tuple(times), tuple(steps)


_EULER = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))


def _steps_within(
    order: int, prediction: Prediction, noise: StepNoise, variant: SdeVariant
) -> list[Step]:
    """To the inner points and the end of one step; all start from its first point."""
    half = _HALF_BH2 if order == 2 and variant is SdeVariant.MIDPOINT else None
    slope = (Derivative(points=(-1,), relaxation=half),)
    rules = [SdeTaylor(prediction=prediction, order=1, noise=noise)]
    rules += [
        SdeTaylor(
            prediction=prediction,
            order=2,
            start=-1 - n,
            derivatives=slope,
            noise=noise,
            along_path=True,
        )
        for n in range(1, order)
    ]
    return [Step(predictor=rule) for rule in rules]


def _outer(
    process: NoiseProcess, nfe: int, calls: int, spacing: Spacing | str, end: End | None
) -> tuple[float, ...]:
    """The times between which whole steps of so many calls are taken."""
    end = end or CLEAN
    clean = end.rule is EndRule.DENOISE
    n, left = divmod(nfe - clean, calls)
    if left or n < 1:
        last = " and one more" if clean else ""
        raise InvalidSchedule(
            f"SEEDS-{calls} makes {calls} network calls a step{last}, asked for nfe {nfe}"
        )
    return grid(process, n + clean, spacing, end)
