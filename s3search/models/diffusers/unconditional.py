"""U-Nets that are told a noise level and nothing else: DDPM, DDIM, Score SDE, LDM."""

from typing import Any

from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.diffusers.conditions import Given, Nothing
from s3search.models.diffusers.denoiser import Pipeline
from s3search.models.diffusers.settings import Settings, check_channels


def pixels(pipe: Any, settings: Settings) -> Pipeline:
    """DDPMPipeline, DDIMPipeline, PNDMPipeline: the samples are the images."""
    return Pipeline(
        network=_checked(pipe, settings),
        answer=_answer,
        source=Nothing(),
        sample_shape=_shape(pipe.unet.config),
    )


def score(pipe: Any, settings: Settings) -> Pipeline:
    """ScoreSdeVePipeline: images in [0, 1]."""
    return Pipeline(
        network=_checked(pipe, settings),
        answer=_answer,
        source=Nothing(),
        sample_shape=_shape(pipe.unet.config),
        image_range=(0.0, 1.0),
    )


def latents(pipe: Any, settings: Settings) -> Pipeline:
    """LDMPipeline: latents of a VQ-VAE."""
    network = _checked(pipe, settings)
    check_channels(pipe.vqvae, pipe.unet.config.in_channels)
    return Pipeline(
        network=network,
        answer=_answer,
        source=Nothing(),
        sample_shape=_shape(pipe.unet.config),
        vae=pipe.vqvae,
    )


def _checked(pipe: Any, settings: Settings) -> Any:
    settings.refuse(pipe, "prompts", "classes", "height", "width")
    settings.refuse_guidance(pipe, "has no condition to guide towards")
    config = pipe.unet.config
    if config.time_embedding_type == "learned":
        raise InvalidConfig(
            "path: the U-Net has a table of whole timesteps (time_embedding_type 'learned'), and "
            "schedules call it between them; use a model with positional or fourier embeddings"
        )
    if config.class_embed_type is not None or config.num_class_embeds is not None:
        raise InvalidConfig(
            f"path: the U-Net takes classes, which {type(pipe).__name__} has none of"
        )
    return pipe.unet


def _shape(config: Any) -> tuple[int, int, int]:
    size = config.sample_size
    if size is None:
        raise InvalidConfig("path: the U-Net's config has no sample_size; write it there")
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return config.in_channels, height, width


def _answer(network: Any, x: Tensor, t: Tensor, given: Given) -> Tensor:
    found: Tensor = network(x, t, return_dict=False)[0]
    return found
