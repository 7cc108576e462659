"""From latents to images, as a VAE's own pipeline scales them."""

from typing import Any

import torch
from torch import Tensor

_SIDE = "spatial_compression_ratio"
_TIME = "temporal_compression_ratio"


def decoded(vae: Any, latents: Tensor, *, adds_frame: bool = False) -> Tensor:
    """Images of latents (B, c, ..., h, w) in [-1, 1], in the dtype of the latents.

    ``adds_frame`` is for a VAE of films that decodes single pictures.
    """
    z = _unscaled(vae, latents)
    if adds_frame:
        z = z.unsqueeze(2)
    z = z.to(next(vae.parameters()).dtype)
    if vae.config.get("timestep_conditioning"):
        found = vae.decode(z, z.new_zeros(len(z))).sample  # no noise is left
    else:
        found = vae.decode(z).sample
    images: Tensor = found.to(latents.dtype)
    return images[:, :, 0] if adds_frame else images


def pixels_a_place(vae: Any) -> int:
    """Pixels, of all frames, that a place of the latents becomes."""
    side = getattr(vae, _SIDE, None) or vae.config.get("scale_factor_spatial")
    if side is None:
        down = "block_out_channels", "encoder_block_out_channels"
        found = next((vae.config[name] for name in down if name in vae.config), (1,) * 4)
        side = 2 ** (len(found) - 1)
    frames = getattr(vae, _TIME, None) or vae.config.get("scale_factor_temporal") or 1
    return int(side) ** 2 * int(frames)


def _unscaled(vae: Any, z: Tensor) -> Tensor:
    """Latents as the VAE's decoder takes them."""
    config = vae.config
    z = z / config.get("scaling_factor", 1.0)
    column = (-1, *[1] * (z.ndim - 2))
    mean, std = (_statistic(vae, f"latents_{name}") for name in ("mean", "std"))
    if mean is not None and std is not None:
        z = z * std.to(z).view(column) + mean.to(z).view(column)
    if config.get("shift_factor") is not None:
        z = z + config.shift_factor
    return z


def _statistic(vae: Any, name: str) -> Tensor | None:
    """Of the latents' channels: in the config, or among the weights."""
    found = vae.config.get(name)
    return dict(vae.named_buffers()).get(name) if found is None else torch.tensor(found)
