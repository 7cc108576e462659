"""Errors of pixels: the mean squared error, and the same in decibels.

    mse  = mean over all numbers of (image - target)^2                   images in [-1, 1]
    psnr = 10 log10(2^2 / max(mse, 1e-10))                              2: the range of [-1, 1]

Images and target are clipped to [-1, 1] first; samples of other ranks than pictures and videos
have no such range, and an mse all the same, as they are.  PSNR does not depend on the unit of the
range: it is the number of the same pictures in 0..1 with range 1, or in 0..255 with range 255, up
to their rounding.  Equal images would have an infinite PSNR, which no mean survives: it stops at
106.02 dB.

What to look out for elsewhere: torchmetrics' PSNR takes the logarithm of the batch's mean error,
unless ``dim`` says otherwise, which is not the mean of the images' PSNR.
"""

from torch import Tensor

from s3search.metrics.scores.target import TargetScore

_RANGE = 2.0
_LEAST = 1e-10  # far below what rounding to 8 bits makes, 5e-6


def mse(images: Tensor, target: Tensor) -> Tensor:
    """Mean squared errors (B,) of samples (B, ...)."""
    return (images - target).square().flatten(1).mean(dim=1)


def psnr(images: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratios (B,) in dB of images (B, C, H, W) in [-1, 1]."""
    return 10.0 * (_RANGE**2 / mse(images, target).clamp(min=_LEAST)).log10()


def load_mse() -> TargetScore:
    """The score ``mse``."""
    return TargetScore("mse", "minimize", mse, sees_pictures=False)


def load_psnr() -> TargetScore:
    """The score ``psnr``."""
    return TargetScore("psnr", "maximize", psnr)
