"""Mutation, crossover and migration: how schedules come from schedules.

Every operator edits a `Draft` freely and leaves it to `finished` to make a valid schedule of the
same number of network calls out of it, so children are valid whatever the operators do.  Times
that an operator does not touch keep their last bit: children share the network calls of their
common prefix.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from s3search.errors import InvalidSchedule
from s3search.rules import Relaxation, RelaxationKind
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind
from s3search.schedules.spacing import EndRule, noisy_time
from s3search.search.compensating import moved_compensation
from s3search.search.draft import (
    Draft,
    draft_of,
    finished,
    pick,
    random_coefficient,
    random_end,
    set_end_rule,
    with_solver,
)
from s3search.search.families import WITH_CORRECTOR, moved, solver_of, with_order
from s3search.search.recipe import (
    Choice,
    kind_of,
    possible_estimates,
    possible_orders,
    relaxation_of,
    step_of,
    strength_of,
    with_rule,
)
from s3search.search.space import CorrectorChoice, MutationRates, RelaxationChoice, SearchSpace
from s3search.search.told import moved_shift

_REDRAWS = 8  # of a child that equals its parent

Operator = Callable[[SearchSpace, Draft, np.random.Generator], None]


def mutate(space: SearchSpace, schedule: Schedule, rng: np.random.Generator) -> Schedule:
    """A child that differs from ``schedule`` in 1 to ``space.changes`` places.

    The parent itself comes back only where nothing can be changed (a space with one schedule).
    """
    operators, rates = _operators(space)
    for _ in range(_REDRAWS):
        draft = draft_of(schedule)
        for _ in range(int(rng.integers(1, space.changes + 1))):
            operators[int(rng.choice(len(operators), p=rates))](space, draft, rng)
        child = finished(space, draft, schedule.nfe, rng)
        if not _same(child, schedule):
            return child
    return schedule


def crossover(space: SearchSpace, a: Schedule, b: Schedule, rng: np.random.Generator) -> Schedule:
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
        child = finished(space, _mixed(draft_of(a), draft_of(b), rng), a.nfe, rng)
        if not _same(child, a) and not _same(child, b):
            return child
    return mutate(space, a, rng)


def migrate(
    space: SearchSpace, schedule: Schedule, nfe: int, rng: np.random.Generator
) -> Schedule:
    """The schedule with steps inserted or removed until it makes ``nfe`` calls."""
    return finished(space, draft_of(schedule), nfe, rng)


def _same(a: Schedule, b: Schedule) -> bool:
    return a.times == b.times and a.steps == b.steps and a.start == b.start


def _mixed(a: Draft, b: Draft, rng: np.random.Generator) -> Draft:
    """One parent's frame with the other's times or steps laid in, aligned at both ends."""
    if rng.random() < 0.5:
        a, b = b, a
    if rng.random() < 0.5:
        a.start, a.first_shift = b.start, b.first_shift
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


def _operators(space: SearchSpace) -> tuple[list[Operator], list[float]]:
    """The operators that can change something in this space, and their probabilities."""
    single = {
        "prediction": len(space.usable_predictions) < 2,
        "order": len(space.orders) < 2,
        "relaxation": space.relaxations == (space.relaxations[0],)
        and space.relaxations[0] not in _WITH_COEFFICIENT,
        "estimation": not space.low_order_estimates or max(space.orders) < 3,
        "corrector": space.correctors == (CorrectorChoice.NONE,),
        "solver": len(space.solvers) < 2,
        "start_point": len(space.start_points) < 2,
        "compensation": not space.compensations,
        "network_time": space.network_shift == 0.0,
        "jump": space.jump is None or space.jump_sigma is None,
        "start": len(space.starts) < 2,
        "end_rule": len(space.end_rules) < 2,
    }
    chosen = [
        (operator, getattr(space.mutation, name))
        for name, operator in _BY_RATE.items()
        if getattr(space.mutation, name) > 0 and not single.get(name, False)
    ]
    if not chosen:
        chosen = [(_move_times, 1.0), (_move_end, 1.0)]
    total = sum(rate for _, rate in chosen)
    return [operator for operator, _ in chosen], [rate / total for _, rate in chosen]


def _move_times(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Moves one inner time, all of them a little, or bends the spacing as a whole."""
    lams = np.array(draft.lams())
    n = len(lams) - 1
    if n < 2:
        _move_end(space, draft, rng)
        return
    size = space.time_sigma * math.exp(rng.normal(0.0, 0.7))
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


def _move_end(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Moves the end level, alone or with the inner times stretched along; at times anywhere."""
    if len(draft.times) == 1:
        return
    low, high = space.end_lams(draft.process, called=draft.calls_end)
    lams = draft.lams()
    if rng.random() < 0.2:
        new = random_end(space, draft, rng)
    else:
        new = float(np.clip(lams[-1] + rng.normal(0.0, 2 * space.time_sigma), low, high))
    stretch = (new - lams[0]) / (lams[-1] - lams[0])
    if rng.random() < 0.5:
        for k in range(1, len(lams) - 1):
            draft.place(k, lams[0] + (lams[k] - lams[0]) * stretch)
    draft.place(len(lams) - 1, new)


def _move_step(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Removes one step and inserts one elsewhere."""
    if len(draft.choices) > 1:
        draft.remove_step(rng)
        draft.insert_step(space, rng)


def _change_prediction(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    i = _some_step(draft, rng)
    others = [p for p in space.usable_predictions if p is not draft.choices[i].prediction]
    if others:
        draft.choices[i] = replace(draft.choices[i], prediction=pick(others, rng), published=None)


def _change_order(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another order at one step; its derivatives are then estimated from all its points.

    A step of one of the space's other families stays in its family where that has the order.
    """
    i = _some_step(draft, rng)
    choice = draft.choices[i]
    others = [o for o in possible_orders(space, i + 1) if o != choice.order]
    if not others:
        return
    order = pick(others, rng)
    if _has_own_family(space, choice):
        rule = choice.published and with_order(choice.published, order)
        if rule is not None:
            draft.choices[i] = with_rule(choice, rule)
            return
    relaxation = choice.relaxation
    if order > 1 and choice.order == 1:
        relaxation = relaxation_of(pick(space.relaxations, rng), random_coefficient(space, rng))
    draft.choices[i] = replace(
        choice,
        order=order,
        first_points=order - 1,
        relaxation=relaxation if order > 1 else None,
        published=None,
    )


def _change_relaxation(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another kind, or a step of the coefficient's random walk, at one step of order 2 or more.

    A walk from a kind without coefficient starts at the linear relaxation of the same factor.
    """
    i = _some_step(draft, rng, _has_derivative)
    choice = draft.choices[i]
    if choice.order < 2:
        return
    walks = kind_of(choice.relaxation) in _WITH_COEFFICIENT
    has_linear = RelaxationChoice.LINEAR in space.relaxations
    others = [kind for kind in space.relaxations if kind is not kind_of(choice.relaxation)]
    if (walks or has_linear) and (not others or rng.random() < 0.6):
        kind = kind_of(choice.relaxation) if walks else RelaxationChoice.LINEAR
        strength = strength_of(choice.relaxation) if walks else as_linear(draft, i)
        size = space.coefficient_sigma * math.exp(rng.normal(0.0, 0.7))
        limit = space.coefficient_limit
        new = relaxation_of(kind, float(np.clip(strength + rng.normal(0.0, size), -limit, limit)))
    elif others:
        new = relaxation_of(pick(others, rng), random_coefficient(space, rng))
    else:
        return
    draft.choices[i] = replace(choice, relaxation=new, published=None)


def as_linear(draft: Draft, i: int) -> float:
    """The c for which 1 + c h is the factor that step ``i`` has now."""
    relaxation, lams = draft.choices[i].relaxation, draft.lams()
    if relaxation is None or i + 1 >= len(lams):
        return 0.0
    h = lams[i + 1] - lams[i]
    return (_factor(relaxation, h, draft.choices[i]) - 1.0) / h if h > 0 else 0.0


def _factor(relaxation: Relaxation, h: float, choice: Choice) -> float:
    if relaxation.kind is RelaxationKind.SCALE:
        return relaxation.coefficient or 0.0
    return relaxation.factor(h, choice.prediction)


def _change_estimation(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another number of points for the first derivative, at one step of order 3 or more."""
    i = _some_step(draft, rng, _has_estimates)
    choice = draft.choices[i]
    if choice.order < 3:
        return
    others = [m for m in possible_estimates(space, choice.order) if m != choice.first_points]
    if others:
        draft.choices[i] = replace(choice, first_points=pick(others, rng), published=None)


def _change_corrector(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another corrector at one step; on the last one it can only be removed."""
    n = len(draft.choices)
    i = int(rng.integers(n))
    now = draft.choices[i].corrector
    kinds = [
        None if c is CorrectorChoice.NONE else CorrectorKind(c.value) for c in space.correctors
    ]
    others = [None] if i == n - 1 else [kind for kind in {*kinds, None} if kind is not now]
    if _has_own_family(space, draft.choices[i]):
        solver = solver_of(draft.choices[i].published)
        others = others if solver in WITH_CORRECTOR else [None]
    others.sort(key=str)
    draft.choices[i] = replace(draft.choices[i], corrector=pick(others, rng))


def _change_solver(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """A small move of one step's beta or gamma, or a step of another family in its place.

    The first step is left out where there are others: with one point the families are one.
    """
    n = max(1, len(draft.choices) - draft.denoises)
    i = int(rng.integers(min(1, n - 1), n))
    choice = draft.choices[i]
    now = solver_of(choice.published)
    rule = moved(space, choice.published, rng) if now in space.solvers else None
    if rule is not None and rng.random() < 0.6:
        draft.choices[i] = with_rule(choice, rule)
        return
    others = [s for s in space.solvers_for(draft.process) if s is not now]
    if others:
        solver = pick(others, rng)
        draft.choices[i] = with_solver(space, draft.process, solver, choice, i + 1, rng)


def _has_own_family(space: SearchSpace, choice: Choice) -> bool:
    """Whether the step is of a family that the space draws, other than Taylor's."""
    return choice.published is not None and solver_of(choice.published) in space.solvers


def _change_start_point(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another point for one step to start from; a step of order 1 becomes one of order 2."""
    i = _some_step(draft, rng, _has_derivative)
    choice = draft.choices[i]
    others = [start for start in space.start_points if start != choice.start and -start <= i + 1]
    if not others or i == 0:
        return
    if choice.order < 2:
        choice = replace(choice, order=2, first_points=1)
    draft.choices[i] = replace(choice, start=pick(others, rng), published=None)


def _change_compensation(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another compensation at one step, or a small move of its number; it takes the place of the
    schedule's network-time shifts.
    """
    n = max(1, len(draft.choices) - draft.denoises)
    i = int(rng.integers(min(1, n - 1), n))
    new = moved_compensation(space, draft.choices[i].compensation, i + 1, rng)
    draft.choices[i] = replace(draft.choices[i], compensation=new)
    if new is not None:
        draft.forget_shifts()


def _change_network_time(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another shift of the network's time at one point; it takes the place of the schedule's
    compensations and velocities.
    """
    i = int(rng.integers(min(len(draft.times), len(draft.choices))))
    old = draft.first_shift if i == 0 else draft.choices[i - 1].shift
    new = moved_shift(space, draft.process, draft.times[i], old, rng)
    if new is not None:
        draft.choices = [_without_mixing(choice) for choice in draft.choices]
    if i == 0:
        draft.first_shift = new
    else:
        draft.choices[i - 1] = replace(draft.choices[i - 1], shift=new)


def _change_jump(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Moves where a jump lands, takes it away or makes one; the times after it are stretched along
    and the end stays.
    """
    limits, before = space.jump_lams(draft.process), draft.lams()
    if limits is None:
        return
    if draft.jumps and rng.random() < 0.3:
        draft.jumps = False
        draft.times[0] = noisy_time(draft.process)
    elif draft.jumps:
        lam = before[0] + rng.normal(0.0, 2 * space.time_sigma)
        draft.place(0, float(np.clip(lam, *limits)))
    else:
        if draft.start is not StartKind.NETWORK and len(draft.choices) > 1:
            draft.remove_step(rng)  # its call is the jump's first
            before = draft.lams()
        draft.jumps, draft.start = True, StartKind.NETWORK
        draft.place(0, float(rng.uniform(*limits)))
    if len(before) > 1:
        stretch = (before[-1] - draft.lams()[0]) / (before[-1] - before[0])
        for k in range(1, len(before) - 1):
            draft.place(k, before[-1] - (before[-1] - before[k]) * stretch)


def _without_mixing(choice: Choice) -> Choice:
    if choice.compensation is not None:
        choice = replace(choice, compensation=None)
    return replace(choice, published=None) if step_of(choice).mixes_predictions else choice


def _change_start(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """Another first prediction; the steps that this costs or frees are taken at random."""
    others = [s for s in space.starts_for(draft.process, draft.times[0]) if s is not draft.start]
    if others:
        draft.jumps = False
        was_network = draft.start is StartKind.NETWORK
        draft.start = pick(others, rng)
        if was_network:
            draft.insert_step(space, rng)


def _change_end_rule(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> None:
    """From stop to denoise, or back."""
    if len(space.end_rules) > 1 or (space.end_rules[0] is EndRule.DENOISE) != draft.denoises:
        set_end_rule(space, draft, denoises=not draft.denoises)


def _some_step(
    draft: Draft, rng: np.random.Generator, wanted: Callable[[Choice], bool] | None = None
) -> int:
    """A step before the one to the clean end, one of the wanted if there is any."""
    n = max(1, len(draft.choices) - draft.denoises)
    fitting = [i for i in range(n) if wanted is None or wanted(draft.choices[i])]
    return pick(fitting or range(n), rng)


def _has_derivative(choice: Choice) -> bool:
    return choice.order > 1


def _has_estimates(choice: Choice) -> bool:
    return choice.order > 2


_WITH_COEFFICIENT = (RelaxationChoice.LINEAR, RelaxationChoice.SCALE)

_BY_RATE: dict[str, Operator] = {
    "times": _move_times,
    "end": _move_end,
    "move": _move_step,
    "prediction": _change_prediction,
    "order": _change_order,
    "relaxation": _change_relaxation,
    "estimation": _change_estimation,
    "corrector": _change_corrector,
    "solver": _change_solver,
    "start_point": _change_start_point,
    "compensation": _change_compensation,
    "network_time": _change_network_time,
    "jump": _change_jump,
    "start": _change_start,
    "end_rule": _change_end_rule,
}
assert set(_BY_RATE) == set(MutationRates.model_fields)
