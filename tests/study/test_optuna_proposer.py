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
from s3search.search import Observation, Proposal, load_space, problem, random_schedule
from s3search.search.algorithms import optuna as module
from s3search.search.algorithms.optuna import OptunaProposer, make_sampler

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
    return OptunaProposer(sampler, SPACE, process, nfe=[NFE], seed=seed, seeds=seeds)


def run(proposer: OptunaProposer, n: int) -> list[Proposal]:
    proposals = []
    for number in range(n):
        proposals.append(proposer.propose(number, []))
        schedule = proposals[-1].schedule
        value = None if number % 9 == 8 else distance(schedule)
        proposer.tell(Observation(number=number, schedule=schedule, value=value))
    return proposals


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_new_schedules_of_the_space_after_the_seeds(sampler: str) -> None:
    proposals = run(make(sampler), 25)
    assert [p.origin for p in proposals[:3]] == [
        "baseline: 2M",
        "baseline: UniPC",
        f"optuna:{sampler}",
    ]
    assert len({p.schedule.id for p in proposals}) == 25
    for proposal in proposals[2:]:
        assert proposal.schedule.nfe == NFE
        assert problem(SPACE, proposal.schedule) is None


@pytest.mark.parametrize("process", [flow(), vp_discrete()])
def test_every_process_is_searched(process: NoiseProcess) -> None:
    for proposal in run_without_values(make("tpe", process=process)):
        assert proposal.schedule.nfe == NFE


def run_without_values(proposer: OptunaProposer) -> list[Proposal]:
    return [proposer.propose(number, []) for number in range(12)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_told_again_it_proposes_the_same(sampler: str) -> None:
    whole = make(sampler)
    proposals = run(whole, 30)
    resumed = make(sampler)
    for proposal in proposals:
        value = None if proposal.number % 9 == 8 else distance(proposal.schedule)
        stored = Schedule.from_dict(proposal.schedule.to_dict())
        resumed.tell(Observation(number=proposal.number, schedule=stored, value=value))
    assert resumed.propose(30, []) == whole.propose(30, []) == whole.propose(30, [])
    assert make(sampler, seed=1).propose(5, seeds_of(sampler)) != make(sampler).propose(
        5, seeds_of(sampler)
    )


def seeds_of(sampler: str) -> list[Schedule]:
    return [make(sampler).propose(0, []).schedule, published.unipc(edm(), nfe=NFE)]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_samplers_learn_from_what_they_are_told(sampler: str) -> None:
    space = load_space("timesteps", {"end_rules": ["stop"]})
    proposer = OptunaProposer(sampler, space, edm(), nfe=[NFE], seed=0)
    values = [distance(p.schedule) for p in run(proposer, 100)]
    assert np.mean(values[-20:]) < 0.6 * np.mean(values[:20])


@pytest.mark.parametrize("nfe", [1, 2, 5, 8])
def test_random_schedules_of_the_space_can_be_told(nfe: int) -> None:
    rng = np.random.default_rng(0)
    space = load_space("usf", {"families": []})
    proposer = OptunaProposer("random", space, edm(), nfe=[nfe], seed=0)
    told = 0
    for number in range(20):
        schedule = random_schedule(space, edm(), nfe, rng)
        proposer.tell(Observation(number=number, schedule=schedule, value=1.0))
        told = len(proposer._studies[nfe].trials)
    assert told >= 16  # a few have gaps beyond the parameters' range


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(InvalidConfig, match=r"no sampler 'tpee'; did you mean 'tpe'\?"):
        make_sampler("tpee", 0)
    with pytest.raises(InvalidConfig, match="GridSampler cannot be made without arguments"):
        make_sampler("GridSampler", 0)
    assert isinstance(make_sampler("QMCSampler", 0), optuna.samplers.QMCSampler)


def test_cmaes_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InvalidConfig, match=r"pip install 's3search\[cmaes\]'"):
        make_sampler("cmaes", 0)


def test_optunas_logging_is_left_as_it_was() -> None:
    optuna.logging.set_verbosity(logging.INFO)
    run(make("random"), 4)
    assert optuna.logging.get_verbosity() == logging.INFO


def test_a_sampler_forgets_what_is_neither_new_nor_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 12)
    monkeypatch.setattr(module, "_KEPT", 3)
    proposer = make("random")
    values = [distance(p.schedule) for p in run(proposer, 14) if p.number not in (0, 1, 8)]
    (study,) = proposer._studies.values()
    kept = [trial.value for trial in study.trials]
    assert len(kept) < 12
    assert min(values) in kept
    assert kept[-1] == values[-1]
