"""Where the times of a published solver lie: they matter more than the solver.

A spacing places n + 1 times from the noisy end T of a process down to an end level:

    logsnr            uniform in lam = log(alpha / sigma), where sigma falls exponentially
    uniform           uniform in VP time: the process's own time for `vp_*` and `flow`; for `edm`
                      the time of the linear VP process at the same sigma / alpha (Score SDE's)
    quadratic         uniform in the square root of that time
    beta              quantiles of Beta(0.6, 0.6) in that time (arXiv:2407.12173)
    karras            uniform in (sigma / alpha)^(1/7) (EDM, arXiv:2206.00364, eq. 5)
    flow shift s      uniform in u, where t = s u / (1 + (s - 1) u) is the time of a rectified flow
                      at the same sigma / alpha (arXiv:2403.03206, eq. 23)
    linear-quadratic  in that flow's time half of the steps share the first fortieth of the way,
                      the others grow linearly (Mochi's)

and an end says where they stop: ``stop`` returns the state at the end level; ``denoise`` spends
the last step on going from the end level to the clean end, so that the last call's D is returned.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from s3search.errors import InvalidSchedule
from s3search.processes import Edm, Flow, NoiseProcess, VpLinear, usual_end_time

BEGIN = 80.0
"""sigma / alpha from which published solvers begin where the process goes that far: EDM's."""

_SLACK = 1e-6  # in lam
_RHO = 7.0
_BETA = 0.6  # both parameters
_LINEAR_SHARE = 0.025  # of the way, for the linear half
_LARGEST_RATIO = (
    1e3  # sigma / alpha from which grids in lam or rho start when the noisy end is pure noise
)


class Spacing(StrEnum):
    """The quantity in which times are equidistant."""

    LOGSNR = "logsnr"
    UNIFORM = "uniform"
    QUADRATIC = "quadratic"
    KARRAS = "karras"
    BETA = "beta"
    FLOW = "flow shift 1"
    FLOW_3 = "flow shift 3"
    FLOW_5 = "flow shift 5"
    LINEAR_QUADRATIC = "linear-quadratic"

    @property
    def within_steps(self) -> "Spacing":
        """The spacing of nodes inside one step: the time in which this one places its steps."""
        return _WITHIN_STEPS.get(self, self)


_WITHIN_STEPS = {Spacing.BETA: Spacing.UNIFORM, Spacing.LINEAR_QUADRATIC: Spacing.FLOW}
_SHIFTS = {Spacing.FLOW: 1.0, Spacing.FLOW_3: 3.0, Spacing.FLOW_5: 5.0}


class EndRule(StrEnum):
    """What the last step does."""

    STOP = "stop"
    DENOISE = "denoise"


class End(BaseModel):
    """The end of a trajectory: ``sigma`` is the noise-to-signal ratio of the end level; None takes
    the process's usual one.  ``begin`` is the ratio of the first level; None: the noisy end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: EndRule = EndRule.STOP
    sigma: float | None = Field(default=None, gt=0)
    begin: float | None = Field(default=None, gt=0)


_NEAR_ITS_LEVEL = 0.01  # of the noise of a first level


def is_near_its_level(process: NoiseProcess, first: float, noise_scale: float) -> bool:
    """Whether a start with noise of this scale is that of its first time within a part in a
    hundred, which no distance tells apart.
    """
    return abs(noise_scale / process.sigma(first) - 1.0) < _NEAR_ITS_LEVEL


def noisy_time(process: NoiseProcess) -> float:
    """The time sampling starts from."""
    return process.time_range[1]


def begin_time(process: NoiseProcess) -> float | None:
    """The time of sigma / alpha = `BEGIN`, from which any process may begin; None where the noisy
    end is hardly noisier, or not so noisy.
    """
    is_noisier = process.lam(noisy_time(process)) < -math.log(BEGIN) - _SLACK
    return time_of_ratio(process, BEGIN) if is_noisier else None


def time_of_ratio(process: NoiseProcess, ratio: float) -> float:
    """The time at which sigma / alpha equals ``ratio``."""
    return process.time_of_lam(-math.log(ratio))


def grid(
    process: NoiseProcess, n: int, spacing: Spacing | str, end: End | None = None
) -> tuple[float, ...]:
    """n + 1 falling times for n steps; with the `denoise` rule the last one is the clean end."""
    end = end or End()
    spacing = Spacing(spacing)
    start = noisy_time(process) if end.begin is None else time_of_ratio(process, end.begin)
    stop = usual_end_time(process) if end.sigma is None else time_of_ratio(process, end.sigma)
    reason = process.check_time(start)
    if reason is not None:
        raise InvalidSchedule(f"begin: sigma = {end.begin} is no level of this process; {reason}")
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
        case Spacing.UNIFORM | Spacing.QUADRATIC | Spacing.BETA:
            power = 2.0 if spacing is Spacing.QUADRATIC else 1.0
            clock: NoiseProcess = VpLinear() if isinstance(process, Edm) else process
            # VP time counted from the clean end, so that its square root exists
            zero = clock.clean_time
            first = (_same_level(process, clock, start) - zero) ** (1 / power)
            last = (_same_level(process, clock, stop) - zero) ** (1 / power)
            places = _beta_places(n) if spacing is Spacing.BETA else range(1, n)
            clocks = [(first + (last - first) * i / n) ** power + zero for i in places]
            inner = [_same_level(clock, process, t) for t in clocks]
        case _:
            clock = process if isinstance(process, Flow) else Flow()
            first, last = _same_level(process, clock, start), _same_level(process, clock, stop)
            inner = [_same_level(clock, process, t) for t in _flow_times(first, last, n, spacing)]
    return (start, *inner, stop) if n else (start,)


def _flow_times(first: float, last: float, n: int, spacing: Spacing) -> list[float]:
    """The inner times of n intervals of a flow."""
    if spacing is Spacing.LINEAR_QUADRATIC:
        return [first + (last - first) * share for share in _linear_quadratic_shares(n)]
    shift = _SHIFTS[spacing]
    highest, lowest = (t / (shift - (shift - 1.0) * t) for t in (first, last))
    unshifted = [highest + (lowest - highest) * i / n for i in range(1, n)]
    return [shift * u / (1.0 + (shift - 1.0) * u) for u in unshifted]


@lru_cache(maxsize=256)
def _beta_places(n: int) -> tuple[float, ...]:
    """The inner quantiles of n intervals, of n."""
    from scipy.special import betaincinv  # noqa: PLC0415  for these levels alone

    return tuple(n * float(betaincinv(_BETA, _BETA, i / n)) for i in range(1, n))


def _linear_quadratic_shares(n: int) -> list[float]:
    """The inner shares of n intervals: half of the steps linear, the others quadratic, as Mochi's
    code has them.
    """
    linear = n // 2
    quadratic = n - linear
    if linear == 0:
        return []
    left = linear - _LINEAR_SHARE * n
    curve = left / (linear * quadratic**2)
    slope = _LINEAR_SHARE / linear - 2.0 * left / quadratic**2
    first = [i * _LINEAR_SHARE / linear for i in range(1, linear)]
    rest = [curve * i * i + slope * i + curve * linear**2 for i in range(linear, n)]
    return [*first, *rest]


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
