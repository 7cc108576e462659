"""From a picture to a tensor: channels, centre crop, size, and levels 0..255 to [-1, 1]."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from s3search.errors import InvalidConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is done to every picture.

    ``resize`` cuts out the centre square and resizes it to that side with Pillow's Lanczos filter,
    as EDM's dataset_tool does ("center-crop"); None leaves pictures as they are.
    """

    channels: int = 3  # 1: grey
    resize: int | None = None  # pixels

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InvalidConfig(
                f"reference.channels: pictures have 1 (grey) or 3 channels, found {self.channels}"
            )
        if self.resize is not None and self.resize < 1:
            raise InvalidConfig(f"reference.resize: needs a side in pixels, found {self.resize}")

    def of_picture(self, picture: Image.Image) -> Tensor:
        """(C, H, W) float32 in [-1, 1]."""
        made = picture.convert("L" if self.channels == 1 else "RGB")
        if self.resize is not None:
            side = min(made.size)
            left, top = (made.width - side) // 2, (made.height - side) // 2
            made = made.crop((left, top, left + side, top + side))
            if side != self.resize:
                made = made.resize((self.resize, self.resize), Image.Resampling.LANCZOS)
        pixels = np.array(made, dtype=np.uint8).reshape(made.height, made.width, self.channels)
        return signed(torch.from_numpy(pixels).permute(2, 0, 1))

    def of_bytes(self, pixels: np.ndarray[Any, Any]) -> Tensor:
        """(C, H, W) float32 in [-1, 1], of levels (H, W) or (H, W, 1 or 3), uint8."""
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise InvalidConfig(
                "reference.images: an array of levels is uint8 (H, W) or (H, W, C), found "
                f"{pixels.dtype} {pixels.shape}"
            )
        flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        return self.of_picture(Image.fromarray(np.ascontiguousarray(flat)))


def signed(levels: Tensor) -> Tensor:
    """Levels 0..255 as float32 in [-1, 1]."""
    return levels.float() / 127.5 - 1.0
