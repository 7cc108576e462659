"""Latents as networks take them, and where their places are.

Tiles are packed as FLUX.1 does, (C, row in tile, column in tile) to a token.
"""

import math
from typing import Any

import torch
from torch import Tensor

from s3search.models.diffusers.conditions import Given
from s3search.models.diffusers.flows.entry import Packing

TILE = 2


def packed(packing: Packing, x: Tensor) -> Any:
    """Latents x (B, C, ..., H, W) in a network's layout."""
    match packing:
        case Packing.TILES:
            return tiles(x)
        case Packing.TOKENS:
            return x.flatten(2).transpose(1, 2)
        case Packing.LIST:
            return list(x.unsqueeze(2).unbind(0))
        case Packing.PLAIN:
            return x


def unpacked(packing: Packing, answer: Any, x: Tensor) -> Tensor:
    """A network's answer in the layout of the latents ``x``."""
    match packing:
        case Packing.TILES:
            return from_tiles(answer, x.shape[-2], x.shape[-1])
        case Packing.TOKENS:
            found: Tensor = answer.transpose(1, 2)
            return found.reshape(len(x), -1, *x.shape[2:])
        case Packing.LIST:
            return torch.stack(list(answer)).squeeze(2)
        case Packing.PLAIN:
            plain: Tensor = answer
            return plain


def tiles(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H/2 W/2, 4 C)."""
    n, channels, height, width = x.shape
    cut = x.reshape(n, channels, height // TILE, TILE, width // TILE, TILE)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * TILE**2)


def from_tiles(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H/2 W/2, 4 C) -> (B, C, H, W)."""
    n, _, size = x.shape
    cut = x.reshape(n, height // TILE, width // TILE, size // TILE**2, TILE, TILE)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(n, -1, height, width)


def rows_and_columns(pipe: Any, x: Tensor, given: Given) -> dict[str, Any]:
    """FLUX.1: (0, row, column) of each token, and zeros for the text's."""
    height, width = x.shape[-2] // TILE, x.shape[-1] // TILE
    text = given["encoder_hidden_states"]
    return {
        "img_ids": _grid(1, height, width).to(x),
        "txt_ids": x.new_zeros((text.shape[1], 3)),
    }


def numbered_places(pipe: Any, x: Tensor, given: Given) -> dict[str, Any]:
    """FLUX.2: (0, row, column, 0) of each token, and (0, 0, 0, number) of the text's."""
    n, height, width = len(x), x.shape[-2], x.shape[-1]
    length = given["encoder_hidden_states"].shape[1]
    of_image = torch.nn.functional.pad(_grid(1, height, width), (0, 1))
    of_text = torch.nn.functional.pad(torch.arange(length)[:, None], (3, 0))
    return {
        "img_ids": of_image.expand(n, -1, -1).to(x.device),
        "txt_ids": of_text.expand(n, -1, -1).to(x.device),
    }


def picture_shapes(pipe: Any, x: Tensor, given: Given) -> dict[str, Any]:
    """Qwen-Image: frames, rows and columns of tokens."""
    return {"img_shapes": [[(1, x.shape[-2] // TILE, x.shape[-1] // TILE)]] * len(x)}


def film_sizes(pipe: Any, x: Tensor, given: Given) -> dict[str, Any]:
    """LTX: frames, rows and columns, and seconds and pixels a place."""
    frames, height, width = x.shape[2:]
    side = pipe.vae_spatial_compression_ratio
    return {
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (pipe.vae_temporal_compression_ratio / _RATE, side, side),
    }


_RATE = 25  # frames a second: LTX's default


def _grid(*sides: int) -> Tensor:  # (product, number of sides)
    axes = torch.meshgrid(*(torch.arange(side) for side in sides), indexing="ij")
    return torch.stack(axes, -1).reshape(math.prod(sides), len(sides))
