"""Schedules of free steps as parents: children are valid whatever becomes of the coefficients."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3search import Schedule, compile_plan
from s3search.rules import Adams, Free, Taylor
from s3search.schedules import published
from s3search.schedules.schedule import Corrector, CorrectorKind, Step
from s3search.search.edit.draft import draft_of, finished, misfit, random_schedule
from s3search.search.edit.variation import crossover, migrate, mutate
from s3search.search.space import Problem, SpaceConfig, load_space
from s3search.solvers.coefficients import as_coefficients, coefficient_table, schedule_of_table
from tests.support.helpers import PROCESSES

_SPACES: dict[str, SpaceConfig] = {
    "usf": load_space("usf", {"correctors": ["none", "pseudo", "implicit"]}),
    "full": load_space("full"),
    "timesteps": load_space("timesteps"),
}


def _check(problem: Problem, schedule: Schedule, nfe: int) -> None:
    assert schedule.nfe == nfe
    assert misfit(problem, schedule) is None
    assert compile_plan(schedule).nfe == nfe


def _kept(schedule: Schedule) -> list[bool]:
    return [isinstance(step.predictor, Free) for step in schedule.steps]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    process=st.sampled_from(sorted(PROCESSES)),
    name=st.sampled_from(sorted(_SPACES)),
    nfe=st.integers(1, 8),
    carries=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_children_of_free_schedules_lie_in_the_space(
    process: str, name: str, nfe: int, carries: bool, seed: int
) -> None:
    rng, problem = np.random.default_rng(seed), Problem(_SPACES[name], PROCESSES[process])
    plain = random_schedule(problem, nfe, rng)
    table = coefficient_table(plain)
    parent = schedule_of_table(table if carries else replace(table, p0=_stretched(table.p0)))
    for _ in range(3):
        child = mutate(problem, parent, rng)
        _check(problem, child, nfe)
        for a, b in ((parent, child), (plain, parent), (parent, as_coefficients(child))):
            _check(problem, crossover(problem, a, b, rng), nfe)
    other = int(rng.integers(1, 9))
    _check(problem, migrate(problem, parent, other, rng), other)


def _stretched(p0: np.ndarray) -> np.ndarray:
    """Other weights of x_0, but for a first row that is x_0."""
    return np.where(p0 == 1.0, p0, 1.01 * p0)


def _usf(process: str = "vp_linear") -> Problem:
    return Problem(_SPACES["usf"], PROCESSES[process])


def _dpmpp() -> Schedule:
    return as_coefficients(published.dpmpp_2m(PROCESSES["vp_linear"], nfe=4, spacing="logsnr"))


def test_free_steps_stay_while_their_levels_do() -> None:
    parent, problem, rng = _dpmpp(), _usf(), np.random.default_rng(0)
    assert misfit(problem, parent) is None
    assert finished(problem, draft_of(parent), 4, rng).steps == parent.steps
    draft = draft_of(parent)
    draft.place(2, draft.lams()[2] + 0.2)
    child = finished(problem, draft, 4, rng)
    assert _kept(child) == [True, False, True, True]
    assert isinstance(child.steps[1].predictor, Taylor)


def test_a_space_without_free_steps_keeps_none() -> None:
    space = load_space("usf", {"families": ["dpm", "unipc", "adams"]})
    problem = Problem(space, PROCESSES["vp_linear"])
    assert misfit(problem, _dpmpp()) == "steps[0]: order is not a choice of the space"
    child = finished(problem, draft_of(_dpmpp()), 4, np.random.default_rng(0))
    assert not any(_kept(child))


def test_coefficients_that_carry_nothing_are_not_inherited() -> None:
    table = coefficient_table(_dpmpp())
    loose = schedule_of_table(replace(table, q=1.01 * table.q))
    problem = _usf()
    assert "is not a choice of the space" in str(misfit(problem, loose))
    assert not any(_kept(finished(problem, draft_of(loose), 4, np.random.default_rng(0))))


def test_steps_that_stay_at_a_level_are_no_choice_of_a_space() -> None:
    twice = Corrector(kind=CorrectorKind.IMPLICIT, rule=Adams(start=-2, points=(-2, -1)))
    base = published.ddim(PROCESSES["edm"], nfe=3, spacing="logsnr")
    steps = (Step(predictor=base.steps[0].predictor, corrector=twice), *base.steps[1:])
    parent = as_coefficients(Schedule(process=base.process, times=base.times, steps=steps))
    problem = _usf("edm")
    assert "times[2]" in str(misfit(problem, parent))
    _check(problem, mutate(problem, parent, np.random.default_rng(3)), 4)


@pytest.mark.parametrize("kind", [CorrectorKind.PSEUDO, CorrectorKind.IMPLICIT])
def test_a_free_step_can_be_corrected(kind: CorrectorKind) -> None:
    """By the trapezoid rule, as every step whose corrector has no rule of its own."""
    draft, problem = draft_of(_dpmpp()), _usf()
    draft.choices[1] = replace(draft.choices[1], corrector=kind)
    nfe = 4 + (kind is CorrectorKind.IMPLICIT)
    child = finished(problem, draft, nfe, np.random.default_rng(0))
    assert _kept(child) == [True] * 4
    assert child.steps[1].corrector is not None
    _check(problem, child, nfe)
