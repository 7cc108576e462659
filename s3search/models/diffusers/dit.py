"""DiT: class-conditional transformers on latents."""

from typing import Any

from torch import Tensor

from s3search.models.diffusers.conditions import Classes, Given
from s3search.models.diffusers.denoiser import Pipeline
from s3search.models.diffusers.settings import Settings, check_channels


def dit(pipe: Any, settings: Settings) -> Pipeline:
    """The parts of a DiTPipeline, a class-conditional transformer on latents."""
    settings.refuse(pipe, "prompts", "height", "width")
    config = pipe.transformer.config
    check_channels(pipe.vae, config.in_channels)
    return Pipeline(
        network=pipe.transformer,
        answer=_answer,
        source=Classes(settings.classes, config.num_embeds_ada_norm),
        sample_shape=(config.in_channels, config.sample_size, config.sample_size),
        vae=pipe.vae,
    )


def _answer(network: Any, x: Tensor, t: Tensor, given: Given) -> Tensor:
    found: Tensor = network(x, timestep=t, class_labels=given["class_labels"], return_dict=False)[
        0
    ]
    return found
