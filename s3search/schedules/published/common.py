"""What published solvers share: putting steps on times, and orders that rise with the history."""

from collections.abc import Sequence

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import Prediction, Taylor
from s3search.schedules.schedule import Schedule, Start, StatisticsReference, Step
from s3search.schedules.spacing import End, EndRule


def on_times(
    process: NoiseProcess,
    times: Sequence[float],
    steps: Sequence[Step],
    start: Start | None = None,
    statistics: StatisticsReference | None = None,
) -> Schedule:
    """Steps on times.

    Where the last step reaches the clean end it is made first order, without noise, and where the
    first starts from pure noise it loses its corrector: nothing else has a value there.
    """
    steps = list(steps)
    if process.alpha(times[0]) == 0.0:
        steps[0] = Step(predictor=steps[0].predictor, noise=steps[0].noise)
    if times[-1] == process.clean_time:
        steps[-1] = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
    return Schedule(
        process=process, times=times, steps=steps, start=start or Start(), statistics=statistics
    )


def rising_orders(n: int, order: int, *, lowers: bool) -> list[int]:
    """Order of each step: limited by the points that exist and, if wanted, by the steps left."""
    return [min(order, i + 1, n - i if lowers else order) for i in range(n)]


def paired_calls(solver: str, nfe: int, end: End | None) -> tuple[End, bool]:
    """The end, by default the clean one, of a solver with two calls per step but for a last one to
    it, and whether it is; raises `InvalidSchedule` for an ``nfe`` that such steps cannot make.
    """
    end = end or End(rule=EndRule.DENOISE)
    clean = end.rule is EndRule.DENOISE
    if nfe % 2 != clean:
        kind = "an odd" if clean else "an even"
        raise InvalidSchedule(
            f"{solver} with end rule {end.rule.value!r} needs {kind} nfe, asked {nfe}"
        )
    return end, clean


def check_order(order: int, highest: int) -> None:
    """Raises `InvalidSchedule` for an order that a solver does not have."""
    if not 1 <= order <= highest:
        raise InvalidSchedule(f"this solver has orders 1 to {highest}, asked for {order}")
