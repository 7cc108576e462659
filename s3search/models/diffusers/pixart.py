"""PixArt: transformers on latents that are told a prompt and predict noise."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from s3search.models.diffusers.conditions import Given
from s3search.models.diffusers.denoiser import Pipeline
from s3search.models.diffusers.settings import Settings, latent_shape, prompt_source


def pixart(pipe: Any, settings: Settings) -> Pipeline:
    """PixArtAlphaPipeline and PixArtSigmaPipeline: noise prediction."""
    network = pipe.transformer
    channels, multiple = network.config.in_channels, network.config.patch_size
    shape = latent_shape(pipe, network, settings, channels=channels, multiple=multiple)
    size = (shape[1] * pipe.vae_scale_factor, shape[2] * pipe.vae_scale_factor)
    given_size = size if network.use_additional_conditions else None
    return Pipeline(
        network=network,
        answer=partial(_answer_pixart, given_size),
        source=prompt_source(pipe, settings, partial(_encode_pixart, pipe)),
        sample_shape=shape,
        vae=pipe.vae,
    )


def _answer_pixart(
    size: tuple[int, int] | None, network: Any, x: Tensor, t: Tensor, given: Given
) -> Tensor:
    added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if size is not None:
        added["resolution"] = x.new_tensor([size]).expand(len(x), -1)
        added["aspect_ratio"] = x.new_tensor([[size[0] / size[1]]]).expand(len(x), -1)
    found: Tensor = network(x, timestep=t, **given, added_cond_kwargs=added, return_dict=False)[0]
    return found


def _encode_pixart(
    pipe: Any, texts: Sequence[str | None], negative: bool, device: torch.device
) -> dict[str, Tensor]:
    if negative:
        others = "" if None in texts else list(texts)
        _, _, found, mask = pipe.encode_prompt(
            [""] * len(texts),
            True,
            negative_prompt=others,
            device=device,
            clean_caption=True,  # as the pipeline does
        )
    else:
        found, mask, _, _ = pipe.encode_prompt(
            list(texts), False, device=device, clean_caption=True
        )
    return {"encoder_hidden_states": found, "encoder_attention_mask": mask}
