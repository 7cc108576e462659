"""The reference ``npz``: statistics of pytorch-fid, EDM, guided-diffusion or our own, or images
(guided-diffusion's ``arr_0``).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.metrics.references.pictures import signed
from s3search.metrics.references.statistics_file import arrays_of


def load(path: str) -> str | Tensor:
    """``path`` itself where it holds mu and sigma; else its images (N, C, H, W) in [-1, 1]."""
    data = arrays_of(Path(path))
    if "mu" in data or "arr_0" not in data:
        return path
    pixels = data["arr_0"]
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise InvalidConfig(
            f"reference.images: arr_0 of {path} should be images (N, H, W, C) uint8, found "
            f"{pixels.dtype} {pixels.shape}"
        )
    return signed(torch.from_numpy(pixels).permute(0, 3, 1, 2))
