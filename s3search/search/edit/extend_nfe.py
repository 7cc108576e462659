"""A schedule with one network call more that makes the same images.

A point is put into the middle of the longest interval, in lam, and reached by DDIM; the step that
crossed the interval starts from where it started before, and every rule looks past the new point.
Its call has weight 0 from then on.  So the best schedule of n + 1 calls is never worse than that
of n calls, and a search may start from there and give the call a use.  Noise of the step that
crossed the interval stays with it; as rows move on, they draw other numbers, and the images are
equal in distribution.

A compensation changes the newest prediction, so that of the step that crossed the interval moves
to the step that reaches the new point.  An interpolation through the newest points cannot look
past one: intervals that a later one reads across are left alone, and the step to the clean end,
which nothing follows, is divided where all others are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from s3search.processes import NoiseProcess
from s3search.rules import AnyRule, Free, Prediction, Taylor, level
from s3search.rules.compensation import EarlierCall, Interpolation
from s3search.rules.free import euler
from s3search.schedules.schedule import Schedule, Step
from s3search.search.edit.draft import lam_at


def extended(schedule: Schedule, nfe: int | None = None) -> Schedule | None:
    """``schedule`` with an unused call, or with as many as make ``nfe``; None where the newest
    call means something, to layers left out or guidance given call by call, and where no interval
    has room for it.
    """
    found: Schedule | None = schedule
    while found is not None and found.nfe < (schedule.nfe + 1 if nfe is None else nfe):
        found = _with_one_more(found)
    return found


def _with_one_more(schedule: Schedule) -> Schedule | None:
    patch = schedule.model_patch
    by_call = () if patch is None else (patch.skip_layers, patch.guidance_scale)
    if any(listed is not None for listed in by_call):
        return None
    process, steps = schedule.process, schedule.steps
    for k, new in _places(process, schedule.times):
        if process.check_time(new) is None and not _is_read_across(steps, k):
            break
    else:
        return None
    crossing = [_looking_past(step, i, k) for i, step in enumerate(steps[k:], start=k)]
    reach = Step(
        predictor=_ddim(schedule, k, new),
        compensation=crossing[0].compensation,
    )
    crossing[0] = crossing[0].model_copy(update={"compensation": None})
    return Schedule(
        process=process,
        times=(*schedule.times[: k + 1], new, *schedule.times[k + 1 :]),
        start=schedule.start,
        steps=(*steps[:k], reach, *crossing),
        model_patch=patch,
        statistics=schedule.statistics,
    )


def _places(process: NoiseProcess, times: Sequence[float]) -> list[tuple[int, float]]:
    """Intervals and the times that divide them, the longest first; the step to the clean end, of
    no length in lam, comes last.
    """
    lams = [lam_at(process, t) for t in times if t != process.clean_time]
    by_length = np.argsort(-np.diff(lams), kind="stable")
    places = [(int(k), (lams[k] + lams[k + 1]) / 2) for k in by_length if lams[k] < lams[k + 1]]
    if len(lams) < len(times):
        places.append((len(lams) - 1, max(0.0, lams[-1] + 1.0)))
    return [(k, process.time_of_lam(lam)) for k, lam in places]


def _is_read_across(steps: Sequence[Step], k: int) -> bool:
    """Whether a later step interpolates through points on both sides of step ``k``'s interval."""
    return any(
        isinstance(step.compensation, Interpolation) and i - step.compensation.order <= k
        for i, step in enumerate(steps)
        if i > k
    )


def _ddim(schedule: Schedule, k: int, new: float) -> AnyRule:
    """DDIM from time ``k``; among free steps it is one, for only they may stay at a level."""
    if isinstance(schedule.steps[k].predictor, Free):
        return euler(level(schedule.process, schedule.times[k]), level(schedule.process, new))
    return Taylor(prediction=Prediction.DATA, order=1)


def _looking_past(step: Step, i: int, k: int) -> Step:
    """Step ``i`` with a new point after point ``k``, for whatever lies before that."""

    def before(p: int) -> int:
        return p - 1 if i + 1 + p <= k else p

    def before_the_end(p: int) -> int:  # a corrector's history holds the point it leads to
        return p - 1 if i + 2 + p <= k else p

    update: dict[str, Any] = {"predictor": step.predictor.renumbered(before)}
    if step.corrector is not None:
        rule = step.corrector.rule.renumbered(before_the_end)
        update["corrector"] = step.corrector.model_copy(update={"rule": rule})
    if isinstance(step.compensation, EarlierCall) and i > k:
        point = before(step.compensation.point)
        update["compensation"] = step.compensation.model_copy(update={"point": point})
    return step.model_copy(update=update)
