"""What every rule that a search may draw keeps to, whoever adds it."""

from collections.abc import Iterator

import numpy as np
import pytest

from s3search.processes import edm, flow
from s3search.rules import Limits, Prediction, SearchedRule, Taylor, level, registered, solvers
from s3search.schedules.schedule import Step
from s3search.search.edit.recipe import choice_of, fitted, step_of
from s3search.search.space import Problem, load_space
from tests.support.extrapolated import Extrapolated
from tests.support.helpers import exact_trajectory, max_abs

TIMES = (0.9, 0.8, 0.7, 0.6, 0.5)
DRAWN = [*(rule for rule in solvers().values() if rule is not Taylor), Extrapolated]


@pytest.fixture(params=DRAWN, ids=lambda rule: rule.__name__)
def solver(request: pytest.FixtureRequest) -> Iterator[type[SearchedRule]]:
    """Every rule but Taylor, whose steps are written by choices, and one that is new."""
    is_new = request.param is Extrapolated
    with registered(*([Extrapolated] if is_new else [])):
        yield request.param


def limits_of(solver: type[SearchedRule]) -> Limits:
    """Those of the widest space."""
    return Problem(load_space("full"), edm() if solver.exists_for(edm()) else flow()).limits


def steps_of(solver: type[SearchedRule]) -> list[SearchedRule]:
    """Plain steps of all orders."""
    limits, rng = limits_of(solver), np.random.default_rng(0)
    return [
        solver.drawn(order, Prediction.DATA, limits, rng)
        for order in range(solver.least_order, 5)
        for _ in range(3)
    ]


def test_a_drawn_step_is_plain_and_within_its_limits(solver: type[SearchedRule]) -> None:
    limits = limits_of(solver)
    to = level(limits.process, 0.1)
    for step in steps_of(solver):
        assert step.is_plain
        assert step.is_allowed(limits, to)
        assert solver.model_validate(step.model_dump(mode="json")) == step


def test_an_order_is_kept_or_the_only_one(solver: type[SearchedRule]) -> None:
    for step in steps_of(solver):
        other = step.with_order(3)
        assert other.is_plain
        assert other.plain_order == 3 or other == step
        assert step.with_order(step.plain_order) == step


def test_simpler_steps_are_plain_and_begin_with_itself(
    solver: type[SearchedRule],
) -> None:
    for step in steps_of(solver):
        simpler = list(step.simpler(4))
        assert simpler[0] == step
        assert all(each.is_plain for each in simpler)
        assert all(each.plain_order <= 2 for each in step.simpler(2))


def test_a_moved_step_is_plain_and_within_its_limits(solver: type[SearchedRule]) -> None:
    limits, rng = limits_of(solver), np.random.default_rng(1)
    to = level(limits.process, 0.1)
    for step in steps_of(solver):
        moved = step.moved(limits, rng)
        assert (moved is not None) or not solver.ranges
        assert moved is None or (moved.is_plain and moved.is_allowed(limits, to))


def test_a_step_looks_past_a_new_point_once_it_is_renumbered(
    solver: type[SearchedRule],
) -> None:
    process = limits_of(solver).process
    run, other = (exact_trajectory(process, times) for times in (TIMES, [*TIMES, 0.45]))
    to = level(process, 0.4)
    for step in steps_of(solver):
        later = step.renumbered(lambda p: p - 1)
        assert max_abs(run.next_state(step, to) - other.next_state(later, to)) < 1e-12


def test_a_step_survives_the_choices_and_the_space(solver: type[SearchedRule]) -> None:
    process = limits_of(solver).process
    with_it = Problem(load_space("full", {"solvers": ["taylor", solver.solver]}), process)
    without = Problem(load_space("usf"), process)
    past, to = [level(process, t) for t in TIMES], level(process, 0.4)
    for rule in steps_of(solver):
        choice, near = choice_of(Step(predictor=rule)), rule.nearest_taylor()
        assert step_of(choice).predictor == choice.published == rule
        assert (choice.prediction, choice.order) == (near.prediction, near.order)
        assert fitted(with_it, rule, past, to) == rule
        assert fitted(without, rule, past, to) is None
