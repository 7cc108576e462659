"""The custom node of exported ComfyUI files; its source is written into them behind the tables and
the sampler.
"""

import importlib
from typing import Any

import torch

from s3search.formats.exporters.runtime.k_sampler import TABLES, sample_s3

SIGMAS: list[float] = []
SAMPLER = ""
ABOUT = ""


class S3Node:
    """What both kinds of node have: SIGMAS and a SAMPLER, both for SamplerCustom."""

    CATEGORY = "sampling/custom_sampling/s3search"
    DESCRIPTION = ABOUT
    FUNCTION = "outputs"
    RETURN_TYPES = ("SIGMAS", "SAMPLER")
    RETURN_NAMES = ("sigmas", "sampler")
    LAST_START = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """One knob where the run may begin later than at its first step, else none."""
        last = cls.LAST_START
        return {"required": {"start_at_step": start_at_step(last)} if last else {}}


class S3Schedule(S3Node):
    """The node of a table, with our sampler."""

    OUTPUT_TOOLTIPS = (
        "The noise levels of the steps. They belong to this sampler alone.",
        "The solver of every step. It belongs to these sigmas alone.",
    )
    LAST_START = len(TABLES) - 1

    def outputs(self, start_at_step: int = 0) -> tuple[Any, Any]:
        """The sigmas from that step on, and the sampler that executes their table."""
        sigmas = torch.tensor(TABLES[start_at_step]["sigmas"], dtype=torch.float32)
        return sigmas, comfy_samplers().KSAMPLER(sample_s3)


class S3Sigmas(S3Node):
    """The node of plain sigmas, with ComfyUI's own sampler."""

    OUTPUT_TOOLTIPS = (
        "The noise levels of the steps.",
        f"ComfyUI's own sampler {SAMPLER}, for which these sigmas were found.",
    )
    LAST_START = len(SIGMAS) - 2

    def outputs(self, start_at_step: int = 0) -> tuple[Any, Any]:
        """The sigmas from that step on, and ComfyUI's sampler."""
        sigmas = torch.tensor(SIGMAS[start_at_step:], dtype=torch.float32)
        return sigmas, comfy_samplers().sampler_object(SAMPLER)


def start_at_step(last: int) -> tuple[str, dict[str, Any]]:
    """The knob for image-to-image: which step a run begins with, at most the ``last``."""
    tooltip = (
        "0 makes images from noise. For image-to-image leave out so many of the first, noisiest "
        "steps: the more, the closer the result stays to the image that goes in."
    )
    return "INT", {"default": 0, "min": 0, "max": last, "tooltip": tooltip}


def comfy_samplers() -> Any:
    """ComfyUI's module of samplers."""
    try:
        return importlib.import_module("comfy.samplers")
    except ImportError as error:
        raise RuntimeError(
            "comfy.samplers cannot be imported: this node runs inside ComfyUI; "
            "put its file into ComfyUI/custom_nodes and restart"
        ) from error
