"""Every flow pipeline that is described by data, against itself: the pipeline with its own
scheduler, and our sampling of what is imported of that scheduler, end with the same latents.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
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

from diffusers import DiffusionPipeline

from s3search.models.diffusers import load
from s3search.models.diffusers.flows import FLOWS
from s3search.models.diffusers.flows.entry import Packing
from s3search.models.diffusers.flows.layout import packed
from s3search.run.schedulers import own_scheduler
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support import flow_pipelines, pipelines

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PROMPTS = ["a b c", "d", "e f g h a"]
SIZE = {"height": 16, "width": 24}
_TOLERANCE = 1e-4  # of the largest latent


@dataclass(frozen=True, kw_only=True)
class Case:
    """How one pipeline is built, loaded and called."""

    build: Callable[[Path], Path]
    model: dict[str, Any] = field(default_factory=dict)  # keys of [model] beside the size's
    call: dict[str, Any] = field(default_factory=dict)  # the same, as the pipeline's call has it
    size: dict[str, int] = field(default_factory=lambda: SIZE)


CASES: dict[str, Case] = {
    "FluxPipeline": Case(
        build=pipelines.flux, model={"guidance_scale": 2.5}, call={"guidance_scale": 2.5}
    ),
    "QwenImagePipeline": Case(
        build=flow_pipelines.qwen_image,
        model={"guidance_scale": 3.0},
        call={"true_cfg_scale": 3.0, "negative_prompt": [" "] * 3},
    ),
    "StableDiffusion3Pipeline": Case(build=pipelines.stable_diffusion_3, size={}),
    "ZImagePipeline": Case(
        build=flow_pipelines.z_image, model={"guidance_scale": 2.0}, call={"guidance_scale": 2.0}
    ),
}


def _loaded(case: Case, folder: Path, cache: Path, **model: Any) -> Any:
    given = {**case.size, **case.model, **model}
    return load(str(folder), prompts=PROMPTS, held_out=0, cache=str(cache), **given)


def _noise(denoiser: Any) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn((len(PROMPTS), *denoiser.sample_shape), generator=generator)


def _ours(denoiser: Any, noise: Tensor, n: int) -> Tensor:
    """Our last latents of the pipeline's own scheduler, image i of prompt i."""
    schedule = own_scheduler(denoiser.own_sampler, denoiser.process, n)
    assert isinstance(schedule, Schedule), schedule
    with torch.no_grad():
        prompts = torch.arange(len(PROMPTS))
        return sample(denoiser, compile_plan(schedule), noise, prompts=prompts)


def _as_handed_over(name: str, latents: Tensor) -> Tensor:
    """Latents as the pipeline takes and gives them."""
    packing = FLOWS[name].packing
    return latents if packing is Packing.LIST else packed(packing, latents)


def _theirs(name: str, pipe: Any, noise: Tensor, n: int, call: dict[str, Any]) -> Any:
    """What the pipeline hands over after n steps of its own scheduler from this noise."""
    given = _as_handed_over(name, noise)
    pipe.set_progress_bar_config(disable=True)
    return pipe(list(PROMPTS), num_inference_steps=n, latents=given.clone(), **call)[0]


@pytest.mark.parametrize("name", CASES)
def test_what_was_searched_is_exported_and_runs_in_the_pipeline(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder, output = case.build(tmp_path / "pipe"), tmp_path / "schedule.json"
    model = {"path": str(folder), "prompts": PROMPTS, "held_out": 0, "cache": str(tmp_path)}
    config = pipelines.study(
        tmp_path,
        {**model, **case.size, **case.model},
        metric={"features": None, "score": "tests.support.pipelines:contrast"},
        reference={"images": None},
    )
    denoiser = pipelines.searched(config, output).denoiser
    noise = _noise(denoiser)
    with torch.no_grad():
        plan = compile_plan(Schedule.load(output))
        ours = sample(denoiser, plan, noise, prompts=torch.arange(len(PROMPTS)))
    pipe = pipelines.replayed(folder, output)
    call = {**case.size, **case.call, "output_type": "latent"}
    theirs = _theirs(name, pipe, noise, pipe.scheduler.num_steps, call)
    assert pipelines.is_close(_as_handed_over(name, ours), theirs, _TOLERANCE)


def test_every_entry_has_its_case() -> None:
    assert set(CASES) == set(FLOWS)


@pytest.mark.parametrize("name", CASES)
def test_latents_and_images_are_those_of_the_pipeline_with_its_own_scheduler(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    folder = case.build(tmp_path / "pipe")
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == name
    denoiser = _loaded(case, folder, tmp_path)
    pipe, noise = DiffusionPipeline.from_pretrained(folder), _noise(denoiser)
    call = {**case.size, **case.call}
    for n in (2, 5):
        ours = _ours(denoiser, noise, n)
        theirs = _theirs(name, pipe, noise, n, {**call, "output_type": "latent"})
        assert pipelines.is_close(_as_handed_over(name, ours), theirs, _TOLERANCE), n
    other = denoiser(noise, noise.new_full((3,), 0.5), prompts=torch.tensor([1, 2, 0]))
    assert not pipelines.is_close(
        other, denoiser(noise, noise.new_full((3,), 0.5), prompts=torch.arange(3)), 1e-3
    ), "the prompts play no part"
    with torch.no_grad():
        images = pipelines.in_unit_range(denoiser.decode(ours))
    shown = torch.as_tensor(_theirs(name, pipe, noise, n, {**call, "output_type": "pt"}))
    assert float(shown.std()) > 0.02
    assert torch.allclose(images, shown, atol=2e-3)
