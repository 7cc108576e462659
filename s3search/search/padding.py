"""A schedule with one network call more that makes the same images.

A point is put into the middle of the longest interval, in lam, and reached by DDIM; the step that
crossed the interval starts from where it started before, and every rule looks past the new point.
Its call has weight 0 from then on.  So the best schedule of n + 1 calls is never worse than that
of n calls, and a search may start from there and give the call a use.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from s3search.rules import AnyRule, Prediction, Taylor
from s3search.schedules.schedule import Schedule, Step
from s3search.search.draft import lam_at

_INDICES = ("start", "previous", "point", "points")  # fields that count points from the newest


def padded(schedule: Schedule) -> Schedule | None:
    """``schedule`` with an unused call; None where the newest call means something: to compensated
    steps, and to layers left out step by step.
    """
    patch = schedule.model_patch
    if patch is not None and patch.skip_layers is not None:
        return None
    if any(step.compensation is not None for step in schedule.steps):
        return None
    process = schedule.process
    lams = [lam_at(process, t) for t in schedule.times if t != process.clean_time]
    if len(lams) > 1:
        k = int(np.argmax(np.diff(lams)))
        new = process.time_of_lam((lams[k] + lams[k + 1]) / 2)
    else:  # one step to the clean end, of no length in lam
        k, new = 0, process.time_of_lam(max(0.0, lams[0] + 1.0))
    steps = list(schedule.steps)
    for i in range(k, len(steps)):
        steps[i] = _looking_past(steps[i], i, k)
    reach = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
    return Schedule(
        process=process,
        times=(*schedule.times[: k + 1], new, *schedule.times[k + 1 :]),
        start=schedule.start,
        steps=(*steps[:k], reach, *steps[k:]),
        model_patch=patch,
        statistics=schedule.statistics,
    )


def _looking_past(step: Step, i: int, k: int) -> Step:
    """Step ``i`` with a new point after point ``k``, for whatever lies before that."""
    predictor = _renumbered(step.predictor, lambda p: p - 1 if i + 1 + p <= k else p)
    corrector = step.corrector
    if corrector is not None:  # its history holds the point that the step leads to
        rule = _renumbered(corrector.rule, lambda p: p - 1 if i + 2 + p <= k else p)
        corrector = corrector.model_copy(update={"rule": rule})
    return step.model_copy(update={"predictor": predictor, "corrector": corrector})


def _renumbered(rule: AnyRule, moved: Callable[[int], int]) -> AnyRule:
    def walk(value: Any, key: str) -> Any:
        match value:
            case dict():
                return {name: walk(inner, name) for name, inner in value.items()}
            case list() | tuple():
                return tuple(walk(inner, key) for inner in value)
            case int() if key in _INDICES:
                return moved(value)
        return value

    return type(rule).model_validate(walk(rule.model_dump(), ""))
