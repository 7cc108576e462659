"""From a picture to a tensor: channels, centre crop, size, and levels 0..255 to [-1, 1].

A level of 8 bits is 257 levels of 16 bits, and 1/255 of floats, which run from 0 to 1.  A picture
is opened as what its name says and as nothing else: by their contents, files called .png can be
programs for other readers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from s3search.errors import InvalidConfig

FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""Pillow's format for each suffix of a picture."""

_SIXTEEN_BITS = 65535
_OF_ONE_LEVEL = 257  # 16-bit levels for one of 8 bits: 65535 / 255


def open_picture(path: Path) -> Image.Image:
    """The picture in a file, in the format that its suffix says; raises `OSError` for another."""
    return Image.open(path, formats=[FORMATS[path.suffix.lower()]])


def eight_bits(picture: Image.Image) -> Image.Image:
    """The picture in levels of 8 bits; raises `InvalidConfig` where their scale cannot be told."""
    if picture.mode.startswith("I"):
        levels = np.asarray(picture).astype(np.int64)
        is_deep = picture.mode == "I" and picture.format != "PNG"  # PNG has at most 16 bits
        if is_deep or levels.min() < 0 or levels.max() > _SIXTEEN_BITS:
            raise InvalidConfig(
                f"levels from {levels.min()} to {levels.max()} in whole numbers of 32 bits, whose "
                "scale cannot be told; save it with 8 or 16 bits"
            )
        return _grey(levels / _OF_ONE_LEVEL)
    if picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        if not (values.min() >= 0.0 and values.max() <= 1.0):
            raise InvalidConfig(
                f"floats from {values.min():g} to {values.max():g}, whose scale cannot be told; "
                "floats of pictures run from 0 to 1: save it so, or with 8 or 16 bits"
            )
        return _grey(values * 255.0)
    return picture


def _grey(levels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.rint(levels).astype(np.uint8))


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
        """(C, H, W) float32 in [-1, 1]; raises `InvalidConfig` as `eight_bits` does."""
        made = eight_bits(picture).convert("L" if self.channels == 1 else "RGB")
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
