"""What a target leaves of a space its program can express, whatever a search makes of it."""

from typing import Any

import numpy as np
import pytest

from s3search.errors import InvalidConfig
from s3search.processes import NoiseProcess, VpDiscrete, edm, flow
from s3search.schedules import published
from s3search.schedules.published.listed import LISTED_SOLVERS, listed_for, listed_solver_of
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule, Start
from s3search.schedules.spacing import noisy_time
from s3search.search.edit.draft import misfit, random_schedule
from s3search.search.edit.variation import crossover, migrate, mutate
from s3search.search.space import Problem, load_space
from s3search.search.space.targets import (
    PIPELINE_CLASSES,
    RUNTIMES,
    narrowed,
    objection,
    settled_target,
)
from s3search.solvers.plan import compile_plan
from s3search.solvers.trainable import Freedom
from tests.support.helpers import PROCESSES

_TARGETS = [name for name in RUNTIMES if name not in PIPELINE_CLASSES or name == "DiTPipeline"]
_MEAN = ((tuple([0.1] * 2),) * 2,)


def _problem(target: str, process: NoiseProcess, **fields: Any) -> Problem:
    space, _ = narrowed(load_space("full", {"nfe": [5], "target": target, **fields}))
    return Problem.found(space, process, mean_image=_MEAN)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
@pytest.mark.parametrize("target", _TARGETS)
def test_whatever_a_search_makes_can_be_expressed(target: str, process: NoiseProcess) -> None:
    problem = _problem(target, process)
    rng = np.random.default_rng(0)
    a, b = (random_schedule(problem, 5, rng) for _ in range(2))
    for _ in range(15):
        a = mutate(problem, a, rng)
        b = crossover(problem, a, b, rng)
        for made in (a, b, migrate(problem, a, 4, rng)):
            assert objection(problem.runtime, made) is None
            assert made.start.image is None  # the mean image of the data is for who asks


def test_seeds_become_what_the_target_can_express() -> None:
    rng = np.random.default_rng(1)
    for name, process in PROCESSES.items():
        seed = published.ddim(process, nfe=5)
        scaled = seed.model_copy(update={"start": Start(noise_scale=1.5)})
        for target in _TARGETS:
            problem = _problem(target, process)
            for own in (seed, scaled):
                child = migrate(problem, own, 5, rng)
                assert objection(problem.runtime, child) is None, (name, target)
            if target == "sigmas":
                assert listed_solver_of(child) is not None


def test_the_mean_image_is_drawn_where_it_is_asked_for() -> None:
    process = PROCESSES["edm"]
    rng = np.random.default_rng(0)
    problem = _problem("any", process, data_bound=True, starts=["network", "average_x0"])
    drawn = [random_schedule(problem, 5, rng) for _ in range(20)]
    assert any(own.start.image is not None for own in drawn)
    assert all(misfit(problem, own) is None for own in drawn)


def test_lists_are_searched_over_solvers_and_levels() -> None:
    process, rng = PROCESSES["vp_discrete"], np.random.default_rng(2)
    problem = _problem("sigmas", process)
    made = [random_schedule(problem, 6, rng) for _ in range(12)]
    for _ in range(40):
        made.append(mutate(problem, made[-1], rng))
    names = {solver.name for own in made if (solver := listed_solver_of(own)) is not None}
    assert names == {own.name for own in listed_for(process)}
    assert all(t == round(t) for own in made for t in own.times[:-1])
    assert len({own.times for own in made}) > 30
    only = _problem("sigmas", process, solver="ipndm")
    assert listed_solver_of(random_schedule(only, 6, rng)) is LISTED_SOLVERS["ipndm"]


def test_what_a_program_begins_with_stays_where_it_is() -> None:
    for process in PROCESSES.values():
        noisiest = noisy_time(process)
        assert Freedom.START in _problem("DDPMPipeline", process).fixed_in_polish
        assert Freedom.START not in _problem("k-diffusion", process).fixed_in_polish
        assert _problem("any", process).fixed_in_polish == ()
        first = _problem("comfyui", process).first_times[0]
        assert (first < noisiest) == (process.type != "flow")
        rounded = Freedom.TIMES in _problem("comfyui", process).fixed_in_polish
        assert rounded == isinstance(process, VpDiscrete)


def test_schedules_begin_at_pure_noise_and_at_edm_s_noisiest_level() -> None:
    process, rng = flow(), np.random.default_rng(3)
    problem = _problem("any", process)
    made = [random_schedule(problem, 5, rng) for _ in range(40)]
    for _ in range(40):
        made.append(mutate(problem, made[-1], rng))
        made.append(crossover(problem, made[-1], made[0], rng))
    begins = {round(own.times[0], 6) for own in made if own.start.jump is None}
    assert begins == {1.0, round(80 / 81, 6)}
    assert all(misfit(problem, own) is None for own in made[:40])
    assert all(compile_plan(own).nfe == 5 for own in made)
    seed = retime(published.ipndm(edm(), nfe=5), process)
    assert mutate(problem, seed, rng).times[0] in (seed.times[0], 1.0)
    in_pipeline = _problem("FluxPipeline", process)
    assert in_pipeline.first_times == (1.0,)
    assert migrate(in_pipeline, seed, 5, rng).times[0] == 1.0
    assert not in_pipeline.can_run(seed)


@pytest.mark.parametrize(
    ("name", "n"), [("edm", 1), ("flow", 2), ("vp_linear", 2), ("vp_discrete", 1)]
)
def test_a_process_that_begins_no_noisier_than_edm_has_one_beginning(name: str, n: int) -> None:
    assert len(_problem("any", PROCESSES[name]).first_times) == n


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [
        ("sigmas", "starts", ["average_x0"]),
        ("sigmas", "orders", [2]),
        ("DDPMPipeline", "starts", ["network", "zero_x0"]),
        ("DDPMPipeline", "guidance", [1.0, 5.0]),
        ("k-diffusion", "jump_sigma", [2.0, 40.0]),
        ("comfyui", "guidance", [1.0, 5.0]),
    ],
)
def test_a_choice_beside_a_target_that_cannot_have_it_is_an_error(
    target: str, field: str, value: Any
) -> None:
    space = load_space("usf", {"target": target, "data_bound": True, field: value})
    with pytest.raises(InvalidConfig, match=rf"space\.{field}: .* target = '{target}'"):
        narrowed(space, {field})
    assert field in narrowed(space)[1]


def test_targets_settle_on_the_model() -> None:
    assert settled_target(None, "DDPMPipeline") == "DDPMPipeline"
    assert settled_target("pipeline", "FluxPipeline") == "FluxPipeline"
    assert settled_target(None, None) == "any"
    assert settled_target(None, "ScoreSdeVePipeline") == "any"
    assert settled_target("sigmas", "DDPMPipeline") == "sigmas"
    for asked, pipeline, said in (
        ("pipeline", None, "is no pipeline of diffusers"),
        ("pipeline", "ScoreSdeVePipeline", "no scheduler but its own"),
        ("sigma", None, "did you mean 'sigmas'"),
    ):
        with pytest.raises(InvalidConfig, match=f"space\\.target: .*{said}"):
            settled_target(asked, pipeline)


def test_objections_name_the_field() -> None:
    process = PROCESSES["vp_discrete"]
    plain = published.dpmpp_2m(process, nfe=4)
    analytic = plain.model_copy(update={"start": Start(kind="average_x0", image=_MEAN)})
    late = Schedule(process=process, times=(700.0, *plain.times[2:]), steps=plain.steps[:3])
    guided = published.with_guidance(plain, [1.0, 2.0, 2.0, 1.0])
    found = {
        target: [objection(RUNTIMES[target], own) for own in (plain, analytic, late, guided)]
        for target in ("any", "DDPMPipeline", "StableDiffusionPipeline", "k-diffusion", "sigmas")
    }
    scale = "model_patch.guidance_scale"
    assert found == {
        "any": [None, None, None, None],
        "DDPMPipeline": [None, "start", "times[0]", scale],
        "StableDiffusionPipeline": [None, None, None, None],
        "k-diffusion": [None, None, None, None],
        "sigmas": ["times", "start", "times[0]", scale],
    }
