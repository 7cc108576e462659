"""A schedule that begins at a lower noise level, which few-call samplers often gain from.

At noise much stronger than the image the network answers the mean whatever it sees, so a call
there buys little; how strong is too strong depends on the data.  Gradient descent moves every
level but hardly the first, hence the search tries several beginnings.
"""

import math

from s3search.errors import InvalidSchedule
from s3search.rules import Free
from s3search.schedules.schedule import Schedule, has_noise_times

_MOST_RATIO = 160.0  # sigma / alpha that stands for pure noise, about where VP processes begin


def begun_lower(schedule: Schedule, halvings: int) -> Schedule | None:
    """``schedule`` begun at its first sigma / alpha over 2^``halvings``, its other levels moved
    along linearly in lam and the last one kept; itself for 0.

    None where that is not possible: free steps hold numbers for their levels, a jump and a noise
    scale hold for a first level, times that differ from their levels and steps of statistics are
    left alone; so is noise that a time gives the amount of, or that the start adds.
    """
    if halvings == 0:
        return schedule
    process, start = schedule.process, schedule.start
    if start.jump is not None or start.noise_scale is not None or schedule.has_network_times:
        return None
    if start.noise is not None or has_noise_times(schedule):
        return None
    if schedule.statistics is not None or any(
        isinstance(step.predictor, Free) or step.compensation is not None
        for step in schedule.steps
    ):
        return None
    lams = [process.lam(t) for t in schedule.times if process.sigma(t) > 0.0]
    first = max(lams[0], -math.log(_MOST_RATIO))
    new = first + halvings * math.log(2.0)
    lams[0] = first
    length = lams[-1] - first
    if len(lams) > 1:
        moved = [lams[-1] - (lams[-1] - lam) * (lams[-1] - new) / length for lam in lams[:-1]]
        moved.append(lams[-1])
    else:
        moved = [new]
    times = [process.time_of_lam(lam) for lam in moved]
    clean = [t for t in schedule.times if process.sigma(t) <= 0.0]
    try:
        return schedule.changed(times=(*times, *clean))
    except InvalidSchedule:
        return None
