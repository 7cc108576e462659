"""Network times apart from the solver's: LD3 (arXiv:2405.15506) and TS-DPM (arXiv:2305.15583).

The states and the coefficients stay where they are; only the network times change.  Both
papers do so because the state a coarse solver reaches is not one that training showed the network
at that time.
"""

from collections.abc import Sequence

from s3search.errors import InvalidSchedule
from s3search.schedules.schedule import Schedule, Step


def with_network_times(schedule: Schedule, times: Sequence[float | None]) -> Schedule:
    """``schedule`` with the network time ``times[i]`` at point i, one entry per point it calls at.

    None, or the point's own time, leaves a point alone.
    """
    n_called = schedule.n_steps + (schedule.steps[-1].corrector is not None)
    if len(times) != n_called:
        raise InvalidSchedule(
            f"network times: this schedule calls at {n_called} points, found {len(times)} times"
        )
    own = [
        None if t == at else t for t, at in zip(times, schedule.times, strict=False)
    ]  # a schedule that shifts nothing keeps its id
    own += [None] * (schedule.n_steps + 1 - n_called)
    steps: list[Step] = [
        step.model_copy(update={"network_time": t})
        for step, t in zip(schedule.steps, own[1:], strict=True)
    ]
    start = schedule.start.model_copy(update={"network_time": own[0]})
    return schedule.changed(start=start, steps=steps, provenance={})
