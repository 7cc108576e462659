"""Runs whose first state the runtime makes: one draw for the first state and the noise upon it."""

import math

from s3search.rules import level
from s3search.schedules.schedule import Schedule, Start

_SAME = 1e-12  # relative; a scale this near is that of the level


def with_one_draw(schedule: Schedule) -> Schedule:
    """``schedule`` with the noise of its start drawn together with its first state.

    Both are independent normals, so that their sum is one, of the scale that ``noise_scale`` says
    where it is not the level's: images of equal distribution, not of equal draws.  Programs that
    make the first state by themselves have no other way.
    """
    noise = schedule.start.noise
    if noise is None:
        return schedule
    first = level(schedule.process, schedule.times[0])
    below = noise.below(schedule.process, None, first)
    carried = below.sigma * first.alpha / below.alpha
    scale = math.hypot(carried, noise.weight(below, first))
    is_its_levels = math.isclose(scale, first.sigma, rel_tol=_SAME)
    start = {**dict(schedule.start), "noise": None, "noise_scale": None}
    return schedule.changed(
        start=Start(**{**start, "noise_scale": None if is_its_levels else scale})
    )
