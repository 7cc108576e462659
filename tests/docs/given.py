"""What a page takes for granted, as small as it can be."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.models import digits
from s3search.processes import edm, vp_discrete
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from tests.support import pipelines


def schedule() -> Schedule:
    """Four steps for the digits."""
    return published.dpmpp_2m(edm(), nfe=4)


def schedule_file() -> None:
    """A file in the current folder, for Stable Diffusion's process."""
    process = vp_discrete(betas="scaled_linear", beta_start=0.00085, beta_end=0.012)
    published.ddim(process, nfe=4, spacing="uniform").save("schedule.json")


def noise() -> Tensor:
    """Of four digits."""
    return torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))


def pipe() -> Any:
    """Stable Diffusion of random weights."""
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415  # takes seconds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its random weights are of no release
        folder = pipelines.stable_diffusion(Path("pipeline"))
        found = StableDiffusionPipeline.from_pretrained(folder)
    found.set_progress_bar_config(disable=True)
    return found


GIVEN: dict[str, Callable[[], Any]] = {
    "schedule": schedule,
    "schedule.json": schedule_file,
    "denoiser": digits.load,
    "noise": noise,
    "pipe": pipe,
    "prompt": lambda: "a digit",
}
