"""Schedules and steps drawn at random."""

import math
from dataclasses import replace

import numpy as np

from s3search.rules import Prediction, SearchedRule, Taylor
from s3search.schedules.schedule import Schedule, StartKind
from s3search.schedules.spacing import EndRule
from s3search.search.edit.compensating import random_compensation
from s3search.search.edit.draft.finishing import finished
from s3search.search.edit.draft.form import Draft, pick, random_end, random_first
from s3search.search.edit.network_time import random_shift
from s3search.search.edit.noising import random_noises
from s3search.search.edit.recipe import Choice, possible_estimates, relaxation_of, with_rule
from s3search.search.space import Problem, SpaceConfig


def random_schedule(problem: Problem, nfe: int, rng: np.random.Generator) -> Schedule:
    """A schedule of the space drawn at random: every choice uniform, the times by random shares of
    the way in lam, bent towards one of the ends.
    """
    space, process = problem.space, problem.process
    first = random_first(problem, rng)
    start = pick(problem.starts_at(first), rng)
    n = nfe + (start is not StartKind.NETWORK)
    denoises = pick(space.end_rules, rng) is EndRule.DENOISE
    draft = Draft(process, [first], denoises, start, [])
    jump = problem.jump_lams
    if jump is not None and start is StartKind.NETWORK and rng.random() < 0.5:
        draft.jumps = True
        draft.place(0, float(rng.uniform(*jump)))
    draft.choices = [random_choice(problem, i + 1, rng) for i in range(n)]
    solvers = problem.solvers
    if len(solvers) > 1:
        draft.choices = [
            with_solver(problem, pick(solvers, rng), choice, i + 1, rng)
            for i, choice in enumerate(draft.choices)
        ]
    draft.choices[-1] = replace(draft.choices[-1], corrector=None)
    if space.compensations and rng.random() < 0.5:
        draft.choices = [
            replace(choice, compensation=random_compensation(problem, i + 1, rng))
            for i, choice in enumerate(draft.choices)
        ]
    noises = random_noises(problem, n, rng)
    if noises is not None:
        pairs = zip(draft.choices, noises, strict=True)
        draft.choices = [replace(choice, noise=noise) for choice, noise in pairs]
    n_intervals = n - denoises
    if n_intervals:
        first, last = draft.lams()[0], random_end(problem, draft, rng)
        shares = np.cumsum(rng.dirichlet([4.0] * n_intervals))[:-1] ** math.exp(rng.normal(0, 0.3))
        inner = [process.time_of_lam(float(first + (last - first) * x)) for x in shares]
        draft.times += [*inner, process.time_of_lam(last)]
    if space.network_shift > 0.0 and rng.random() < 0.5:
        draft.first_shift = random_shift(problem, draft.times[0], rng)
        for i, t in enumerate(draft.times[1:]):
            shift = random_shift(problem, t, rng)
            draft.choices[i] = replace(draft.choices[i], shift=shift)
    return finished(problem, draft, nfe, rng)


def random_choice(problem: Problem, n_points: int, rng: np.random.Generator) -> Choice:
    """The choices of one step with ``n_points`` evaluated before it, drawn uniformly."""
    space = problem.space
    order = min(pick(space.orders, rng), n_points)
    kind = pick(space.relaxations, rng)
    coefficient = random_coefficient(space, rng)
    corrector = pick(space.correctors, rng)
    return Choice(
        prediction=pick(problem.predictions, rng),
        order=order,
        start=pick(space.start_points, rng) if len(space.start_points) > 1 else -1,
        first_points=pick(possible_estimates(space, order), rng) if order > 1 else 0,
        relaxation=relaxation_of(kind, coefficient) if order > 1 else None,
        corrector=corrector,
    )


def with_solver(
    problem: Problem,
    solver: type[SearchedRule],
    choice: Choice,
    n_points: int,
    rng: np.random.Generator,
) -> Choice:
    """``choice`` as a step of another rule, of its own order or the rule's least.

    Taylor's where ``n_points`` are too few; without corrector where the rule has none.
    """
    order = max(choice.order, solver.least_order)
    if solver is Taylor or order > min(n_points, max(problem.space.orders)):
        return replace(choice, published=None)
    is_v3 = choice.prediction is Prediction.V3
    prediction = Prediction.DATA if is_v3 else choice.prediction
    new = with_rule(choice, solver.drawn(order, prediction, problem.limits, rng))
    return new if solver.has_corrector else replace(new, corrector=None)


def random_coefficient(space: SpaceConfig, rng: np.random.Generator) -> float:
    """A relaxation's coefficient: normal, a third of the limit wide."""
    limit = space.coefficient_limit
    return float(np.clip(rng.normal(0.0, limit / 3), -limit, limit))
