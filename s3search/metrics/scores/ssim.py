"""Structural similarity: means, variances and covariance in a Gaussian window, pixel by pixel.

    SSIM = (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2))

    m, s    weighted means and (co)variances in a window of 11 x 11, Gaussian with sigma 1.5
    c1, c2  (0.01 L)^2 and (0.03 L)^2 with L = 1, the range of pictures in [0, 1]

averaged over the windows that lie inside the image, and over channels, each for itself.

Source: Wang et al. 2004, IEEE TIP 13(4), sec. III-B and the authors' `ssim_index.m`.

What to look out for elsewhere: the first factor changes with the zero of the scale, so images in
[-1, 1] must be moved to [0, 1] first; a library that is given [-1, 1] with range 2 returns other
numbers.  torchmetrics takes the range of the values in the batch where none is given, pads by
reflection and also averages windows that reach over the edge; the authors (and scikit-image with
``gaussian_weights`` and without the sample covariance) do not.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from s3search.errors import InvalidConfig
from s3search.metrics.scores.target import TargetScore

WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(x: Tensor, y: Tensor, *, window: int = WINDOW) -> Tensor:
    """Similarities (B,) in [-1, 1] of pictures (B, C, H, W) in [0, 1]."""
    n, channels, height, width = x.shape
    planes = torch.stack([x, y, x * x, y * y, x * y]).reshape(-1, 1, height, width)
    line = _gaussian(window, planes)
    means = functional.conv2d(functional.conv2d(planes, line.view(1, 1, -1, 1)), line)
    m_x, m_y, xx, yy, xy = means.reshape(5, n, channels, *means.shape[-2:])
    likeness = (2 * m_x * m_y + _C1) / (m_x * m_x + m_y * m_y + _C1)
    variances = (xx - m_x * m_x) + (yy - m_y * m_y)
    structure = (2 * (xy - m_x * m_y) + _C2) / (variances + _C2)
    found: Tensor = (likeness * structure).flatten(1).mean(dim=1)
    return found


def _gaussian(window: int, like: Tensor) -> Tensor:  # (1, 1, 1, window)
    places = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-0.5 * (places / _SIGMA) ** 2)
    return (weights / weights.sum()).to(like).view(1, 1, 1, -1)


def _of_images(images: Tensor, target: Tensor, *, window: int) -> Tensor:
    """`ssim` of images in [-1, 1]; raises `InvalidConfig` where no window fits."""
    shorter = min(images.shape[-2:])
    if shorter < window:
        fits = shorter - (shorter + 1) % 2
        raise InvalidConfig(
            f"metric.score: 'ssim' needs images of {window} pixels a side for its window, found "
            f"{tuple(images.shape[-2:])}; set metric.window = {fits}, and say so beside the "
            f"numbers: they are not comparable with those of {WINDOW}"
        )
    return ssim((images + 1) / 2, (target + 1) / 2, window=window)


def load(*, window: int = WINDOW) -> TargetScore:
    """The score ``ssim``; ``window`` is odd, and 11 in all published numbers."""
    if window < 1 or window % 2 == 0:
        raise InvalidConfig(f"metric.window: needs an odd number of pixels, found {window}")
    return TargetScore(f"ssim-{window}", "maximize", partial(_of_images, window=window))
