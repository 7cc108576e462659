"""Children of one schedule or two, valid and of the same number of network calls."""

import numpy as np

from s3search.errors import InvalidSchedule
from s3search.schedules.schedule import Schedule
from s3search.search.edit.draft import Draft, draft_of, finished, pick
from s3search.search.edit.variation.operators import operators_of
from s3search.search.space import Problem

_REDRAWS = 8  # of a child that equals its parent


def mutate(problem: Problem, schedule: Schedule, rng: np.random.Generator) -> Schedule:
    """A child that differs from ``schedule`` in 1 to ``space.changes`` places.

    The parent itself comes back only where nothing can be changed (a space with one schedule).
    """
    operators, rates = operators_of(problem)
    for _ in range(_REDRAWS):
        draft = draft_of(schedule)
        for _ in range(int(rng.integers(1, problem.space.changes + 1))):
            operators[int(rng.choice(len(operators), p=rates))](problem, draft, rng)
        child = finished(problem, draft, schedule.nfe, rng)
        if not _same(child, schedule):
            return child
    return schedule


def crossover(problem: Problem, a: Schedule, b: Schedule, rng: np.random.Generator) -> Schedule:
    """A child with times mixed in lam, and steps, start and end from either parent.

    Both parents have one process and make the same number of calls.  Where every draw equals one
    of them the child is mutated.
    """
    if a.process != b.process or a.nfe != b.nfe:
        raise InvalidSchedule(
            f"crossover: parents must share process and nfe, found {a.process.type!r} with "
            f"{a.nfe} and {b.process.type!r} with {b.nfe}"
        )
    for _ in range(_REDRAWS):
        child = finished(problem, _mixed(draft_of(a), draft_of(b), rng), a.nfe, rng)
        if not _same(child, a) and not _same(child, b):
            return child
    return mutate(problem, a, rng)


def migrate(problem: Problem, schedule: Schedule, nfe: int, rng: np.random.Generator) -> Schedule:
    """The schedule with steps inserted or removed until it makes ``nfe`` calls."""
    return finished(problem, draft_of(schedule), nfe, rng)


def _same(a: Schedule, b: Schedule) -> bool:
    return a.times == b.times and a.steps == b.steps and a.start == b.start


def _mixed(a: Draft, b: Draft, rng: np.random.Generator) -> Draft:
    """One parent's frame with the other's times or steps laid in, aligned at both ends."""
    if rng.random() < 0.5:
        a, b = b, a
    if rng.random() < 0.5:
        a.start, a.first_shift, a.scaled_at = b.start, b.first_shift, b.scaled_at
    if len(a.times) > 1 and len(b.times) > 1:
        weight = pick((0.0, 1.0, float(rng.uniform())), rng)
        _blend_times(a, b, weight)
    n = len(a.choices)
    partner = [b.choices[round(i * (len(b.choices) - 1) / max(n - 1, 1))] for i in range(n)]
    cut = int(rng.integers(0, n + 1))
    masks = (np.zeros(n) > 0, np.ones(n) > 0, np.arange(n) >= cut, rng.random(n) < 0.5)
    taken = masks[int(rng.integers(len(masks)))]
    n_own = n - a.denoises  # the step to the clean end is no choice
    if n == 1:
        partner[0] = b.choices[-1]
    a.choices = [
        partner[i] if taken[i] and i < n_own else choice for i, choice in enumerate(a.choices)
    ]
    return a


def _blend_times(a: Draft, b: Draft, weight: float) -> None:
    """Moves the times of ``a`` the share ``weight`` of the way to those of ``b``."""
    if weight == 0.0:
        return
    if weight == 1.0 and len(a.times) == len(b.times):
        a.times = list(b.times)
        return
    own = np.array(a.lams())
    others = np.interp(
        np.linspace(0, 1, len(own)), np.linspace(0, 1, len(b.times)), np.array(b.lams())
    )
    for i, lam in enumerate(own + weight * (others - own)):
        if i:
            a.place(i, float(lam))
