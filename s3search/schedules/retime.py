"""Moving a schedule to another process.

Every rule is a function of lam = log(alpha / sigma) or of sigma / alpha, so a schedule moved to
the times of equal lam makes the same trajectory of x / alpha: nothing is approximated.
"""

import math

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.schedules.schedule import Schedule


def retime(schedule: Schedule, process: NoiseProcess) -> Schedule:
    """``schedule`` on the times of equal lam of ``process``; itself if the levels are the same.

    Raises `InvalidSchedule` where ``process`` has no such level.
    """
    if schedule.process.same_levels(process):
        return schedule
    times = [
        _time_of_equal_lam(schedule.process, process, t, f"times[{i}]")
        for i, t in enumerate(schedule.times)
    ]
    return Schedule(
        process=process,
        times=times,
        start=schedule.start,
        steps=schedule.steps,
        model_patch=schedule.model_patch,
        statistics=schedule.statistics,
    )


def _time_of_equal_lam(source: NoiseProcess, target: NoiseProcess, t: float, field: str) -> float:
    lam = source.lam(t)
    if lam == math.inf:
        return target.clean_time
    reason = "pure noise has no finite lam"
    if lam > -math.inf:
        found = target.time_of_lam(lam)
        reason = target.check_time(found) or ""
        if not reason:
            return found
    highest = math.exp(-target.lam(target.time_range[1]))
    raise InvalidSchedule(
        f"{field}: t = {t} of {source.type!r} has sigma / alpha = {math.exp(-lam):.6g}, outside "
        f"what a {target.type!r} model was trained for (at most {highest:.6g}): {reason}; "
        "use a schedule made for this model"
    )
