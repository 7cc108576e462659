"""Noise that steps of a search add (`s3search.rules.noise`): drawn, moved, and made to fit.

Whether a schedule has any is one decision, most have none; its steps then share one amount or have
some of their own.  Small amounts are the likelier: few calls leave little time to take much noise
away again.
"""

import math

import numpy as np

from s3search.errors import InvalidSchedule
from s3search.rules import AnyRule, Free, Level, NoiseKind, Range, StepNoise, level
from s3search.rules.searched import walked
from s3search.schedules.schedule import Schedule
from s3search.search.space import Problem

_NOISY = 0.25  # of the schedules that are drawn
_COMMON = 0.5  # of these: one noise for all steps
_NOISY_STEP = 0.5  # of the steps of the others
_REMOVED, _REDRAWN = 0.25, 0.15  # of the noises that are moved
_SEED = StepNoise(kind=NoiseKind.GAMMA, amount=1.0 - math.cos(0.2))
"""A fresh share of 4 % of a state's variance."""
_SCALED = 0.5  # of those that are drawn, and of the moves, where the factor has a range


def fitted_noise(
    problem: Problem, noise: StepNoise | None, start: Level, to: Level
) -> StepNoise | None:
    """``noise`` of a step between these levels by a kind of the space and within its ranges, None
    where the space or the place has none.
    """
    ranges = problem.space.noise.ranges
    if noise is None or not ranges or to.sigma == 0.0 or to.alpha == 0.0:
        return None
    kind = noise.kind if noise.kind in ranges else next(iter(ranges))
    own = noise.of_kind(kind, problem.process, start, to)
    amount = _clipped(own.amount, ranges[kind])
    scale = _clipped(own.scale, problem.space.noise.scales)
    if amount == 0.0:
        return None
    is_kept = own is noise and (amount, scale) == (noise.amount, noise.scale)
    return noise if is_kept else StepNoise(kind=kind, amount=amount, scale=scale)


def random_noise(problem: Problem, rng: np.random.Generator) -> StepNoise:
    """A kind of the space, its amount towards the low end of the range."""
    ranges = problem.space.noise.ranges
    kind = tuple(ranges)[int(rng.integers(len(ranges)))]
    low, high = ranges[kind]
    amount = low + (high - low) * float(rng.uniform()) ** 2
    return StepNoise(kind=kind, amount=amount, scale=_random_scale(problem, rng))


def random_noises(
    problem: Problem, n: int, rng: np.random.Generator
) -> list[StepNoise | None] | None:
    """Noise for the steps of a schedule, None for a schedule without."""
    if not problem.space.noise.is_on or rng.random() >= _NOISY:
        return None
    if rng.random() < _COMMON:
        return [random_noise(problem, rng)] * n
    return [random_noise(problem, rng) if rng.random() < _NOISY_STEP else None for _ in range(n)]


def moved_noise(
    problem: Problem, noise: StepNoise | None, rng: np.random.Generator
) -> StepNoise | None:
    """``noise`` after a small move of its amount or factor; at times another one, or none."""
    space, draw = problem.space.noise, rng.random()
    if noise is None or _REMOVED <= draw < _REMOVED + _REDRAWN:
        return random_noise(problem, rng)
    if draw < _REMOVED:
        return None
    if noise.kind not in space.ranges:
        return noise  # which fitting brings into the space
    amount, scale = noise.amount, noise.scale
    if _has_width(space.scales) and rng.random() < _SCALED:
        scale = walked(scale, space.scales, rng)
    else:
        amount = walked(amount, space.ranges[noise.kind], rng)
    return StepNoise(kind=noise.kind, amount=amount, scale=scale)


def seeded_with_noise(problem: Problem, schedule: Schedule) -> Schedule | None:
    """A schedule without noise with a little in every step that has room, but for the last, after
    which no call takes it away: for gradient descent to go on from, since without any the expected
    loss has no slope in it (`s3search.solvers.trainable_noise`).

    None where the space or the schedule has no place for it, or there is some already.
    """
    if schedule.is_stochastic or not problem.space.noise.is_on:
        return None
    levels = [level(schedule.process, t) for t in schedule.times]
    steps = []
    for i, step in enumerate(schedule.steps[:-1]):
        noise = fitted_noise(problem, _SEED, step.starting_level(levels[: i + 1]), levels[i + 1])
        is_fixed = isinstance(step.predictor, Free) or step.predictor.needs_ems
        steps.append(step if is_fixed else step.model_copy(update={"noise": noise}))
    try:
        made = schedule.changed(steps=[*steps, schedule.steps[-1]])
    except InvalidSchedule:
        return None
    return made if made.is_stochastic else None


def own_noise(rule: AnyRule | None) -> StepNoise | None:
    """The noise that is a number of the rule itself, as in those of the reverse SDE."""
    noise = getattr(rule, "noise", None)
    return noise if isinstance(noise, StepNoise) else None


def with_moved_noise(problem: Problem, rule: AnyRule, rng: np.random.Generator) -> AnyRule | None:
    """A rule of its own noise after a small move of that, None where it is taken away.

    Its kind stays; where the space does not name it, the amount is at most 1, or what it was.
    """
    noise, space = own_noise(rule), problem.space.noise
    assert noise is not None
    if rng.random() < _REMOVED:
        return None
    amount, scale = noise.amount, noise.scale
    if _has_width(space.scales) and rng.random() < _SCALED:
        scale = walked(scale, space.scales, rng)
    else:
        amount = walked(amount, space.ranges.get(noise.kind, (0.0, max(1.0, amount))), rng)
    if amount == 0.0:
        return None
    moved = StepNoise(kind=noise.kind, amount=amount, scale=scale)
    return rule.model_copy(update={"noise": moved})


def _random_scale(problem: Problem, rng: np.random.Generator) -> float:
    low, high = problem.space.noise.scales
    if _has_width((low, high)) and rng.random() < _SCALED:
        return float(rng.uniform(low, high))
    return _clipped(1.0, (low, high))


def _has_width(limits: Range) -> bool:
    return limits[0] < limits[1]


def _clipped(value: float, limits: Range) -> float:
    return min(max(value, limits[0]), limits[1])
