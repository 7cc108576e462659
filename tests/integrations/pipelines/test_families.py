"""Pipelines of many families through `[model] loader = "pipeline"`: loaded, searched with a few
evaluations, exported, and run in the same pipeline.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

import diffusers

from s3search.integrations.diffusers import S3Scheduler
from s3search.integrations.pipelines.outputs import tensor_of
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.step_noise import of_seed
from tests.support import pipelines

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a pipeline is made and called."""

    made: Callable[[Path], Path]
    call: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


_SIZE = {"height": 16, "width": 16}

FAMILIES = {
    "text to image": Family(
        made=pipelines.stable_diffusion,
        call={**_SIZE, "prompt": "a b", "guidance_scale": 3.0},
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_winner_runs_in_its_pipeline_as_it_was_measured(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    folder = family.made(tmp_path / "pipe")
    model = {"loader": "pipeline", "path": str(folder), "call": family.call, **family.model}
    evaluator = pipelines.searched(pipelines.study(tmp_path, model), tmp_path / "s.json")
    door, schedule = evaluator.denoiser, Schedule.load(tmp_path / "s.json")
    noise, drawn = next(evaluator.noise.batches(3, 1, 1))
    ours = door.images_of_plan(compile_plan(schedule), noise, of_seed(0), drawn)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = S3Scheduler.from_schedule(schedule, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    steps = pipe.scheduler.num_steps
    with torch.no_grad():
        made = pipe(**family.call, latents=noise, num_inference_steps=steps, output_type="pt")
    assert pipelines.is_close(ours, tensor_of(made, pipe, "pt"))
