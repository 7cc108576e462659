"""Wrappers that change what a denoiser answers, and so stay out of the sampler.

Dynamic thresholding is arXiv:2205.11487v1, sec. 2.3.
"""

from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.processes import NoiseProcess
from s3search.solvers.sample import Denoiser


class _Thresholded:
    def __init__(self, denoiser: Denoiser, ratio: float, max_value: float) -> None:
        self.process: NoiseProcess = denoiser.process
        self.sample_shape = denoiser.sample_shape
        self._denoiser, self._ratio, self._max_value = denoiser, ratio, max_value

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        x0 = self._denoiser(x, t, **condition)
        flat = x0.abs().flatten(1)
        wide = flat if flat.dtype == torch.float64 else flat.float()
        s = torch.quantile(wide, self._ratio, dim=1).clamp(min=self._max_value).to(x0.dtype)
        s = s.reshape(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -s), s) / s


def thresholded(denoiser: Denoiser, ratio: float = 0.995, max_value: float = 1.0) -> Denoiser:
    """``denoiser`` with its images clamped to [-s, s] and divided by s, where s is the ``ratio``
    quantile of a sample's |x0|, at least ``max_value``.

    As in the published codes the result always lies in [-1, 1], whatever ``max_value`` is.
    """
    if not 0 < ratio <= 1 or not max_value > 0:
        raise InvalidConfig(
            f"thresholding needs 0 < ratio <= 1 and max_value > 0, found {ratio=}, {max_value=}"
        )
    return _Thresholded(denoiser, ratio, max_value)
