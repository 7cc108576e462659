"""Which polish a pipeline's call allows, and half precision."""

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

from s3search.evaluation.evaluator import Evaluator
from s3search.integrations.pipelines import load
from s3search.schedules import published
from s3search.search.questions import Polish
from s3search.search.trial import Trial, seeded
from s3search.solvers.plan import compile_plan
from s3search.solvers.step_noise import of_seed
from tests.support import pipelines

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def _polished(folder: Path, pipeline: str) -> tuple[Evaluator, Any]:
    model = {"loader": "pipeline", "pipeline": pipeline, "call": {"prompt": "ab"}}
    evaluator = Evaluator(pipelines.study(folder, model).evaluator_spec)
    schedule = published.ddim(evaluator.denoiser.process, nfe=2)
    trial = Trial.of(schedule, seeded("given"))
    asked = Polish(trial=trial, iterations=2, n_images=8, seed=0, noise_seed=5)
    return evaluator, evaluator.polish(asked).made


def test_polish_follows_the_gradient_through_the_pipelines_call(tmp_path: Path) -> None:
    evaluator, made = _polished(tmp_path, "tests.support.own_pipeline:striped")
    assert evaluator.gradient_problem is None
    assert len(made.losses) == 2  # iterations
    assert made.schedule.nfe == 2


def test_polish_works_by_differences_where_no_grad_cannot_be_lifted(tmp_path: Path) -> None:
    evaluator, made = _polished(tmp_path, "tests.support.own_pipeline:shielded")
    assert "carries no gradient" in str(evaluator.gradient_problem)
    assert len(made.losses) == 5  # rounds
    assert made.schedule.nfe == 2


def test_pipeline_in_half_precision_is_driven_in_it(tmp_path: Path) -> None:
    folder = str(pipelines.stable_diffusion(tmp_path / "pipe"))
    call = {"prompt": "a b", "height": 16, "width": 16}
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(2))
    made = []
    for dtype in ("float32", "bfloat16"):
        model = load(folder, call=call, dtype=dtype)
        plan = compile_plan(published.dpmpp_2m(model.process, nfe=3))
        drawn = model.condition(2, torch.Generator().manual_seed(0))
        made.append(model.images_of_plan(plan, noise, of_seed(0), drawn))
        x = noise.requires_grad_()
        answer = model(x, torch.full((2,), 500.0), **drawn)
        assert torch.autograd.grad(answer.sum(), x)[0].abs().max() > 0
    assert made[1].dtype == torch.float32
    assert float((made[0] - made[1]).abs().mean()) < 0.1 * float(made[0].abs().mean())
