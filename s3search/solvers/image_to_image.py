"""What is left of a schedule when a run begins in the middle of it, from a noised image.

Image-to-image begins at an inner time, where no call was made before.  A rule that looks back
beyond it has nothing to look at: it becomes first order, and so does a free step, whose numbers
were fitted to a history that is not there.  Correctors stay, so that the calls do, and the noise
of steps does.
"""

from dataclasses import dataclass

from s3search.errors import InvalidSchedule
from s3search.rules import (
    AnyRule,
    ErSde,
    Free,
    Level,
    Prediction,
    SdeTaylor,
    Taylor,
    UniPC,
    Variant,
    level,
)
from s3search.rules.free import euler
from s3search.rules.reverse_sde import ReverseSdeRule
from s3search.schedules.schedule import Corrector, Schedule, Start, needs_ems

_FIRST_ORDER = Taylor(prediction=Prediction.DATA, order=1)
_FIRST_CORRECTOR = UniPC(prediction=Prediction.DATA, variant=Variant.BH2, start=-2, points=(-1,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToImageStart:
    """What is left of a schedule from an inner time on, without its model patch, and the paths of
    what became first order (or, of a compensation, was left out) in the whole schedule's steps.
    """

    schedule: Schedule
    lowered: tuple[str, ...]


def image_to_image_start(schedule: Schedule, t: float) -> ImageToImageStart:
    """What is left of ``schedule`` from the last of its times that equals ``t`` on.

    Raises `InvalidSchedule` for a schedule with network times of its own.
    """
    if schedule.has_network_times:
        raise InvalidSchedule(
            "network_time: the noise that image-to-image adds is that of the time the network is "
            "told, not of the schedule's; start from noise, or use a schedule without network_time"
        )
    # the last of equal times: steps that stay at their level are done by then
    first = max(i for i, own in enumerate(schedule.times[:-1]) if own == t)
    times = schedule.times[first:]
    levels = [level(schedule.process, time) for time in times]
    steps, lowered, oldest = [], [], 0
    for i, step in enumerate(schedule.steps[first:]):
        oldest = i if i and schedule.rises_to(first + i) else oldest
        begin = 0 if isinstance(step.predictor, Free) else oldest
        past, at = levels[begin : i + 1], levels[i + 1]
        to = step.rule_target(schedule.process, past, at)
        predictor, corrector, compensation = step.predictor, step.corrector, step.compensation
        if predictor.problem(past, to) is not None:
            predictor = _first_order(predictor, past[-1], to)
            lowered.append(f"steps[{first + i}].predictor")
        if corrector is not None and corrector.rule.problem([*past, at], to) is not None:
            corrector = Corrector(kind=corrector.kind, rule=_first_corrector(predictor))
            lowered.append(f"steps[{first + i}].corrector")
        if compensation is not None and compensation.problem(past) is not None:
            compensation = None  # the calls it looks back to were not made
            lowered.append(f"steps[{first + i}].compensation")
        changed = {"predictor": predictor, "corrector": corrector, "compensation": compensation}
        steps.append(step.model_copy(update=changed))
    left = Schedule(
        process=schedule.process,
        times=times,
        start=Start(),
        steps=steps,
        statistics=schedule.statistics if needs_ems(steps) else None,
    )
    return ImageToImageStart(schedule=left, lowered=tuple(lowered))


def _first_order(rule: AnyRule, begin: Level, to: Level) -> AnyRule:
    """What stands in for a predictor that looks back too far; a free step may keep its level."""
    if isinstance(rule, Free):
        return euler(begin, to, rule.noise)
    if isinstance(rule, ReverseSdeRule):
        return SdeTaylor(prediction=Prediction.DATA, order=1, noise=rule.noise)
    if isinstance(rule, ErSde):
        return rule.model_copy(update={"order": 1})
    return _FIRST_ORDER


def _first_corrector(predictor: AnyRule) -> AnyRule:
    """What stands in for the corrector of such a predictor, with the draw of it."""
    if isinstance(predictor, ReverseSdeRule):
        first = SdeTaylor(prediction=Prediction.DATA, order=1, noise=predictor.noise)
        return first.corrector()
    return _FIRST_CORRECTOR
