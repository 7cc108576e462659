"""The custom node of exported ComfyUI files; its source is written into them behind the tables and
the sampler.
"""

import importlib
from typing import Any

import torch

from s3search.formats.exporters.runtime.k_sampler import TABLES, sample_s3

SIGMAS: list[float] = []
SAMPLER = ""


class S3Schedule:
    """SIGMAS and the SAMPLER that belongs to them, for SamplerCustom."""

    CATEGORY = "sampling/custom_sampling/s3search"
    FUNCTION = "outputs"
    RETURN_TYPES = ("SIGMAS", "SAMPLER")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """How many levels image-to-image skips; 0 for images from noise."""
        skipped: dict[str, int] = {"default": 0, "min": 0, "max": len(TABLES) - 1}
        return {"required": {"skipped_levels": ("INT", skipped)}}

    def outputs(self, skipped_levels: int = 0) -> tuple[Any, Any]:
        """The sigmas from that level on, and the sampler that executes their table."""
        sigmas = torch.tensor(TABLES[skipped_levels]["sigmas"], dtype=torch.float32)
        return sigmas, comfy_samplers().KSAMPLER(sample_s3)


class S3Sigmas:
    """SIGMAS and ComfyUI's own SAMPLER for them, for SamplerCustom."""

    CATEGORY = "sampling/custom_sampling/s3search"
    FUNCTION = "outputs"
    RETURN_TYPES = ("SIGMAS", "SAMPLER")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """How many levels image-to-image skips; 0 for images from noise."""
        skipped: dict[str, int] = {"default": 0, "min": 0, "max": len(SIGMAS) - 2}
        return {"required": {"skipped_levels": ("INT", skipped)}}

    def outputs(self, skipped_levels: int = 0) -> tuple[Any, Any]:
        """The sigmas from that level on, and ComfyUI's sampler."""
        sigmas = torch.tensor(SIGMAS[skipped_levels:], dtype=torch.float32)
        return sigmas, comfy_samplers().sampler_object(SAMPLER)


def comfy_samplers() -> Any:
    """ComfyUI's module of samplers."""
    try:
        return importlib.import_module("comfy.samplers")
    except ImportError as error:
        raise RuntimeError(
            "comfy.samplers cannot be imported: this node runs inside ComfyUI; "
            "put its file into ComfyUI/custom_nodes and restart"
        ) from error
