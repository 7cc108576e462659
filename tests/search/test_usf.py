"""USF's published evolution: which parents, which children, and what it leaves alone."""

import math

import numpy as np
import pytest

from s3search.processes import NoiseProcess, edm, flow, vp_cosine, vp_discrete, vp_linear
from s3search.rules import RelaxationKind
from s3search.schedules import published
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind
from s3search.schedules.spacing import End
from s3search.search.algorithms.evolution import Evolution, RandomSearch
from s3search.search.algorithms.usf import RANK_BAR, UsfEvolution, usf_child
from s3search.search.edit.draft import misfit, random_schedule
from s3search.search.edit.recipe import choice_of
from s3search.search.space import Problem, load_space
from s3search.search.trial import schedule_key
from tests.search.test_evolution import best_of
from tests.support.searches import measured, setup_of

SPACE = load_space("usf")
PROCESSES = [edm(), flow(), vp_linear(), vp_cosine(), vp_discrete()]


def children(space_name: str, process: NoiseProcess, nfe: int, n: int) -> list[Schedule]:
    problem, rng = Problem(load_space(space_name), process), np.random.default_rng(nfe)
    parents = [random_schedule(problem, nfe, rng) for _ in range(6)]
    parents += list(published.baselines(process, nfe).values())
    found = []
    for _ in range(n):
        a, b = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        child, _ = usf_child(problem, a, b, range(1, 20), rng)
        found += [] if child is None else [child]
    return found


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.type)
@pytest.mark.parametrize("space", ["usf", "timesteps", "full"])
def test_children_lie_in_the_space(process: NoiseProcess, space: str) -> None:
    for nfe in (1, 2, 5):
        for child in children(space, process, nfe, 40):
            assert misfit(Problem(load_space(space), process), child) is None
            assert abs(child.nfe - nfe) <= 3


def test_two_fifths_of_the_children_make_another_number_of_calls() -> None:
    made = children("usf", edm(), 6, 400)
    other = np.mean([child.nfe != 6 for child in made])
    assert 0.3 < other < 0.6  # a step added or deleted, an analytic start gained or lost


def test_coefficients_walk_on_linear_relaxations_from_the_factor_that_was_there() -> None:
    parent = published.dpmpp_2m(edm(), nfe=5, end=End(sigma=0.02))
    lams = [edm().lam(t) for t in parent.times]
    rng, walked = np.random.default_rng(0), []
    for _ in range(400):
        child, _ = usf_child(Problem(SPACE, edm()), parent, parent, (5,), rng)
        if child is None or child.times != parent.times or child.start != parent.start:
            continue
        choice = choice_of(child.steps[2])
        if choice.order == 2 and choice.prediction == choice_of(parent.steps[2]).prediction:
            relaxation = choice.relaxation
            if relaxation is not None and relaxation.kind == RelaxationKind.LINEAR:
                walked.append(1.0 + (relaxation.coefficient or 0.0) * (lams[3] - lams[2]))
    z = -(lams[3] - lams[2])
    factor = 0.5 * z * math.expm1(z) / (math.expm1(z) - z)
    assert walked and abs(np.median(walked) - factor) < 0.1 * (lams[3] - lams[2])


def test_the_kind_of_end_is_inherited_and_no_implicit_corrector_is_drawn() -> None:
    parent = published.dpmpp_2m(edm(), nfe=5, end=End(sigma=0.02))
    rng = np.random.default_rng(0)
    for _ in range(100):
        child, _ = usf_child(Problem(SPACE, edm()), parent, parent, (4, 5, 6), rng)
        if child is not None:
            assert child.times[-1] > edm().clean_time
            kinds = [step.corrector and step.corrector.kind for step in child.steps]
            assert CorrectorKind.IMPLICIT not in kinds
            assert kinds[-1] is None


_ANALYTIC = (StartKind.NETWORK, StartKind.ZERO_X0, StartKind.UNIT_NOISE)


def test_an_analytic_start_is_drawn_from_those_that_the_process_has() -> None:
    found = list(children("usf", flow(), 5, 200))
    assert {child.start.kind for child in found} == set(_ANALYTIC)
    pure = {child.start.kind for child in found if child.times[0] == 1.0}
    assert pure == {StartKind.NETWORK, StartKind.ZERO_X0}  # pure noise has no signal
    kinds = {child.start.kind for child in children("usf", vp_linear(), 5, 200)}
    assert kinds == set(_ANALYTIC)


def test_parents_are_two_of_the_best() -> None:
    proposer = UsfEvolution(setup_of(SPACE, edm(), nfe=(4,)))
    rng, ids = np.random.default_rng(1), []
    for number in range(40):
        schedule = random_schedule(Problem(SPACE, edm()), 4, rng)
        ids.append(schedule.id)
        proposer.tell(measured(schedule, float(number), number))
    chosen = [p for n in range(40, 240) for p in proposer.propose(n, []).parents]
    assert set(chosen) == set(ids[:RANK_BAR])


def test_one_number_of_calls_is_never_left() -> None:
    proposer = UsfEvolution(setup_of(SPACE, edm(), nfe=(4,)))
    rng = np.random.default_rng(1)
    for number in range(10):
        schedule = random_schedule(Problem(SPACE, edm()), 4, rng)
        proposer.tell(measured(schedule, float(number), number))
    assert {proposer.propose(n, []).schedule.nfe for n in range(10, 80)} == {4}


def test_schedules_spread_over_the_searched_numbers_of_calls() -> None:
    proposer = UsfEvolution(setup_of(SPACE, edm(), nfe=(4, 5)))
    rng = np.random.default_rng(1)
    parents = set()
    for number in range(10):
        schedule = random_schedule(Problem(SPACE, edm()), 4, rng)
        parents.add(schedule.id)
        proposer.tell(measured(schedule, float(number), number))
    grown = [proposer.propose(n, []) for n in range(10, 80)]
    moved = [p for p in grown if p.schedule.nfe == 5 and set(p.parents) & parents]
    assert moved and {p.schedule.nfe for p in grown} == {4, 5}


def test_a_space_of_few_schedules_still_gets_proposals() -> None:
    space = load_space("timesteps", {"end_rules": ["denoise"]})
    proposer = UsfEvolution(setup_of(space, edm(), nfe=(1,)))
    only = random_schedule(Problem(space, edm()), 1, np.random.default_rng(0))
    proposer.tell(measured(only, 1.0))
    assert schedule_key(proposer.propose(1, []).schedule) == schedule_key(only)


def test_it_stands_between_random_search_and_the_tuned_evolution() -> None:
    values = []
    for seed in range(3):
        setup = setup_of(SPACE, edm(), nfe=(4,), seed=seed)
        made = [proposer(setup) for proposer in (Evolution, UsfEvolution, RandomSearch)]
        values.append([math.log(best_of(proposer, 300)) for proposer in made])
    ours, theirs, drawn = np.mean(values, axis=0)
    assert ours < theirs < drawn
