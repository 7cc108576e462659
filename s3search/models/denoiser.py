"""Wrappers that change what a denoiser answers, and so stay out of the sampler.

Dynamic thresholding is arXiv:2205.11487v1, sec. 2.3; the variance-matched time is TS-DPM's,
arXiv:2305.15583.  It depends on the state, so it is no schedule's: a shift that is the same for
all images is `Step.network_time`.
"""

from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.processes import NoiseProcess, VpDiscrete
from s3search.solvers.sample import Denoiser
from s3search.solvers.shapes import over_the_rest


class _Thresholded:
    def __init__(self, denoiser: Denoiser, ratio: float, max_value: float) -> None:
        self.process: NoiseProcess = denoiser.process
        self.sample_shape = denoiser.sample_shape
        self._denoiser, self._ratio, self._max_value = denoiser, ratio, max_value

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        x0 = self._denoiser(x, t, **condition)
        flat = x0.abs().flatten(1)
        wide = flat if flat.dtype == torch.float64 else flat.float()
        s = torch.quantile(wide, self._ratio, dim=1).clamp(min=self._max_value)
        s = over_the_rest(s, x0)
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


_BISECTIONS = 50  # of the window: below float64's resolution of a time


class _VarianceMatched:
    def __init__(self, denoiser: Denoiser, window: float, cutoff: float) -> None:
        self.process: NoiseProcess = denoiser.process
        self.sample_shape = denoiser.sample_shape
        self._denoiser, self._half, self._cutoff = denoiser, window / 2, cutoff

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        t_wide = t.double()
        network_time = torch.where(t_wide > self._cutoff, self._nearest(x, t_wide), t_wide)
        network_time = torch.where(self.process.alpha(t_wide) > 0.0, network_time, t_wide)
        x0 = self._denoiser(x, network_time.to(t.dtype), **condition)
        # eps = (x - a' D) / s' as the network saw it, then the data that belongs to it at t:
        # (x - s eps) / a = D + (1 - s / s') x / a + (s a' / (s' a) - 1) D
        alpha, sigma = self.process.alpha(t_wide), self.process.sigma(t_wide)
        ratio = sigma / self.process.sigma(network_time)
        is_same = network_time == t_wide  # exactly D there, also at alpha = 0
        of_x = torch.where(is_same, 0.0, (1.0 - ratio) / alpha)
        of_x0 = torch.where(is_same, 1.0, ratio * self.process.alpha(network_time) / alpha)
        return over_the_rest(of_x, x) * x + over_the_rest(of_x0, x) * x0

    def _nearest(self, x: Tensor, t: Tensor) -> Tensor:  # (B, ...), (B,) -> (B,)
        """The time of each sample's window whose sigma^2 is nearest to its pixel variance."""
        variance = x.double().flatten(1).var(dim=1)
        low, high = self.process.time_range
        if isinstance(self.process, VpDiscrete):
            reach = int(self._half)
            offsets = torch.arange(-reach, reach + 1, dtype=t.dtype, device=t.device)
            times = (t[:, None] + offsets).clamp(0.0, high)  # no network knows index -1
            distance = (self.process.sigma(times) ** 2 - variance[:, None]).abs()
            return times.gather(1, distance.argmin(1, keepdim=True))[:, 0]
        least = min(1e-3 * (high - low), float(t.min())) + low
        left, right = (t - self._half).clamp(min=least), (t + self._half).clamp(max=high)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (left + right)
            below = self.process.sigma(middle) ** 2 < variance
            left, right = torch.where(below, middle, left), torch.where(below, right, middle)
        return 0.5 * (left + right)


def variance_matched(denoiser: Denoiser, window: float, cutoff: float = 0.0) -> Denoiser:
    """``denoiser`` called, for each sample, at the time within t +- ``window`` / 2 whose sigma^2
    is nearest to the variance of the sample's pixels; at t itself at and below ``cutoff``.

    Times are in the process's unit.  The answer is the clean image that belongs at t to the noise
    the network saw, so any plan uses that noise.  This is the rule of TS-DPM's paper; its
    released code moves the target of the update instead.
    """
    if not window >= 0:
        raise InvalidConfig(f"variance matching needs window >= 0, found {window=}")
    return _VarianceMatched(denoiser, window, cutoff)
