"""Changes of one step of a draft: its rule, its corrector, its compensation, its noise."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from s3search.rules import Relaxation, RelaxationKind, SearchedRule
from s3search.search.edit.compensating import moved_compensation
from s3search.search.edit.draft import Draft, pick, random_coefficient, with_solver
from s3search.search.edit.noising import (
    moved_noise,
    own_noise,
    random_noise,
    with_moved_noise,
)
from s3search.search.edit.recipe import (
    Choice,
    kind_of,
    possible_estimates,
    possible_orders,
    relaxation_of,
    solver_of,
    strength_of,
    takes_noise,
    with_rule,
)
from s3search.search.space import Problem

_ALL_STEPS = 0.2  # of the changes of noise: half of these give all steps one, half take all away


def change_prediction(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another prediction at one step, as a Taylor step."""
    i = _some_step(draft, rng)
    others = [p for p in problem.predictions if p is not draft.choices[i].prediction]
    if others:
        draft.choices[i] = replace(draft.choices[i], prediction=pick(others, rng), published=None)


def change_order(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another order at one step; its derivatives are then estimated from all its points.

    A step of one of the space's other solvers keeps its solver where that has the order.
    """
    i = _some_step(draft, rng)
    choice = draft.choices[i]
    others = [o for o in possible_orders(problem.space, i + 1) if o != choice.order]
    if not others:
        return
    order = pick(others, rng)
    own = _own_step(problem, choice)
    if own is not None and order >= own.least_order:
        draft.choices[i] = with_rule(choice, own.with_order(order))
        return
    relaxation = choice.relaxation
    if order > 1 and choice.order == 1:
        kind = pick(problem.space.relaxations, rng)
        relaxation = relaxation_of(kind, random_coefficient(problem.space, rng))
    draft.choices[i] = replace(
        choice,
        order=order,
        first_points=order - 1,
        relaxation=relaxation if order > 1 else None,
        published=None,
    )


def change_relaxation(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another kind, or a step of the coefficient's random walk, at one step of order 2 or more.

    A walk from a kind without coefficient starts at the linear relaxation of the same factor.
    """
    space = problem.space
    i = _some_step(draft, rng, _has_derivative)
    choice = draft.choices[i]
    if choice.order < 2:
        return
    has_walk = walks(kind_of(choice.relaxation))
    has_linear = RelaxationKind.LINEAR in space.relaxations
    others = [kind for kind in space.relaxations if kind is not kind_of(choice.relaxation)]
    if (has_walk or has_linear) and (not others or rng.random() < 0.6):
        kind = kind_of(choice.relaxation) if has_walk else RelaxationKind.LINEAR
        strength = strength_of(choice.relaxation) if has_walk else as_linear(draft, i)
        size = space.coefficient_sigma * math.exp(rng.normal(0.0, 0.7))
        limit = space.coefficient_limit
        new = relaxation_of(kind, float(np.clip(strength + rng.normal(0.0, size), -limit, limit)))
    elif others:
        new = relaxation_of(pick(others, rng), random_coefficient(space, rng))
    else:
        return
    draft.choices[i] = replace(choice, relaxation=new, published=None)


def walks(kind: RelaxationKind | None) -> bool:
    """Whether relaxations of this kind have a coefficient that may walk."""
    return kind is not None and kind.takes_coefficient


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


def change_estimation(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another number of points for the first derivative, at one step of order 3 or more."""
    i = _some_step(draft, rng, lambda choice: choice.order > 2)
    choice = draft.choices[i]
    if choice.order < 3:
        return
    others = [
        m for m in possible_estimates(problem.space, choice.order) if m != choice.first_points
    ]
    if others:
        draft.choices[i] = replace(choice, first_points=pick(others, rng), published=None)


def change_corrector(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another corrector at one step; on the last one it can only be removed."""
    n = len(draft.choices)
    i = int(rng.integers(n))
    now = draft.choices[i].corrector
    kinds = {*problem.space.correctors, None}
    others = [None] if i == n - 1 else [kind for kind in kinds if kind is not now]
    own = _own_step(problem, draft.choices[i])
    if own is not None and not own.has_corrector:
        others = [None]
    others.sort(key=str)
    draft.choices[i] = replace(draft.choices[i], corrector=pick(others, rng))


def change_solver(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """A small move of one step's own numbers, or a step of another solver in its place.

    The first step is left out where there are others: with one point most solvers are one.
    Where the winner is to be a list for a solver, all steps become another one's.
    """
    if problem.listed:
        others_listed = [own for own in problem.listed if own is not draft.listed]
        draft.listed = pick(others_listed, rng) if others_listed else draft.listed
        return
    n = max(1, len(draft.choices) - draft.denoises)
    i = int(rng.integers(min(1, n - 1), n))
    choice = draft.choices[i]
    own, now = _own_step(problem, choice), solver_of(choice.published)
    rule = None if own is None else own.moved(problem.limits, rng)
    if rule is not None and rng.random() < 0.6:
        draft.choices[i] = with_rule(choice, rule)
        return
    others = [s for s in problem.solvers if s is not now]
    if others:
        solver = pick(others, rng)
        draft.choices[i] = with_solver(problem, solver, choice, i + 1, rng)


def _own_step(problem: Problem, choice: Choice) -> SearchedRule | None:
    """The step if it is plain and of one of the space's solvers other than Taylor."""
    rule = choice.published
    if isinstance(rule, SearchedRule) and rule.is_plain and rule.solver in problem.space.solvers:
        return rule
    return None


def change_start_point(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another point for one step to start from; a step of order 1 becomes one of order 2."""
    i = _some_step(draft, rng, _has_derivative)
    choice = draft.choices[i]
    starts = problem.space.start_points
    others = [start for start in starts if start != choice.start and -start <= i + 1]
    if not others or i == 0:
        return
    if choice.order < 2:
        choice = replace(choice, order=2, first_points=1)
    draft.choices[i] = replace(choice, start=pick(others, rng), published=None)


def change_compensation(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Another compensation at one step, or a small move of its number; it takes the place of the
    schedule's network-time shifts.
    """
    n = max(1, len(draft.choices) - draft.denoises)
    i = int(rng.integers(min(1, n - 1), n))
    new = moved_compensation(problem, draft.choices[i].compensation, i + 1, rng)
    draft.choices[i] = replace(draft.choices[i], compensation=new)
    if new is not None:
        draft.forget_shifts()


def change_noise(problem: Problem, draft: Draft, rng: np.random.Generator) -> None:
    """Other noise at one step, or a small move of its amount or factor; at times one noise for all
    steps that take it, or none for all.
    """
    draw = rng.random()
    if draw >= _ALL_STEPS:
        i = _some_step(draft, rng, lambda choice: takes_noise(choice) or _has_own_noise(choice))
        draft.choices[i] = _with_other_noise(problem, draft.choices[i], rng)
        return
    new = random_noise(problem, rng) if draw < _ALL_STEPS / 2 else None
    draft.choices = [
        replace(choice, noise=new, published=None if _has_own_noise(choice) else choice.published)
        for choice in draft.choices
    ]


def _with_other_noise(problem: Problem, choice: Choice, rng: np.random.Generator) -> Choice:
    if choice.published is None or not _has_own_noise(choice):
        return replace(choice, noise=moved_noise(problem, choice.noise, rng))
    rule = with_moved_noise(problem, choice.published, rng)
    return replace(choice, published=None) if rule is None else with_rule(choice, rule)


def _has_own_noise(choice: Choice) -> bool:
    return own_noise(choice.published) is not None


def _some_step(
    draft: Draft, rng: np.random.Generator, wanted: Callable[[Choice], bool] | None = None
) -> int:
    """A step before the one to the clean end, one of the wanted if there is any."""
    n = max(1, len(draft.choices) - draft.denoises)
    fitting = [i for i in range(n) if wanted is None or wanted(draft.choices[i])]
    return pick(fitting or range(n), rng)


def _has_derivative(choice: Choice) -> bool:
    return choice.order > 1
