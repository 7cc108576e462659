"""Stable Diffusion 1.x, 2.x and XL: U-Nets on latents that are told a prompt."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.diffusers.conditions import Given
from s3search.models.diffusers.denoiser import Answer, Pipeline
from s3search.models.diffusers.prompts import Encode
from s3search.models.diffusers.settings import Settings, latent_shape, prompt_source


def stable_diffusion(pipe: Any, settings: Settings) -> Pipeline:
    """StableDiffusionPipeline: 1.x and 2.x."""
    shape = _shape(pipe, settings)
    return _made(pipe, settings, shape, _answer, partial(_encode, pipe))


def stable_diffusion_xl(pipe: Any, settings: Settings) -> Pipeline:
    """StableDiffusionXLPipeline; the image is said to be uncropped and of its own size."""
    shape = _shape(pipe, settings)
    height, width = (side * pipe.vae_scale_factor for side in shape[1:])
    sizes = (height, width, 0, 0, height, width)
    return _made(pipe, settings, shape, partial(_answer_xl, sizes), partial(_encode_xl, pipe))


def _made(
    pipe: Any, settings: Settings, shape: tuple[int, int, int], answer: Answer, encode: Encode
) -> Pipeline:
    return Pipeline(
        network=pipe.unet,
        answer=answer,
        source=prompt_source(pipe, settings, encode),
        sample_shape=shape,
        vae=pipe.vae,
    )


def _shape(pipe: Any, settings: Settings) -> tuple[int, int, int]:
    config = pipe.unet.config
    if config.time_cond_proj_dim is not None:
        raise InvalidConfig(
            "path: this network was distilled for few steps (time_cond_proj_dim is set); its "
            "trajectories are not those of a probability-flow ODE, and are not searched"
        )
    return latent_shape(pipe, pipe.unet, settings, channels=config.in_channels)


def _answer(network: Any, x: Tensor, t: Tensor, given: Given) -> Tensor:
    found: Tensor = network(x, t, **given, return_dict=False)[0]
    return found


def _answer_xl(sizes: tuple[int, ...], network: Any, x: Tensor, t: Tensor, given: Given) -> Tensor:
    text, pooled = given["encoder_hidden_states"], given["text_embeds"]
    time_ids = torch.tensor([sizes], dtype=text.dtype, device=x.device).expand(len(x), -1)
    found: Tensor = network(
        x,
        t,
        encoder_hidden_states=text,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
        return_dict=False,
    )[0]
    return found


def _encode(
    pipe: Any, texts: Sequence[str | None], negative: bool, device: torch.device
) -> dict[str, Tensor]:
    if negative:
        others = None if None in texts else list(texts)
        empty = [""] * len(texts)
        found = pipe.encode_prompt(empty, device, 1, True, negative_prompt=others)[1]
    else:
        found = pipe.encode_prompt(list(texts), device, 1, False)[0]
    return {"encoder_hidden_states": found}


def _encode_xl(
    pipe: Any, texts: Sequence[str | None], negative: bool, device: torch.device
) -> dict[str, Tensor]:
    if negative:
        others = None if None in texts else list(texts)
        empty = [""] * len(texts)
        _, found, _, pooled = pipe.encode_prompt(
            empty,
            device=device,
            do_classifier_free_guidance=True,
            negative_prompt=others,
        )
    else:
        found, _, pooled, _ = pipe.encode_prompt(
            list(texts), device=device, do_classifier_free_guidance=False
        )
    return {"encoder_hidden_states": found, "text_embeds": pooled}
