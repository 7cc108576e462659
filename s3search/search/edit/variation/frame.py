"""Changes of a draft's frame: its times and network times, start, jump and end."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from s3search.schedules.schedule import StartKind
from s3search.schedules.spacing import EndRule
from s3search.search.edit.draft import Draft, lam_at, pick, random_end, random_first, set_end_rule
from s3search.search.edit.network_time import SLACK, moved_shift
from s3search.search.edit.recipe import Choice, step_of
from s3search.search.space import Problem

_BEGINS_ELSEWHERE = 0.15  # of the moves of times


def move_times(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Moves one inner time, all of them a little, or bends the spacing as a whole; at times the
    beginning, where there are several, the inner times stretched along.
    """
    if len(problem.first_times) > 1 and not draft.jumps and rng.random() < _BEGINS_ELSEWHERE:
        _begin_elsewhere(problem, draft, rng)
        return
    lams = np.array(draft.lams())
    n = len(lams) - 1
    if n < 2:
        move_end(problem, draft, rng)
        return
    size = problem.space.time_sigma * math.exp(rng.normal(0.0, 0.7))
    inner = lams[1:-1].copy()
    match int(rng.integers(3)):
        case 0:
            moved = [int(rng.integers(n - 1))]
            inner[moved] += rng.normal(0.0, size)
        case 1:
            moved = list(range(n - 1))
            inner += rng.normal(0.0, 0.5 * size, n - 1)
        case _:
            moved = list(range(n - 1))
            length = lams[-1] - lams[0]
            shares = np.clip((inner - lams[0]) / length, 1e-6, 1.0)
            inner = lams[0] + length * shares ** math.exp(rng.normal(0.0, size / 3))
    inner = np.sort(np.clip(inner, lams[0], lams[-1]))
    for k in range(n - 1):
        if inner[k] != lams[k + 1]:
            draft.place(k + 1, float(inner[k]))


def _begin_elsewhere(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    before = draft.lams()
    times = problem.first_times
    others = [t for t in times if abs(lam_at(draft.process, t) - before[0]) > SLACK]
    draft.times[0] = pick(others, rng)
    _stretch_inner(draft, before)


def _stretch_inner(draft: Draft, before: Sequence[float]) -> None:
    """Moves the inner times along with a first one that was moved, and keeps the end; ``before``
    are the lams of all.
    """
    if len(before) > 1:
        stretch = (before[-1] - draft.lams()[0]) / (before[-1] - before[0])
        for k in range(1, len(before) - 1):
            draft.place(k, before[-1] - (before[-1] - before[k]) * stretch)


def move_end(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Moves the end level, alone or with the inner times stretched along; at times anywhere."""
    if len(draft.times) == 1:
        return
    low, high = problem.end_lams(called=draft.calls_end)
    lams = draft.lams()
    if rng.random() < 0.2:
        new = random_end(problem, draft, rng)
    else:
        new = float(np.clip(lams[-1] + rng.normal(0.0, 2 * problem.space.time_sigma), low, high))
    stretch = (new - lams[0]) / (lams[-1] - lams[0])
    if rng.random() < 0.5:
        for k in range(1, len(lams) - 1):
            draft.place(k, lams[0] + (lams[k] - lams[0]) * stretch)
    draft.place(len(lams) - 1, new)


def move_step(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Removes one step and inserts one elsewhere."""
    if len(draft.choices) > 1:
        draft.remove_step(rng)
        draft.insert_step(problem, rng)


def change_network_time(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another shift of the network's time at one point; it takes the place of the schedule's
    compensations and velocities.
    """
    i = int(rng.integers(min(len(draft.times), len(draft.choices))))
    old = draft.first_shift if i == 0 else draft.choices[i - 1].shift
    new = moved_shift(problem, draft.times[i], old, rng)
    if new is not None:
        draft.choices = [_without_mixing(choice) for choice in draft.choices]
    if i == 0:
        draft.first_shift = new
    else:
        draft.choices[i - 1] = replace(draft.choices[i - 1], shift=new)


def _without_mixing(choice: Choice) -> Choice:
    if choice.compensation is not None:
        choice = replace(choice, compensation=None)
    return replace(choice, published=None) if step_of(choice).mixes_predictions else choice


def change_jump(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Moves where a jump lands, takes it away or makes one; the times after it are stretched along
    and the end stays.
    """
    limits, before = problem.jump_lams, draft.lams()
    if limits is None:
        return
    if draft.jumps and rng.random() < 0.3:
        draft.jumps = False
        draft.times[0] = random_first(problem, rng)
    elif draft.jumps:
        lam = before[0] + rng.normal(0.0, 2 * problem.space.time_sigma)
        draft.place(0, float(np.clip(lam, *limits)))
    else:
        if draft.start is not StartKind.NETWORK and len(draft.choices) > 1:
            draft.remove_step(rng)  # its call is the jump's first
            before = draft.lams()
        draft.jumps, draft.start = True, StartKind.NETWORK
        draft.place(0, float(rng.uniform(*limits)))
    _stretch_inner(draft, before)


def change_start(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another first prediction; the steps that this costs or frees are taken at random."""
    others = [s for s in problem.starts_at(draft.times[0]) if s is not draft.start]
    if others:
        draft.jumps = False
        was_network = draft.start is StartKind.NETWORK
        draft.start = pick(others, rng)
        if was_network:
            draft.insert_step(problem, rng)


def change_end_rule(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """From stop to denoise, or back."""
    rules = problem.space.end_rules
    if len(rules) > 1 or (rules[0] is EndRule.DENOISE) != draft.denoises:
        set_end_rule(problem, draft, denoises=not draft.denoises)
