"""Proposers: seeds first, no plan twice, deterministic, and evolution is worth its name."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from s3search.errors import InvalidConfig
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search import (
    Evolution,
    EvolutionSettings,
    Observation,
    Proposal,
    Proposer,
    RandomSearch,
    distinct,
    load_space,
    schedule_key,
)
from s3search.search.algorithms.autodiffusion import AutoDiffusion
from s3search.search.algorithms.usf import UsfEvolution
from s3search.solvers.plan import compile_plan

SPACE = load_space("usf")
STDS = np.geomspace(0.02, 0.6, 12)


def gaussian_error(schedule: Schedule) -> float:
    """Squared Frechet distance for data N(0, diag(STDS^2)): every mode is scaled by the plan."""
    plan = compile_plan(schedule)
    states = np.zeros((plan.n_rows, len(STDS)))
    predictions = np.zeros((plan.nfe, len(STDS)))
    calls = {row: j for j, row in enumerate(plan.evaluated)}
    for r, at in enumerate(plan.levels):
        states[r] = plan.p[r] @ states + plan.q[r] @ predictions if r else at.sigma
        if r in calls:
            gain = at.alpha * STDS**2 / (at.alpha**2 * STDS**2 + at.sigma**2)
            predictions[calls[r]] = gain * states[r]
    return float(((np.abs(states[-1]) - STDS) ** 2).sum())


def best_of(proposer: Proposer, n: int) -> float:
    best = math.inf
    for number in range(n):
        schedule = proposer.propose(number, []).schedule
        value = gaussian_error(schedule)
        proposer.tell(Observation(number=number, schedule=schedule, value=value))
        best = min(best, value)
    return best


def seeds(nfe: int, n: int = 8) -> dict[str, Schedule]:
    found = distinct(published.baselines(edm(), nfe))
    return {name: found[name] for name in list(found)[:: len(found) // n][:n]}


def evolution(seed: int = 0, *, nfe: tuple[int, ...] = (4,), with_seeds: bool = True) -> Evolution:
    given = {f"{k}, NFE {n}": s for n in nfe for k, s in seeds(n).items()} if with_seeds else {}
    return Evolution(SPACE, edm(), nfe=nfe, seed=seed, seeds=given)


def random_search(seed: int = 0) -> RandomSearch:
    return RandomSearch(SPACE, edm(), nfe=(4,), seed=seed, seeds=seeds(4))


def usf(seed: int = 0, *, with_seeds: bool = True) -> UsfEvolution:
    given = seeds(4) if with_seeds else {}
    return UsfEvolution(SPACE, edm(), nfe=(4,), seed=seed, seeds=given)


def autodiffusion(seed: int = 0, *, with_seeds: bool = True) -> AutoDiffusion:
    given = seeds(4) if with_seeds else {}
    return AutoDiffusion(SPACE, edm(), nfe=(4,), seed=seed, seeds=given)


PROPOSERS = [evolution, random_search, usf, autodiffusion]


def run(proposer: Proposer, n: int) -> list[Proposal]:
    """n proposals, with two pending at all times and every seventh evaluation failing."""
    proposals: list[Proposal] = []
    pending: list[Proposal] = []
    for number in range(n):
        proposal = proposer.propose(number, [p.schedule for p in pending])
        proposals.append(proposal)
        pending.append(proposal)
        if len(pending) > 2:
            done = pending.pop(0)
            value = None if done.number % 7 == 6 else gaussian_error(done.schedule)
            proposer.tell(Observation(number=done.number, schedule=done.schedule, value=value))
    return proposals


@pytest.mark.parametrize("make", PROPOSERS)
def test_seeds_come_first_and_in_order(make: Callable[[], Proposer]) -> None:
    origins = [proposal.origin for proposal in run(make(), 12)]
    names = [f"baseline: {name}" for name in seeds(4)]
    assert [origin.removesuffix(", NFE 4") for origin in origins[: len(names)]] == names
    assert not any(origin.startswith("baseline") for origin in origins[len(names) :])


@pytest.mark.parametrize("make", PROPOSERS)
def test_no_plan_is_proposed_twice(make: Callable[[], Proposer]) -> None:
    keys = [schedule_key(proposal.schedule) for proposal in run(make(), 150)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("make", PROPOSERS)
def test_same_seed_and_tells_give_the_same_proposals(make: Callable[[int], Proposer]) -> None:
    assert run(make(3), 60) == run(make(3), 60)
    assert run(make(3), 60) != run(make(4), 60)


@pytest.mark.parametrize("make", PROPOSERS)
def test_a_resumed_search_goes_on_as_if_it_had_not_been_killed(
    make: Callable[[], Proposer],
) -> None:
    whole = make()
    told = []
    for number in range(40):
        schedule = whole.propose(number, []).schedule
        told.append(Observation(number=number, schedule=schedule, value=gaussian_error(schedule)))
        whole.tell(told[-1])
    resumed = make()
    for observation in told:
        stored = Schedule.from_dict(observation.schedule.to_dict())
        resumed.tell(
            Observation(number=observation.number, schedule=stored, value=observation.value)
        )
    pending = [told[3].schedule]
    assert resumed.propose(40, pending) == whole.propose(40, pending)
    assert resumed.propose(41, []) == whole.propose(41, [])


@pytest.mark.parametrize("make", PROPOSERS)
def test_proposing_changes_nothing(make: Callable[[], Proposer]) -> None:
    proposer = make()
    run(proposer, 20)
    assert proposer.propose(20, []) == proposer.propose(20, [])


@pytest.mark.parametrize("make", [evolution, usf, autodiffusion])
def test_what_is_pending_is_not_proposed_again(make: Callable[..., Proposer]) -> None:
    proposer = make(with_seeds=False)
    run(proposer, 20)
    first = proposer.propose(20, [])
    assert proposer.propose(20, [first.schedule]).schedule.id != first.schedule.id


@pytest.mark.parametrize("make", [evolution, usf])
def test_failed_and_infinite_evaluations_are_never_parents(make: Callable[[], Proposer]) -> None:
    proposer = make()
    bad = set()
    for number, (_, schedule) in enumerate(seeds(4).items()):
        value = (None, math.inf, math.nan, 1.0)[number % 4]
        proposer.tell(Observation(number=number, schedule=schedule, value=value))
        if value != 1.0:
            bad.add(schedule.id)
    parents = {p for number in range(8, 80) for p in proposer.propose(number, []).parents}
    assert parents and not parents & bad


def test_several_nfe_take_turns_and_exchange_schedules() -> None:
    proposals = run(evolution(nfe=(3, 4, 6)), 120)
    later = [proposal for proposal in proposals if not proposal.origin.startswith("baseline")]
    assert {proposal.schedule.nfe for proposal in later} == {3, 4, 6}
    assert any(proposal.origin == "migration from nfe 3" for proposal in later)
    assert all(proposal.schedule.nfe == (3, 4, 6)[proposal.number % 3] for proposal in later)


def test_seeds_of_one_plan_count_once() -> None:
    twice = {
        "a": published.ddim(edm(), nfe=3),
        "b": published.euler(edm(), nfe=3, spacing="uniform"),
    }
    assert list(distinct(twice)) == ["a"]


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidConfig, match=r"search\.crossover: must be a probability"):
        EvolutionSettings(crossover=1.5)
    with pytest.raises(InvalidConfig, match="rank_bar"):
        EvolutionSettings(rank_bar=0)


@pytest.mark.parametrize("nfe", [4, 7])
def test_evolution_beats_random_search_on_a_gaussian(nfe: int) -> None:
    n, pairs = 300, []
    for seed in range(4):
        evolved = best_of(Evolution(SPACE, edm(), nfe=(nfe,), seed=seed), n)
        drawn = best_of(RandomSearch(SPACE, edm(), nfe=(nfe,), seed=seed), n)
        pairs.append((evolved, drawn))
    assert sum(evolved < drawn for evolved, drawn in pairs) >= 3
    logs = np.log(pairs).mean(axis=0)
    assert logs[0] < logs[1] - math.log(2)
