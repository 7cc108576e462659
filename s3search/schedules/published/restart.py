"""Restart intervals (arXiv:2306.14878, alg. 1): at a low level the state is noised again to a
higher one and sampled down to the low level once more, some times over.

    y at rho_min -> y + S_noise sqrt(rho_max^2 - rho_min^2) xi at rho_max -> Heun -> rho_min -> ...

rho = sigma / alpha.  Noise contracts the errors that were made before, at the price of the
interval's calls.  Times rise where an interval begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import refuse_pure_noise
from s3search.schedules.published.churn import Churn, churned
from s3search.schedules.published.common import paired_calls
from s3search.schedules.published.raised import Leg, Method, check_calls, process_ratio, raised_on
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, Spacing, grid, time_of_ratio

_CALLS_PER_STEP = 10  # of a run, for each step of its usual interval
_NO_CHURN = Churn(s_churn=0.0, s_noise=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartInterval:
    """Between two noise levels (sigma / alpha), the lower of which moves to the nearest level of
    the run: ``repeats`` times back up, and down in ``n_steps`` steps of two calls each.
    """

    low: float = 0.06
    high: float = 0.3
    n_steps: int = 1
    repeats: int = 1

    @property
    def nfe(self) -> int:
        """The calls that it adds to a run."""
        return 2 * self.n_steps * self.repeats


def restart_on(
    process: NoiseProcess,
    times: Sequence[float],
    intervals: Sequence[RestartInterval],
    *,
    s_noise: float = 1.0,
    rho: float = 7.0,
    churn: Churn | None = None,
) -> Schedule:
    """Heun on falling times with these restart intervals, whose levels are equidistant in
    (sigma / alpha)^(1 / rho).

    Intervals whose lower levels move to one level are passed one after another, in their order.
    ``churn`` raises the states from which the steps on ``times`` begin, and has an ``s_noise`` of
    its own; the steps of an interval have none.
    """
    at = _places(process, times, intervals)
    churn = churn or _NO_CHURN
    hats, start = churned(process, times, churn)
    legs: list[Leg] = []
    for i, (t, hat) in enumerate(zip(times[1:], hats[1:], strict=True), start=1):
        legs.append(Leg(t, t))
        for interval in (own for own, place in zip(intervals, at, strict=True) if place == i):
            high = time_of_ratio(process, interval.high)
            inner = _inner(process, t, interval, rho)
            for _ in range(interval.repeats):
                legs[-1] = Leg(t, high, s_noise)
                legs += [Leg(lower, lower) for lower in inner]
        legs[-1] = Leg(t, hat, churn.s_noise)
    return raised_on(process, hats[0], legs, Method.HEUN, start=start)


def _inner(
    process: NoiseProcess, low: float, interval: RestartInterval, rho: float
) -> list[float]:
    """The times of an interval after its highest, down to the time ``low``."""
    first, last = interval.high ** (1.0 / rho), process_ratio(process, low) ** (1.0 / rho)
    shares = [i / interval.n_steps for i in range(1, interval.n_steps)]
    ratios = [(first + (last - first) * share) ** rho for share in shares]
    return [*(time_of_ratio(process, ratio) for ratio in ratios), low]


def restart(
    process: NoiseProcess,
    *,
    nfe: int,
    intervals: Sequence[RestartInterval] | None = None,
    s_noise: float = 1.0,
    churn: Churn | None = None,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """EDM's Heun with restart intervals (arXiv:2306.14878), whose calls count among ``nfe``, and
    with ``churn`` between them where it is given.

    The default is `usual_interval`.  ``nfe`` is odd for the `denoise` end, the default, and even
    for `stop`.
    """
    intervals = (usual_interval(nfe),) if intervals is None else intervals
    main = nfe - sum(interval.nfe for interval in intervals)
    end, clean = paired_calls("restart", nfe, end)
    refuse_pure_noise(process)
    if main < 1 + clean:
        raise InvalidSchedule(f"restart: {nfe} calls leave {main} beside those of the intervals")
    times = grid(process, (main + clean) // 2, spacing, end)
    return check_calls(restart_on(process, times, intervals, s_noise=s_noise, churn=churn), nfe)


def usual_interval(nfe: int) -> RestartInterval:
    """The interval of `restart` where none is given: between the levels that the authors use on
    CIFAR-10, passed once, in a step of two calls for every ten calls of the run.

    So about a fifth of the calls are the interval's, the share in the smallest run of the authors
    (8 of 43), and its error falls with that of the other steps.  The authors make more passes of
    two steps instead: with 18 steps outside, more calls than those do not lower the error of Heun.
    """
    return RestartInterval(n_steps=max(1, nfe // _CALLS_PER_STEP))


def _places(
    process: NoiseProcess, times: Sequence[float], intervals: Sequence[RestartInterval]
) -> list[int]:
    """After which step each interval comes; raises `InvalidSchedule` where it has no room."""
    ratios = [process_ratio(process, t) for t in times]
    places = []
    for i, own in enumerate(intervals):
        if own.n_steps < 1 or own.repeats < 1:
            raise InvalidSchedule(f"intervals[{i}]: needs at least one step and repeat: {own}")
        place = min(range(len(ratios)), key=lambda k: abs(ratios[k] - own.low))
        if not 0 < place < len(times) - 1 or not ratios[place] < own.high:
            raise InvalidSchedule(
                f"intervals[{i}]: the level nearest to {own.low:g} is {ratios[place]:g}, which is "
                f"not inside the run and below {own.high:g}; take other levels or more calls"
            )
        places.append(place)
    return places
