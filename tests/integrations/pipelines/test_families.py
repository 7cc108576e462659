"""Pipelines of many families through `[model] loader = "pipeline"`: loaded, searched with a few
evaluations, exported, and run in the same pipeline.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

import diffusers

import s3search
from s3search.integrations.diffusers import S3Scheduler
from s3search.integrations.pipelines import load
from s3search.integrations.pipelines.draws import GivenDraws
from s3search.integrations.pipelines.outputs import tensor_of
from s3search.models.importing import imported
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.step_noise import of_seed
from tests.support import pipelines, whole_pipelines

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

_SIZE = {"height": 16, "width": 16}
_CHECKED = (
    "blending",
    "flux_image_to_image",
    "ltx",
)  # before the search, as all are that no test is in a hurry for
_VIDEO = {**_SIZE, "prompt": "a b", "max_sequence_length": 16, "guidance_scale": 3.0}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a pipeline is called, and what is found out of it."""

    call: Mapping[str, Any]
    shape: tuple[int, ...]  # of the noise of one image
    place: int | None = None  # of the draw that is the noise, where there are no latents
    model: Mapping[str, Any] = field(default_factory=dict)


FAMILIES = {
    "image_to_image": Family(
        call={"prompt": "a b", "image": "image.png", "strength": 1.0, "guidance_scale": 2.0},
        shape=(4, 8, 8),
        place=1,  # behind that of the image's latents
    ),
    "flux_image_to_image": Family(
        call={**_SIZE, "prompt": "a b", "image": "image.png", "strength": 1.0},
        shape=(4, 8, 8),  # which become tokens
        place=1,
    ),
    "inpainting": Family(
        call={
            **_SIZE,
            "prompt": "a b",
            "image": "image.png",
            "mask_image": "mask.png",
            "strength": 1.0,
        },
        shape=(4, 8, 8),
    ),
    "blending": Family(
        call={
            **_SIZE,
            "prompt": "a b",
            "image": "image.png",
            "mask_image": "mask.png",
            "strength": 1.0,
        },
        shape=(4, 8, 8),
    ),
    "controlnet": Family(call={**_SIZE, "prompt": "a b", "image": "image.png"}, shape=(4, 8, 8)),
    "animatediff": Family(call={**_SIZE, "prompt": "a b", "num_frames": 3}, shape=(4, 3, 8, 8)),
    "wan": Family(call={**_VIDEO, "num_frames": 5}, shape=(4, 2, 2, 2)),
    "ltx": Family(call={**_VIDEO, "height": 32, "width": 32, "num_frames": 9}, shape=(192, 8)),
    "cogvideox": Family(call={**_VIDEO, "num_frames": 9}, shape=(3, 4, 2, 2)),
    "stable_audio": Family(call={"prompt": "a b"}, shape=(3, 4)),
    "stable_diffusion_xl": Family(call={**_SIZE, "prompt": "a b"}, shape=(4, 8, 8)),
    "stable_diffusion_3": Family(call={**_SIZE, "prompt": "a b"}, shape=(4, 8, 8)),
    "flux": Family(call={**_SIZE, "prompt": "a b"}, shape=(16, 16)),
    "pixart": Family(
        call={**_SIZE, "prompt": "a b", "use_resolution_binning": False}, shape=(4, 8, 8)
    ),
    "dit": Family(call={}, shape=(4, 8, 8), place=0, model={"classes": [0, 1]}),
    "stock_ddim": Family(call={}, shape=(3, 8, 8), place=0),
}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image and a mask of 16 x 16 pixels where the test runs."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(numbers).save("image.png")
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:, 8:] = 255
    Image.fromarray(mask).save("mask.png")


def _where(name: str) -> dict[str, str]:
    """The keys that name a family's pipeline: a function that makes it, or a folder."""
    if hasattr(whole_pipelines, name):
        return {"pipeline": f"tests.support.whole_pipelines:{name}"}
    return {"path": str(getattr(pipelines, name)(Path("pipe").resolve()))}


def _made(where: Mapping[str, str]) -> Any:
    if "path" in where:
        return diffusers.DiffusionPipeline.from_pretrained(where["path"])
    return imported("pipeline", where["pipeline"])()


def _run(pipe: Any, family: Family, noise: Tensor, given: Mapping[str, Any]) -> Tensor:
    """What the pipeline makes of ``noise`` by itself."""
    known = inspect.signature(type(pipe).__call__).parameters
    call = {key: _opened(value) for key, value in family.call.items()}
    call |= {"latents": noise} if family.place is None else {}
    call |= {"output_type": "pt"} if "output_type" in known else {}
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad(), GivenDraws(noise, family.place):
        made = pipe(**call, **given, num_inference_steps=pipe.scheduler.num_steps)
    return tensor_of(made, pipe, "pt")


def _opened(value: Any) -> Any:
    is_file = isinstance(value, str) and value.endswith(".png")
    return Image.open(value).convert("RGB") if is_file else value


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("name", FAMILIES)
def test_winner_makes_in_its_pipeline_what_was_measured(name: str) -> None:
    family, where = FAMILIES[name], _where(name)
    model = {**where, "call": family.call, **family.model}
    found = s3search.search(
        "pipeline",
        metric={"score": "tests.support.whole_pipelines:loudness", "direction": "minimize"},
        nfe=3,
        evaluations=3,
        n_images=4,
        algorithm="evolution",
        search={"batch": 3, "baselines": False, "check": name in _CHECKED},
        validation={"n_images": 6, "finalists": 1},
        **model,
    )
    found.save("schedule.json")
    door, plan = load(**model), compile_plan(Schedule.load("schedule.json"))
    assert door.sample_shape == family.shape
    noise = torch.randn((1, *family.shape), generator=torch.Generator().manual_seed(4))
    drawn = door.condition(1, torch.Generator().manual_seed(5))
    ours = door.images_of_plan(plan, noise, of_seed(0), drawn)
    pipe = _made(where)
    pipe.scheduler = S3Scheduler.from_schedule("schedule.json", pipe.scheduler)
    given = {"class_labels": drawn["labels"].tolist()} if "labels" in drawn else {}
    assert pipelines.is_close(ours, _run(pipe, family, noise, given), 1e-5)
