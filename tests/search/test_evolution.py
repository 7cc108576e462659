"""Proposers: seeds first, no plan twice, deterministic, and evolution is worth its name."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from s3search.errors import InvalidConfig
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.published.baselines import published_solvers_of_before
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.autodiffusion import AutoDiffusion
from s3search.search.algorithms.evolution import Evolution, EvolutionSettings, RandomSearch
from s3search.search.algorithms.sequential import Proposer
from s3search.search.algorithms.usf import UsfEvolution
from s3search.search.questions import Measurement
from s3search.search.space import load_space
from s3search.search.trial import Origin, Trial, distinct, schedule_key
from s3search.solvers.plan import compile_plan
from tests.support.searches import facts, measured, setup_of
from tests.support.searches import published as trials_of

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
        trial = proposer.propose(number, [])
        value = gaussian_error(trial.schedule)
        proposer.tell(measured(trial, value))
        best = min(best, value)
    return best


@cache
def seeds(nfe: int, n: int = 8) -> dict[str, Schedule]:
    """Eight of those that releases have had for long: what finds better ones is the search."""
    made = {each.name: each.schedule for each in published_solvers_of_before(edm(), nfe)}
    found = distinct(trials_of(made))
    return {t.origin.label: t.schedule for t in found[:: len(found) // n][:n]}


def evolution(seed: int = 0, *, nfe: tuple[int, ...] = (4,), with_seeds: bool = True) -> Evolution:
    given = {f"{k}, NFE {n}": s for n in nfe for k, s in seeds(n).items()} if with_seeds else {}
    return Evolution(setup_of(SPACE, edm(), nfe=nfe, seed=seed, seeds=given))


def random_search(seed: int = 0) -> RandomSearch:
    return RandomSearch(setup_of(SPACE, edm(), nfe=(4,), seed=seed, seeds=seeds(4)))


def usf(seed: int = 0, *, with_seeds: bool = True) -> UsfEvolution:
    given = seeds(4) if with_seeds else {}
    return UsfEvolution(setup_of(SPACE, edm(), nfe=(4,), seed=seed, seeds=given))


def autodiffusion(seed: int = 0, *, with_seeds: bool = True) -> AutoDiffusion:
    given = seeds(4) if with_seeds else {}
    return AutoDiffusion(setup_of(SPACE, edm(), nfe=(4,), seed=seed, seeds=given))


PROPOSERS = [evolution, random_search, usf, autodiffusion]


def run(proposer: Proposer, n: int) -> list[Trial]:
    """n trials, with two pending at all times and every seventh evaluation failing."""
    trials: list[Trial] = []
    pending: list[Trial] = []
    for number in range(n):
        trial = proposer.propose(number, list(pending))
        assert trial.number == number
        trials.append(trial)
        pending.append(trial)
        if len(pending) > 2:
            done = pending.pop(0)
            fails = (done.number or 0) % 7 == 6
            proposer.tell(measured(done, None if fails else gaussian_error(done.schedule)))
    return trials


@pytest.mark.parametrize("make", PROPOSERS)
def test_seeds_come_first_and_in_order(make: Callable[[], Proposer]) -> None:
    origins = [trial.origin.text for trial in run(make(), 12)]
    names = [f"baseline: {name}" for name in seeds(4)]
    assert [origin.removesuffix(", NFE 4") for origin in origins[: len(names)]] == names
    assert not any(origin.startswith("baseline") for origin in origins[len(names) :])


@pytest.mark.parametrize("make", PROPOSERS)
def test_no_plan_is_proposed_twice(make: Callable[[], Proposer]) -> None:
    keys = [schedule_key(trial.schedule) for trial in run(make(), 150)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("make", PROPOSERS)
def test_same_seed_and_tells_give_the_same_proposals(make: Callable[[int], Proposer]) -> None:
    first, again, other = ([facts(t) for t in run(make(seed), 60)] for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("make", PROPOSERS)
def test_a_resumed_search_goes_on_as_if_it_had_not_been_killed(
    make: Callable[[], Proposer],
) -> None:
    whole = make()
    told: list[Measurement] = []
    for number in range(40):
        trial = whole.propose(number, [])
        told.append(measured(trial, gaussian_error(trial.schedule)))
        whole.tell(told[-1])
    resumed, unread = make(), make()
    for known in told:
        trial = known.trial
        again = Schedule.from_dict(trial.schedule.to_dict())
        origin = Origin.of_text(trial.origin.text)
        stored = Trial.of(again, origin, trial.parents, trial.number)
        resumed.tell(measured(stored, known.value))
        unread.tell(measured(_unread(stored), known.value))
    pending = [told[3].trial]
    for proposer in (resumed, unread):
        assert facts(proposer.propose(40, pending)) == facts(whole.propose(40, pending))
        assert facts(proposer.propose(41, [])) == facts(whole.propose(41, []))


def _unread(trial: Trial) -> Trial:
    """The trial as a study's log has it."""
    return Trial(
        id=trial.id,
        nfe=trial.nfe,
        origin=trial.origin,
        parents=trial.parents,
        number=trial.number,
        source=lambda: trial.schedule,
        stored_key=schedule_key(trial.schedule),
    )


@pytest.mark.parametrize("make", PROPOSERS)
def test_proposing_changes_nothing(make: Callable[[], Proposer]) -> None:
    proposer = make()
    run(proposer, 20)
    assert facts(proposer.propose(20, [])) == facts(proposer.propose(20, []))


@pytest.mark.parametrize("make", [evolution, usf, autodiffusion])
def test_what_is_pending_is_not_proposed_again(make: Callable[..., Proposer]) -> None:
    proposer = make(with_seeds=False)
    run(proposer, 20)
    first = proposer.propose(20, [])
    assert proposer.propose(20, [first]).schedule.id != first.schedule.id


@pytest.mark.parametrize("make", [evolution, usf])
def test_failed_and_infinite_evaluations_are_never_parents(make: Callable[[], Proposer]) -> None:
    proposer = make()
    bad = set()
    for number, (_, schedule) in enumerate(seeds(4).items()):
        value = (None, math.inf, math.nan, 1.0)[number % 4]
        proposer.tell(measured(schedule, value, number))
        if value != 1.0:
            bad.add(schedule.id)
    parents = {p for number in range(8, 80) for p in proposer.propose(number, []).parents}
    assert parents and not parents & bad


def test_several_nfe_take_turns_and_exchange_schedules() -> None:
    trials = run(evolution(nfe=(3, 4, 6)), 120)
    later = [trial for trial in trials if not trial.origin.text.startswith("baseline")]
    assert {trial.schedule.nfe for trial in later} == {3, 4, 6}
    assert any(trial.origin.text == "migration from nfe 3" for trial in later)
    assert all(trial.schedule.nfe == (3, 4, 6)[(trial.number or 0) % 3] for trial in later)


def test_seeds_of_one_plan_count_once() -> None:
    twice = {
        "a": published.ddim(edm(), nfe=3),
        "b": published.euler(edm(), nfe=3, spacing="uniform"),
    }
    assert [trial.origin.label for trial in distinct(trials_of(twice))] == ["a"]


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidConfig, match=r"search\.crossover: must be a probability"):
        EvolutionSettings(crossover=1.5)
    with pytest.raises(InvalidConfig, match="rank_bar"):
        EvolutionSettings(rank_bar=0)


@pytest.mark.parametrize("nfe", [4, 7])
def test_evolution_beats_random_search_on_a_gaussian(nfe: int) -> None:
    n, pairs = 150, []
    for seed in range(4):
        setup = setup_of(SPACE, edm(), nfe=(nfe,), seed=seed)
        evolved = best_of(Evolution(setup), n)
        drawn = best_of(RandomSearch(setup), n)
        pairs.append((evolved, drawn))
    assert sum(evolved < drawn for evolved, drawn in pairs) >= 3
    logs = np.log(pairs).mean(axis=0)
    assert logs[0] < logs[1] - math.log(2)
