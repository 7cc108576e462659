"""Latent pipelines of every kind: searched end to end, exported, and replayed in the pipeline they
came from, to equal latents and images.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.noise import BLOCK, NoiseBank, block_generator
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung, measure
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.study.database.store import open_study
from tests.support import pipelines

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning"
)

PROMPTS = ["a b c", "d", "e f g h a", "b", "g g", "h a f", "c d", "f", "e b"]
N = 4
SIZE = {"height": 16, "width": 16}


def _prompts_file(folder: Path) -> str:
    path = folder / "prompts.txt"
    path.write_text("\n".join([*PROMPTS, ""]))
    return str(path)


def _searched(tmp_path: Path, folder: Path, **model: Any) -> tuple[Evaluator, Schedule, Path]:
    output = tmp_path / "schedule.json"
    config = pipelines.study(
        tmp_path,
        {"path": str(folder), **model},
        reference={"images": "tests.support.pipelines:references", "size": 16},
    )
    return pipelines.searched(config, output), Schedule.load(output), output


def _drawn(evaluator: Evaluator, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    bank = NoiseBank(evaluator.denoiser, torch.device("cpu"))
    return next(bank.batches(1, n, n))


def _latents(evaluator: Evaluator, schedule: Schedule) -> Tensor:
    noise, condition = _drawn(evaluator, N)
    plan = compile_plan(schedule)
    with torch.no_grad():
        found = sample(evaluator.denoiser, plan, noise, **condition)
        exchanged = {name: values.flip(0) for name, values in condition.items()}
        other = sample(evaluator.denoiser, plan, noise, **exchanged)
    assert not pipelines.is_close(other, found, 1e-3), "the condition plays no part"
    return found


_TEXT: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "sd": (pipelines.stable_diffusion, {}, {}),
    "sdxl": (pipelines.stable_diffusion_xl, {"guidance_scale": 3.0}, {"guidance_scale": 3.0}),
    "sd3": (pipelines.stable_diffusion_3, {}, {}),
    "flux": (pipelines.flux, SIZE, SIZE),
    "schnell": (lambda folder: pipelines.flux(folder, guided=False), SIZE, SIZE),
    "pixart": (pipelines.pixart, {}, {"use_resolution_binning": False}),
}


@pytest.mark.parametrize("name", _TEXT)
def test_a_text_to_image_pipeline_is_searched_exported_and_replayed(
    tmp_path: Path, name: str
) -> None:
    build, model, call = _TEXT[name]
    folder = build(tmp_path / "pipe")
    prompts = _prompts_file(tmp_path)
    evaluator, schedule, output = _searched(
        tmp_path, folder, prompts=prompts, cache=str(tmp_path), **model
    )
    noise, condition = _drawn(evaluator, N)
    texts = [PROMPTS[i] for i in condition["prompts"].tolist()]
    pipe = pipelines.replayed(folder, output)
    is_packed = name in ("flux", "schnell")
    given = pipe._pack_latents(noise, N, 4, 8, 8) if is_packed else noise
    shown = pipe(
        texts,
        latents=given,
        num_inference_steps=pipe.scheduler.num_steps,
        output_type="pt",
        **call,
    ).images
    last = pipe.scheduler.last
    last = pipe._unpack_latents(last, 16, 16, 2) if is_packed else last
    assert pipelines.is_close(last, _latents(evaluator, schedule))
    images = evaluator.images(schedule, N, noise_seed=1)
    assert float(shown.std()) > 0.05
    assert torch.allclose(pipelines.in_unit_range(images), shown, atol=2e-3)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_class_conditional_pipeline_is_searched_exported_and_replayed(
    tmp_path: Path, guidance: float
) -> None:
    folder = pipelines.dit(tmp_path / "pipe")
    evaluator, schedule, output = _searched(
        tmp_path, folder, guidance_scale=guidance, classes=[3, 5, 7]
    )
    labels = _drawn(evaluator, BLOCK)[1]["labels"].tolist()
    assert {labels.count(c) for c in (3, 5, 7)} == {33, 34}
    pipe = pipelines.replayed(folder, output)
    found = pipe(
        class_labels=labels,
        guidance_scale=guidance,
        generator=block_generator(1, 0),
        num_inference_steps=pipe.scheduler.num_steps,
        output_type="pt",
    )
    assert pipelines.is_close(pipe.scheduler.last[:N], _latents(evaluator, schedule))
    images = evaluator.images(schedule, N, noise_seed=1)
    assert float(found.images.std()) > 0.05
    assert torch.allclose(pipelines.in_unit_range(images), found.images[:N], atol=2e-3)
    question = measure(schedule, rung=Rung.USER, n_images=5, noise_seed=2)
    batches = evaluator.evaluate(question).network_batches
    assert batches == schedule.nfe * (2 if guidance > 1 else 1)


def test_the_usual_search_measures_the_pipelines_own_solver_and_polishes(tmp_path: Path) -> None:
    """Proxies that need images of the latents' shape are left out, and nothing fails."""
    folder = pipelines.stable_diffusion_3(tmp_path / "pipe")
    config = pipelines.study(
        tmp_path,
        {"path": str(folder), "prompts": PROMPTS, "cache": str(tmp_path)},
        reference={"images": "tests.support.pipelines:references", "size": 16},
        search={"algorithm": "s3", "baselines": True, "evaluations": 40},
    )
    launch(config, lambda _: None)
    with open_study(config.storage.url, "t") as store:
        origins = [trial.origin.text for trial in store.trials()]
        totals = store.job_totals()
        assert store.state == "done"
    own = "baseline: FlowMatchEulerDiscreteScheduler of the pipeline"
    assert origins[0] == own
    assert "baseline: flow Heun, shift 3" in origins
    assert any(origin.startswith("polish") for origin in origins)
    assert {kind: total["failed"] for kind, total in totals.items()} == {
        "gaussian": 0,
        "mixture": 0,
        "polish": 0,
        "floor": 0,
    }
