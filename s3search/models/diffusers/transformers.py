"""Transformers on latents that are told a prompt: Stable Diffusion 3, Flux, PixArt."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from s3search.models.diffusers.conditions import Given
from s3search.models.diffusers.denoiser import Pipeline
from s3search.models.diffusers.settings import Settings, latent_shape, prompt_source

_PATCH = 2  # of Flux's packed latents


def stable_diffusion_3(pipe: Any, settings: Settings) -> Pipeline:
    """StableDiffusion3Pipeline: flow matching."""
    network = pipe.transformer
    channels, patch = network.config.in_channels, network.config.patch_size
    shape = latent_shape(pipe, network, settings, channels=channels, multiple=patch)
    return Pipeline(
        network=network,
        answer=_answer_sd3,
        source=prompt_source(pipe, settings, partial(_encode_sd3, pipe)),
        sample_shape=shape,
        vae=pipe.vae,
        n_tokens=shape[1] * shape[2] // patch**2,
    )


def flux(pipe: Any, settings: Settings) -> Pipeline:
    """FluxPipeline: flow matching; the network takes the guidance, and nothing is doubled."""
    network = pipe.transformer
    takes_guidance = network.config.guidance_embeds
    if not takes_guidance:
        settings.refuse_guidance(pipe, "has a network that takes no guidance (schnell)")
    channels = network.config.in_channels // _PATCH**2
    shape = latent_shape(pipe, network, settings, channels=channels, multiple=_PATCH)
    return Pipeline(
        network=network,
        answer=partial(_answer_flux, settings.guidance_scale if takes_guidance else None),
        source=prompt_source(pipe, settings, partial(_encode_flux, pipe), doubled=False),
        sample_shape=shape,
        vae=pipe.vae,
        embeds_guidance=True,
        n_tokens=shape[1] * shape[2] // _PATCH**2,
    )


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


def _answer_sd3(network: Any, x: Tensor, t: Tensor, given: Given) -> Tensor:
    found: Tensor = network(hidden_states=x, timestep=t, **given, return_dict=False)[0]
    return found


def _answer_flux(
    guidance: float | None, network: Any, x: Tensor, t: Tensor, given: Given
) -> Tensor:
    n, _, height, width = x.shape
    text = given["encoder_hidden_states"]
    found: Tensor = network(
        hidden_states=_packed(x),
        timestep=t / 1000,  # which the network multiplies by 1000 again
        guidance=None if guidance is None else x.new_full((n,), guidance, dtype=torch.float32),
        **given,
        txt_ids=x.new_zeros((text.shape[1], 3)),
        img_ids=_places(height // _PATCH, width // _PATCH).to(x),
        return_dict=False,
    )[0]
    return _unpacked(found, height, width)


def _packed(x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, H/2 W/2, 4 C)
    n, channels, height, width = x.shape
    tiles = x.reshape(n, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * _PATCH**2)


def _unpacked(x: Tensor, height: int, width: int) -> Tensor:
    n, _, size = x.shape
    tiles = x.reshape(n, height // _PATCH, width // _PATCH, size // _PATCH**2, _PATCH, _PATCH)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, -1, height, width)


def _places(height: int, width: int) -> Tensor:  # (height width, 3): 0, row, column
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3)


def _answer_pixart(
    size: tuple[int, int] | None, network: Any, x: Tensor, t: Tensor, given: Given
) -> Tensor:
    added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if size is not None:
        added["resolution"] = x.new_tensor([size]).expand(len(x), -1)
        added["aspect_ratio"] = x.new_tensor([[size[0] / size[1]]]).expand(len(x), -1)
    found: Tensor = network(x, timestep=t, **given, added_cond_kwargs=added, return_dict=False)[0]
    return found


def _encode_sd3(
    pipe: Any, texts: Sequence[str | None], negative: bool, device: torch.device
) -> dict[str, Tensor]:
    if negative:
        others = None if None in texts else list(texts)
        _, found, _, pooled = pipe.encode_prompt(
            [""] * len(texts), None, None, device=device, negative_prompt=others
        )
    else:
        found, _, pooled, _ = pipe.encode_prompt(
            list(texts), None, None, device=device, do_classifier_free_guidance=False
        )
    return {"encoder_hidden_states": found, "pooled_projections": pooled}


def _encode_flux(
    pipe: Any, texts: Sequence[str | None], negative: bool, device: torch.device
) -> dict[str, Tensor]:
    found, pooled, _ = pipe.encode_prompt(list(texts), None, device=device)
    return {"encoder_hidden_states": found, "pooled_projections": pooled}


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
