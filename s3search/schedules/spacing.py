"""Where the times of a published solver lie: they matter more than the solver.

A spacing places n + 1 times from the noisy end T of a process down to an end level:

    logsnr      uniform in lam = log(alpha / sigma)
    uniform     uniform in VP time: the process's own time for `vp_*` and `flow`; for `edm`
                the time of the linear VP process at the same sigma / alpha (Score SDE's grid)
    quadratic   uniform in the square root of that time
    karras      uniform in (sigma / alpha)^(1/7) (EDM, arXiv:2206.00364, eq. 5)

and an end says where they stop: ``stop`` returns the state at the end level; ``denoise`` spends
the last step on going from the end level to the clean end, so that the last call's D is returned.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from s3search.errors import InvalidSchedule
from s3search.processes import Edm, NoiseProcess, VpLinear, usual_end_time

_RHO = 7.0
_LARGEST_RATIO = (
    1e3  # sigma / alpha from which grids in lam or rho start when the noisy end is pure noise
)


class Spacing(StrEnum):
    """The quantity in which times are equidistant."""

    LOGSNR = "logsnr"
    UNIFORM = "uniform"
    QUADRATIC = "quadratic"
    KARRAS = "karras"


class EndRule(StrEnum):
    """What the last step does."""

    STOP = "stop"
    DENOISE = "denoise"


class End(BaseModel):
    """The end of a trajectory: ``sigma`` is the noise-to-signal ratio of the end level; None takes
    the process's usual one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: EndRule = EndRule.STOP
    sigma: float | None = Field(default=None, gt=0)


def noisy_time(process: NoiseProcess) -> float:
    """The time sampling starts from."""
    return process.time_range[1]


def time_of_ratio(process: NoiseProcess, ratio: float) -> float:
    """The time at which sigma / alpha equals ``ratio``."""
    return process.time_of_lam(-math.log(ratio))


def grid(
    process: NoiseProcess, n: int, spacing: Spacing | str, end: End | None = None
) -> tuple[float, ...]:
    """n + 1 falling times for n steps; with the `denoise` rule the last one is the clean end."""
    end = end or End()
    spacing = Spacing(spacing)
    start = noisy_time(process)
    stop = usual_end_time(process) if end.sigma is None else time_of_ratio(process, end.sigma)
    reason = process.check_time(stop)
    if reason is not None or not stop < start:
        raise InvalidSchedule(f"end: sigma = {end.sigma} is no level of this process; {reason}")
    denoise = end.rule is EndRule.DENOISE
    n_intervals = n - denoise
    if n_intervals < 0 or (n_intervals == 0 and not denoise):
        raise InvalidSchedule(f"a grid needs at least one step, asked for {n}")
    inner = spaced(process, start, stop, n_intervals, spacing)
    return (*inner, process.clean_time) if denoise else inner


def spaced(
    process: NoiseProcess, start: float, stop: float, n: int, spacing: Spacing
) -> tuple[float, ...]:
    """n + 1 times from ``start`` to ``stop``, equidistant in the spacing's quantity; the ends are
    exact.
    """
    match spacing:
        case Spacing.LOGSNR:
            low, high = _capped_lam(process, start), process.lam(stop)
            inner = [process.time_of_lam(low + (high - low) * i / n) for i in range(1, n)]
        case Spacing.KARRAS:
            first = math.exp(-_capped_lam(process, start) / _RHO)
            last = math.exp(-process.lam(stop) / _RHO)
            ratios = [(first + (last - first) * i / n) ** _RHO for i in range(1, n)]
            inner = [time_of_ratio(process, ratio) for ratio in ratios]
        case Spacing.UNIFORM | Spacing.QUADRATIC:
            power = 1.0 if spacing is Spacing.UNIFORM else 2.0
            clock: NoiseProcess = VpLinear() if isinstance(process, Edm) else process
            # VP time counted from the clean end, so that its square root exists
            zero = clock.clean_time
            first = (_same_level(process, clock, start) - zero) ** (1 / power)
            last = (_same_level(process, clock, stop) - zero) ** (1 / power)
            clocks = [(first + (last - first) * i / n) ** power + zero for i in range(1, n)]
            inner = [_same_level(clock, process, t) for t in clocks]
    return (start, *inner, stop) if n else (start,)


def whole_times(times: Sequence[float], cleanest: int = 0) -> list[float]:
    """Falling times moved to whole training steps, none below ``cleanest`` and no two to one; the
    first is one.
    """
    n, found = len(times), [times[0]]
    for i in range(1, n):
        lowest = cleanest + n - 1 - i
        found.append(float(min(max(round(times[i]), lowest), found[-1] - 1.0)))
    return found


def _same_level(source: NoiseProcess, target: NoiseProcess, t: float) -> float:
    return t if source is target else target.time_of_lam(source.lam(t))


def _capped_lam(process: NoiseProcess, t: float) -> float:
    return max(process.lam(t), -math.log(_LARGEST_RATIO))
