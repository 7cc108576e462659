"""The keys of ``[model]`` that the kinds of pipelines read in their own ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.diffusers.conditions import Source, filled_up
from s3search.models.diffusers.fingerprint import on_device, text_fingerprint
from s3search.models.diffusers.memory import Parts
from s3search.models.diffusers.prompts import EmbeddingCache, Encode, Prompts, read_prompts

_ENCODED_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a pipeline as a study file gives them; None where it says nothing."""

    guidance_scale: float
    prompts: str | Sequence[str] | None
    held_out: float
    classes: Sequence[int] | None
    height: int | None
    width: int | None
    n_frames: int | None
    cache: Path | None  # None: embeddings are kept in memory

    def refuse(self, pipe: Any, *names: str) -> None:
        """Raises `InvalidConfig` if one of these keys is set: this pipeline has no use for it."""
        for name in names:
            if getattr(self, name) is not None:
                raise InvalidConfig(
                    f"{name}: {type(pipe).__name__} takes none; remove the key from [model]"
                )

    def refuse_guidance(self, pipe: Any, why: str) -> None:
        """Raises `InvalidConfig` if guidance is asked for."""
        if self.guidance_scale != 1.0:
            raise InvalidConfig(
                f"guidance_scale: {type(pipe).__name__} {why}; remove the key from [model]"
            )


def latent_shape(
    pipe: Any, network: Any, settings: Settings, *, channels: int, multiple: int = 1
) -> tuple[int, int, int]:
    """(C, h, w) of the latents of images of the size asked for, or of the trained size.

    Raises `InvalidConfig` for a size that is no multiple of the VAE's factor times ``multiple``,
    and for a VAE of other latents than the network's.
    """
    factor = pipe.vae_scale_factor
    trained = getattr(pipe, "default_sample_size", None) or network.config.sample_size
    usual = trained if isinstance(trained, list | tuple) else (trained, trained)
    sides = []
    for name, asked, own in zip(
        ("height", "width"), (settings.height, settings.width), usual, strict=True
    ):
        side = own * factor if asked is None else asked
        if not isinstance(side, int) or side < 1 or side % (factor * multiple):
            raise InvalidConfig(
                f"{name}: {type(pipe).__name__} makes images of multiples of {factor * multiple} "
                f"pixels, found {side}"
            )
        sides.append(side // factor)
    check_channels(pipe.vae, channels)
    return channels, sides[0], sides[1]


def check_channels(vae: Any, channels: int) -> None:
    """Raises `InvalidConfig` unless the VAE decodes latents of so many channels."""
    found = vae.config.get("latent_channels", vae.config.get("z_dim"))
    if found != channels:
        raise InvalidConfig(
            f"path: the network makes latents of {channels} channels and the VAE decodes "
            f"{found}; inpainting, depth and other pipelines whose network "
            "sees more than the noisy latent are not supported"
        )


def prompt_source(
    pipe: Any, settings: Settings, encode: Encode, *, doubled: bool = True
) -> Source:
    """The prompts of a text-to-image pipeline; raises `InvalidConfig` without any."""
    settings.refuse(pipe, "classes")
    if settings.prompts is None:
        raise InvalidConfig(
            f"prompts: {type(pipe).__name__} makes images of prompts; name a text file (one per "
            'line), a JSON-lines file ({"prompt": ...}), a .json, .csv or .tsv of prompts '
            "or captions, or a list of texts"
        )
    found = read_prompts(settings.prompts)
    guided = doubled and settings.guidance_scale != 1.0
    cache = EmbeddingCache(in_batches(pipe, encode), text_fingerprint(pipe), settings.cache)
    return Prompts(found, settings.held_out, cache, guided=guided)


def in_batches(pipe: Any, encode: Encode) -> Encode:
    """``encode`` for any number of texts, as many at once as fit; text encoders are moved once."""
    parts = Parts("a text encoder", _ENCODED_AT_ONCE)

    def encode_all(
        texts: Sequence[str | None], negative: bool, device: torch.device
    ) -> dict[str, Tensor]:
        found: list[dict[str, Tensor]] = []

        def encode_some(own: slice) -> Tensor:
            rows = encode(texts[own], negative, device)
            found.append({name: values.cpu() for name, values in rows.items()})
            return torch.arange(own.start, own.stop)

        with on_device(pipe, device):
            parts(len(texts), encode_some)
        names = found[0]
        return {n: torch.cat(filled_up([rows[n] for rows in found], axis=1)) for n in names}

    return encode_all
