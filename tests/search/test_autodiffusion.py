"""AutoDiffusion's search of times: generations, and nothing changed but times."""

import math

import numpy as np
import pytest

from s3search.errors import InvalidConfig
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.schedules import published
from s3search.search.algorithms.autodiffusion import POPULATION, AutoDiffusion
from s3search.search.space import load_space
from s3search.search.trial import Trial
from tests.search.test_evolution import best_of, gaussian_error, seeds
from tests.support.searches import measured, proposals, setup_of

SPACE = load_space("usf")


def generations(proposer: AutoDiffusion, n: int) -> list[Trial]:
    """n whole generations, measured one by one."""
    return proposals(lambda: proposer, n * POPULATION, gaussian_error)


def counted(trials: list[Trial]) -> dict[str, int]:
    origins = [trial.origin.text for trial in trials]
    return {origin: origins.count(origin) for origin in sorted(set(origins))}


def test_generations_are_made_up_as_published() -> None:
    made = generations(AutoDiffusion(setup_of(SPACE, edm(), nfe=(6,))), 2)
    first, second = made[:POPULATION], made[POPULATION:]
    assert counted(first)["solver"] == 1 and first[0].origin.text == "solver"
    assert counted(first).keys() == {"solver", "random", "mutation"}
    assert counted(first)["random"] >= 25
    assert not any(trial.parents for trial in first)
    own = counted(second)
    assert own.keys() == {"mutation", "crossover", "random"}
    assert 20 <= own["mutation"] <= 25 and 10 <= own["crossover"] <= 15
    assert own["random"] >= 10


def test_parents_are_the_best_ten_of_the_generations_before() -> None:
    made = generations(AutoDiffusion(setup_of(SPACE, edm(), nfe=(6,))), 2)
    ranked = sorted(made[:POPULATION], key=lambda p: gaussian_error(p.schedule))
    best = {trial.schedule.id for trial in ranked[:10]}
    parents = {parent for trial in made[POPULATION:] for parent in trial.parents}
    assert parents and parents <= best


def test_failed_evaluations_are_counted_but_never_parents() -> None:
    proposer = AutoDiffusion(setup_of(SPACE, edm(), nfe=(5,)))
    good = set()
    for number in range(POPULATION):
        trial = proposer.propose(number, [])
        value = 1.0 if number % 5 == 0 else (None, math.nan)[number % 2]
        proposer.tell(measured(trial, value))
        good |= {trial.schedule.id} if value == 1.0 else set()
    parents = {p for n in range(POPULATION, 120) for p in proposer.propose(n, []).parents}
    assert parents and parents <= good


def test_pending_schedules_hold_their_places_in_the_generation() -> None:
    proposer = AutoDiffusion(setup_of(SPACE, edm(), nfe=(5,)))
    pending: list[Trial] = []
    for number in range(POPULATION):
        pending.append(proposer.propose(number, pending))
    for trial in pending[:10]:
        proposer.tell(measured(trial, gaussian_error(trial.schedule)))
    later = proposer.propose(POPULATION, pending[10:])
    assert later.origin.text == "mutation"
    assert set(later.parents) <= {trial.schedule.id for trial in pending[:10]}


@pytest.mark.parametrize("process", [edm(), flow(), vp_linear(), vp_discrete()])
@pytest.mark.parametrize("solver", ["ddim", "2m"])
def test_only_times_differ(process: NoiseProcess, solver: str) -> None:
    make = {"ddim": published.ddim, "2m": published.dpmpp_2m}[solver]
    base = make(process, nfe=5)
    proposer = AutoDiffusion(setup_of(SPACE, process, nfe=(5,)), solver=solver)
    for number in range(80):
        trial = proposer.propose(number, [])
        schedule = trial.schedule
        assert (schedule.steps, schedule.start) == (base.steps, base.start)
        assert schedule.times[0] == base.times[0] and schedule.nfe == 5
        proposer.tell(measured(trial, float(number)))
        lams = [process.lam(t) for t in schedule.times[1:] if t != process.clean_time]
        assert min(np.diff(lams)) > 0.9 * SPACE.min_gap


def test_the_best_seed_gives_the_solver_and_seeds_of_its_steps_are_parents() -> None:
    given = {
        "DDIM": published.ddim(edm(), nfe=5),
        "2M": published.dpmpp_2m(edm(), nfe=5),
        "2M, karras": published.dpmpp_2m(edm(), nfe=5, spacing="karras"),
    }
    proposer = AutoDiffusion(setup_of(SPACE, edm(), nfe=(5,), seeds=given))
    for number, (schedule, value) in enumerate(zip(given.values(), (3.0, 2.0, 1.0), strict=True)):
        trial = proposer.propose(number, [])
        assert trial.schedule == schedule
        proposer.tell(measured(trial, value))
    steps, parents = given["2M"].steps, set()
    for number in range(3, 3 + 2 * POPULATION):
        trial = proposer.propose(number, [])
        assert trial.schedule.steps == steps
        proposer.tell(measured(trial, 5.0 + number))
        parents |= set(trial.parents)
    assert {given["2M"].id, given["2M, karras"].id} <= parents
    assert given["DDIM"].id not in parents


def test_it_finds_better_times_than_every_seed() -> None:
    known = min(gaussian_error(schedule) for schedule in seeds(4).values())
    proposer = AutoDiffusion(setup_of(SPACE, edm(), nfe=(4,), seeds=seeds(4)))
    assert best_of(proposer, 250) < 0.5 * known


def test_one_call_is_searched_too() -> None:
    denoising = {"2M": published.dpmpp_2m(edm(), nfe=1)}
    for given in ({}, denoising):
        proposer = AutoDiffusion(setup_of(SPACE, edm(), nfe=(1,), seeds=given))
        assert {proposer.propose(number, []).schedule.nfe for number in range(5)} == {1}


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="autodiffusion knows no solver 'dimm'; did you mean"):
        AutoDiffusion(setup_of(SPACE, edm(), nfe=(4,)), solver="dimm")
