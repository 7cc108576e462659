"""Optuna samplers behind the proposer protocol."""

import importlib.util
import logging

import numpy as np
import optuna
import pytest

from s3search.errors import InvalidConfig
from s3search.processes import NoiseProcess, edm, flow, vp_discrete
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms import optuna as module
from s3search.search.algorithms.optuna import OptunaProposer, make_sampler
from s3search.search.edit.draft import misfit, random_schedule
from s3search.search.questions import Measurement
from s3search.search.space import Problem, load_space
from s3search.search.trial import Trial, published_as
from tests.support.searches import facts, measured, setup_of

SPACE = load_space("usf")
SAMPLERS = ["tpe", "random", "cmaes", "nsgaii"]
NFE = 4


def distance(schedule: Schedule) -> float:
    """How far the times are from a target, in log sigma."""
    target = np.linspace(np.log(80.0), np.log(0.02), len(schedule.times))
    return float(np.abs(np.log(np.maximum(schedule.times, 1e-3)) - target).sum())


def make(sampler: str, seed: int = 0, process: NoiseProcess | None = None) -> OptunaProposer:
    process = process or edm()
    seeds = {
        "2M": published.dpmpp_2m(process, nfe=NFE),
        "UniPC": published.unipc(process, nfe=NFE),
    }
    return OptunaProposer(sampler, setup_of(SPACE, process, nfe=[NFE], seed=seed, seeds=seeds))


def run(proposer: OptunaProposer, n: int) -> list[Trial]:
    trials = []
    for number in range(n):
        trials.append(proposer.propose(number, []))
        proposer.tell(told(trials[-1]))
    return trials


def told(trial: Trial) -> Measurement:
    """Every ninth fails."""
    fails = (trial.number or 0) % 9 == 8
    return measured(trial, None if fails else distance(trial.schedule))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_new_schedules_of_the_space_after_the_seeds(sampler: str) -> None:
    trials = run(make(sampler), 25)
    assert [trial.origin.text for trial in trials[:3]] == [
        "baseline: 2M",
        "baseline: UniPC",
        f"optuna:{sampler}",
    ]
    assert len({trial.schedule.id for trial in trials}) == 25
    for trial in trials[2:]:
        assert trial.schedule.nfe == NFE
        assert misfit(Problem(SPACE, trial.schedule.process), trial.schedule) is None


@pytest.mark.parametrize("process", [flow(), vp_discrete()])
def test_every_process_is_searched(process: NoiseProcess) -> None:
    for trial in run_without_values(make("tpe", process=process)):
        assert trial.schedule.nfe == NFE


def run_without_values(proposer: OptunaProposer) -> list[Trial]:
    return [proposer.propose(number, []) for number in range(12)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_told_again_it_proposes_the_same(sampler: str) -> None:
    whole = make(sampler)
    trials = run(whole, 30)
    resumed = make(sampler)
    for trial in trials:
        again = Schedule.from_dict(trial.schedule.to_dict())
        resumed.tell(told(Trial.of(again, trial.origin, trial.parents, trial.number)))
    found, first, second = (facts(p.propose(30, [])) for p in (resumed, whole, whole))
    assert found == first == second
    own, other = (facts(make(sampler, seed=s).propose(5, seeds_of(sampler))) for s in (0, 1))
    assert other != own


def seeds_of(sampler: str) -> list[Trial]:
    unipc = Trial.of(published.unipc(edm(), nfe=NFE), published_as("UniPC"))
    return [make(sampler).propose(0, []), unipc]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_samplers_learn_from_what_they_are_told(sampler: str) -> None:
    space = load_space("timesteps", {"end_rules": ["stop"]})
    proposer = OptunaProposer(sampler, setup_of(space, edm(), nfe=[NFE]))
    values = [distance(trial.schedule) for trial in run(proposer, 100)]
    assert np.mean(values[-20:]) < 0.6 * np.mean(values[:20])


@pytest.mark.parametrize("nfe", [1, 2, 5, 8])
def test_random_schedules_of_the_space_can_be_told(nfe: int) -> None:
    rng = np.random.default_rng(0)
    space = load_space("usf", {"families": []})
    proposer = OptunaProposer("random", setup_of(space, edm(), nfe=[nfe]))
    for number in range(20):
        proposer.tell(measured(random_schedule(Problem(space, edm()), nfe, rng), 1.0, number))
    assert len(proposer._studies[nfe].trials) >= 16  # a few have gaps beyond the parameters' range


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_suggested_where_the_space_has_any(sampler: str) -> None:
    noise = {"eta": [0.0, 1.0], "gamma": [0.1, 0.5], "s_noise": [0.9, 1.1]}
    space = load_space("usf", {"noise": noise, "families": []})
    proposer = OptunaProposer(sampler, setup_of(space, edm(), nfe=[NFE]))
    made = [trial.schedule for trial in run(proposer, 24)]
    assert all(misfit(Problem(space, edm()), schedule) is None for schedule in made)
    assert 0 < sum(schedule.is_stochastic for schedule in made) < len(made)
    plain = OptunaProposer(sampler, setup_of(SPACE, edm(), nfe=[NFE]))
    assert not any(trial.schedule.is_stochastic for trial in run(plain, 8))


@pytest.mark.parametrize("nfe", [1, 3, 6])
def test_schedules_with_noise_can_be_told(nfe: int) -> None:
    rng = np.random.default_rng(1)
    noise = {"eta": [0.0, 1.0], "gamma": [0.1, 0.5], "s_noise": [0.9, 1.1]}
    space = load_space("usf", {"noise": noise, "families": []})
    proposer = OptunaProposer("random", setup_of(space, edm(), nfe=[nfe]))
    drawn = [random_schedule(Problem(space, edm()), nfe, rng) for _ in range(30)]
    assert nfe == 1 or sum(schedule.is_stochastic for schedule in drawn) > 3
    for number, schedule in enumerate(drawn):
        proposer.tell(measured(schedule, 1.0, number))
    told = proposer._studies[nfe].trials
    assert len(told) >= 22  # a few have gaps beyond the parameters' range
    words = {trial.params["noise"] for trial in told}
    assert words == ({"none", "some"} if nfe > 1 else words)


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(InvalidConfig, match=r"no sampler 'tpee'; did you mean 'tpe'\?"):
        make_sampler("tpee", 0)
    with pytest.raises(InvalidConfig, match="GridSampler cannot be made without arguments"):
        make_sampler("GridSampler", 0)
    assert isinstance(make_sampler("QMCSampler", 0), optuna.samplers.QMCSampler)


def test_cmaes_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InvalidConfig, match=r"pip install cmaes"):
        make_sampler("cmaes", 0)


def test_optunas_logging_is_left_as_it_was() -> None:
    optuna.logging.set_verbosity(logging.INFO)
    run(make("random"), 4)
    assert optuna.logging.get_verbosity() == logging.INFO


def test_a_sampler_forgets_what_is_neither_new_nor_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 12)
    monkeypatch.setattr(module, "_KEPT", 3)
    proposer = make("random")
    values = [distance(t.schedule) for t in run(proposer, 14) if t.number not in (0, 1, 8)]
    (study,) = proposer._studies.values()
    kept = [trial.value for trial in study.trials]
    assert len(kept) < 12
    assert min(values) in kept
    assert kept[-1] == values[-1]
