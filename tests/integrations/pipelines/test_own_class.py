"""A pipeline class that only this test defines, from `s3search.search` to a run of the winner."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)

import s3search
from s3search.integrations.diffusers import S3Scheduler
from s3search.integrations.pipelines import load, runs_of
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.solvers.step_noise import of_seed
from tests.support import own_pipeline, pipelines

PROMPTS = ["a", "bb", "ccc"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return own_pipeline.striped()


def _searched(pipe: Any, **more: Any) -> Any:
    return s3search.search(
        pipe,
        prompts=PROMPTS,
        held_out=0.0,
        reference=pipelines.references(),
        features=pipelines.pooled(),
        nfe=3,
        evaluations=4,
        n_images=12,
        algorithm="evolution",
        search={"batch": 4},
        validation={"n_images": 14, "finalists": 1},
        **more,
    )


def _noise(n: int) -> torch.Tensor:
    return torch.randn((n, 3, 8, 8), generator=torch.Generator().manual_seed(1))


def test_search_finds_a_schedule_that_the_pipeline_runs(pipe: Any, tmp_path: Path) -> None:
    own = pipe.scheduler
    found = _searched(pipe)
    assert pipe.scheduler is own
    found.save(tmp_path / "schedule.json")
    schedule = Schedule.load(tmp_path / "schedule.json")
    model = runs_of(pipe, prompts=PROMPTS, held_out=0.0)
    pipe.scheduler = S3Scheduler.from_schedule(tmp_path / "schedule.json", own.config)
    torch.manual_seed(3)
    noise = torch.randn(3, 3, 8, 8)
    torch.manual_seed(3)
    (theirs,) = pipe(PROMPTS, num_inference_steps=pipe.scheduler.num_steps)
    pipe.scheduler = own
    drawn = {"prompts": torch.arange(3)}
    ours = model.images_of_plan(compile_plan(schedule), noise, of_seed(0), drawn)
    assert pipelines.is_close(ours, theirs, 1e-5)


def test_whole_runs_are_runs_of_single_calls(pipe: Any) -> None:
    model = runs_of(pipe, prompts=PROMPTS, held_out=0.0)
    plan, noise = compile_plan(published.dpmpp_2m(model.process, nfe=4)), _noise(3)
    drawn = {"prompts": torch.arange(3)}
    whole = model.images_of_plan(plan, noise, of_seed(0), drawn)
    with torch.no_grad():
        composed = model.decode(sample(model, plan, noise, **drawn))
    assert pipelines.is_close(whole, composed)


def test_an_image_does_not_depend_on_its_batch(pipe: Any) -> None:
    model = runs_of(pipe, prompts=PROMPTS, held_out=0.0)
    plan, noise = compile_plan(published.sde_dpm_solver(model.process, nfe=3)), _noise(4)
    drawn = {"prompts": torch.tensor([0, 1, 2, 0])}
    draws = of_seed(7)
    whole = model.images_of_plan(plan, noise, draws, drawn)
    few = model.images_of_plan(plan, noise[:2], draws, {"prompts": drawn["prompts"][:2]})
    assert pipelines.is_close(few, whole[:2])


def test_gradient_reaches_the_state_through_the_pipelines_call(pipe: Any) -> None:
    model = runs_of(pipe, prompts=PROMPTS, held_out=0.0)
    x = _noise(2).requires_grad_()
    answer = model(x, torch.full((2,), 500.0), prompts=torch.tensor([0, 1]))
    (slope,) = torch.autograd.grad(answer.sum(), x)
    assert float(slope.abs().max()) > 0.0


def test_prompts_are_encoded_once(pipe: Any) -> None:
    model = runs_of(pipe, prompts=PROMPTS, held_out=0.0)
    plan, drawn = compile_plan(published.ddim(model.process, nfe=2)), torch.tensor([2, 2, 1])
    model.images_of_plan(plan, _noise(3), of_seed(0), {"prompts": drawn})
    before = len(own_pipeline.COUNTED)
    model.images_of_plan(plan, _noise(3), of_seed(0), {"prompts": drawn})
    assert len(own_pipeline.COUNTED) == before


def test_a_function_names_the_pipeline_in_a_study_file() -> None:
    model = load(pipeline="tests.support.own_pipeline:striped", prompts=PROMPTS, held_out=0.0)
    assert model.pipeline == "StripedPipeline"
    assert model.sample_shape == (3, 8, 8)
