"""What brings a draft into the space: first time, end, inner times, choices and shifts, each as
little as that takes.
"""

import math
from dataclasses import replace

from s3search.rules import level
from s3search.schedules.schedule import StartKind
from s3search.schedules.spacing import EndRule, whole_times
from s3search.search.edit.draft.form import Draft, lam_at
from s3search.search.edit.network_time import SLACK, settled_shift
from s3search.search.edit.recipe import FINISH, possible, step_of
from s3search.search.space import Problem


def settle_first(problem: Problem, draft: Draft) -> None:
    """Puts the first time at the nearest one that there is, or where a jump may land; jumps begin
    at the network's own first prediction.
    """
    limits, own = problem.jump_lams, draft.lams()[0]
    if not draft.jumps or limits is None:
        draft.jumps = False
        lams = {t: lam_at(problem.process, t) for t in problem.first_times}
        nearest = min(lams, key=lambda t: abs(lams[t] - own))
        if nearest == problem.first_times[0] or abs(lams[nearest] - own) > SLACK:
            draft.times[0] = nearest
        return
    draft.start = StartKind.NETWORK
    low, high = limits
    if not low - SLACK <= own <= high + SLACK:
        draft.place(0, min(max(own, low), high))


def settle_end(problem: Problem, draft: Draft) -> None:
    """Makes the end rule one of the space's."""
    rule = EndRule.DENOISE if draft.denoises else EndRule.STOP
    if rule not in problem.space.end_rules:
        set_end_rule(problem, draft, denoises=not draft.denoises)


def set_end_rule(problem: Problem, draft: Draft, *, denoises: bool) -> None:
    """Adds the step to the clean end, or takes it away; the end level stays."""
    if denoises and not draft.denoises:
        draft.choices[-1] = replace(draft.choices[-1], corrector=None)
        draft.choices.append(FINISH)
    elif draft.denoises and not denoises:
        if len(draft.choices) > 1:
            draft.choices.pop()
        else:  # the only step now ends at the noisiest end level
            low, _ = problem.end_lams(called=False)
            draft.times.append(draft.process.time_of_lam(low))
    draft.denoises = denoises


def settle(problem: Problem, draft: Draft) -> None:
    """Makes times, choices and shifts possible; first time and end rule must be so already."""
    settle_times(problem, draft)
    levels = [level(draft.process, t) for t in draft.times]
    if draft.denoises:
        levels.append(level(draft.process, draft.process.clean_time))
    n = len(draft.choices)
    draft.choices = [
        possible(choice, problem, levels[: i + 1], levels[i + 1], is_last=i == n - 1)
        for i, choice in enumerate(draft.choices)
    ]
    settle_shifts(problem, draft)


def settle_shifts(problem: Problem, draft: Draft) -> None:
    """Brings shifts into their range, and gives up those of a schedule that can have none: a
    velocity and a compensation mix predictions that a shift tells apart.
    """
    if draft.first_shift is None and all(choice.shift is None for choice in draft.choices):
        return
    if any(c.compensation is not None or step_of(c).mixes_predictions for c in draft.choices):
        draft.forget_shifts()
        return
    called = draft.first_shift if draft.start is StartKind.NETWORK else None
    draft.first_shift = settled_shift(problem, draft.times[0], called)
    n = len(draft.choices)
    for i, choice in enumerate(draft.choices):
        is_called = i < n - 1 or choice.corrector is not None
        shift = choice.shift if is_called and i + 1 < len(draft.times) else None
        t = draft.times[min(i + 1, len(draft.times) - 1)]
        shift = settled_shift(problem, t, shift)
        if shift != choice.shift:
            draft.choices[i] = replace(choice, shift=shift)


def settle_times(problem: Problem, draft: Draft) -> None:
    """Moves the end level into its range and the other times apart, as little as that takes."""
    n = len(draft.times) - 1
    if n == 0:
        return
    old = draft.lams()
    low, high = problem.end_lams(called=draft.calls_end)
    lams = list(old)
    if not low - SLACK <= lams[n] <= high + SLACK:
        lams[n] = min(max(lams[n], low), high)
    cleanest = problem.highest_called_lam
    gap = min(problem.space.min_gap, (min(lams[n], cleanest) - lams[0]) / (2 * n))
    for i in range(1, n):
        if lams[i] < lams[i - 1] + gap - SLACK:
            lams[i] = lams[i - 1] + gap
    for i in range(n - 1, 0, -1):
        most = min(lams[i + 1] - gap, cleanest)
        if lams[i] > most + SLACK:
            lams[i] = most
    for i in range(1, n + 1):
        if lams[i] != old[i]:
            draft.place(i, lams[i])
    if problem.runtime.rounds(problem.process):
        called = len(draft.times) - (not draft.calls_end)
        cleanest = 0 if draft.calls_end else math.floor(draft.times[-1]) + 1
        draft.times[:called] = whole_times(draft.times[:called], cleanest)
