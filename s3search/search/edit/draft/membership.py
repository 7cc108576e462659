"""Whether a schedule is one of those to choose from, and what keeps it out."""

from collections.abc import Sequence

from s3search.rules import level
from s3search.schedules.schedule import Schedule, StartKind
from s3search.schedules.spacing import EndRule
from s3search.search.edit.draft.form import draft_of
from s3search.search.edit.draft.settling import settle_first, settle_shifts, settle_times
from s3search.search.edit.recipe import possible
from s3search.search.space import Problem


def misfit(problem: Problem, schedule: Schedule) -> str | None:
    """Why ``schedule`` does not belong to the space, or None when it does."""
    if schedule.process != problem.process:
        return f"process: {schedule.process!r} is not {problem.process!r}"
    if problem.space.nfe and schedule.nfe not in problem.space.nfe:
        return f"nfe: {schedule.nfe} is not one of {list(problem.space.nfe)}"
    return _frame_problem(problem, schedule) or _step_problem(problem, schedule)


def _frame_problem(problem: Problem, schedule: Schedule) -> str | None:
    """What is wrong with times, end rule, start or model patch."""
    space, draft = problem.space, draft_of(schedule)
    first = draft.times[0]
    settle_first(problem, draft)
    if (schedule.start.jump is not None) != draft.jumps or schedule.start.jump not in (
        None,
        problem.jump,
    ):
        return "start.jump: is not a choice of the space"
    if first != draft.times[0] and draft.jumps:
        return f"times[0]: a jump lands at sigma / alpha in {list(space.jump_sigma or ())}"
    if first != draft.times[0]:
        draft.times[0] = first
        return f"times[0]: {first} is no beginning of the space: {list(problem.first_times)}"
    rule = EndRule.DENOISE if draft.denoises else EndRule.STOP
    if rule not in space.end_rules:
        return f"times: the end rule is {rule.value!r}, the space has {_words(space.end_rules)}"
    if draft.start not in problem.starts_at(draft.times[0]):
        return f"start.kind: {draft.start.value!r} is not one of {_words(space.starts)}"
    if schedule.start.image is not None and schedule.start.image != problem.mean_image:
        return "start.image: is not the space's mean image"
    if schedule.start.noise is not None:
        return "start.noise: is not a choice of the space"
    if schedule.model_patch is not None:
        return "model_patch: the space changes no network"
    if schedule.statistics is not None:
        own = None if problem.ems is None else problem.ems.digest
        if schedule.statistics.digest != own:
            return "statistics: are not those of the space"
    before = list(draft.times)
    settle_times(problem, draft)
    for i, (old, new) in enumerate(zip(before, draft.times, strict=True)):
        if old != new:
            return (
                f"times[{i}]: {old} must be at least {space.min_gap} in lam from its neighbours, "
                f"the end level's sigma / alpha in {list(space.end_sigma)}"
            )
    return None


def _step_problem(problem: Problem, schedule: Schedule) -> str | None:
    process = schedule.process
    levels = [level(process, t) for t in schedule.times]
    draft = draft_of(schedule)
    written, first_shift = draft.steps(), draft.first_shift
    before = list(draft.choices)
    settle_shifts(problem, draft)
    if draft.first_shift != first_shift:
        return "start.network_time: is not a choice of the space"
    for i, (step, choice) in enumerate(zip(schedule.steps, before, strict=True)):
        is_last = i == len(schedule.steps) - 1
        allowed = possible(choice, problem, levels[: i + 1], levels[i + 1], is_last=is_last)
        if allowed.compensation != choice.compensation:
            return f"steps[{i}].compensation: is not a choice of the space"
        if allowed.noise != choice.noise:
            return f"steps[{i}].noise: is not a choice of the space"
        if draft.choices[i].shift != choice.shift:
            return f"steps[{i}].network_time: is not a choice of the space"
        if allowed == choice and written[i] == step:
            continue
        if levels[i + 1].sigma == 0.0 and choice.order == 1 and choice.corrector is None:
            continue  # any first-order step to the clean end is the same map
        names = ("prediction", "order", "first_points", "relaxation", "start", "corrector")
        wrong = [
            name
            for name in (*names, "published")
            if getattr(choice, name) != getattr(allowed, name)
        ]
        return f"steps[{i}]: {wrong[0] if wrong else 'corrector'} is not a choice of the space"
    return None


def _words(values: Sequence[EndRule] | Sequence[StartKind]) -> str:
    return ", ".join(repr(value.value) for value in values)
