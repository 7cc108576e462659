"""MIND, the Monge Inception Distance: a sliced Wasserstein distance of features.

    u_1 .. u_M    M = 1000 directions of unit length, drawn once
    X_i, Y_i      quantile functions of the real and of the made features along u_i
    MIND = 3 d / M  sum_i  int_0^1 (X_i(q) - Y_i(q))^2 dq

In one dimension, moving mass in order is optimal transport, so that sorting is all it takes.  The
average over all directions is  |gap|^2 / d  for samples that differ by a gap of their means alone:
with 3 d, MIND is three times the Fréchet distance there.

torch-fidelity (metric_mind.py, a51aa64, later than release 0.4.0) sorts equally many images of
both kinds and leaves a random part of the more numerous out; `monge_distance` is that number.  To
rank schedules by it would waste images, and leave each n its own part of the real ones, so
`MindStatistic` compares all images with all: with as many made images as real ones it is the same
number, otherwise

    int (X - Y)^2 = mean_j (y_(j) - x_j)^2 + mean_i x_(i)^2 - mean_j x_j^2

with x_j the mean of X between the quantiles (j - 1) / n and j / n, known from sums of sorted x.

MIND of n images is biased upwards, by about the spread of features over n and as much over N:
values of unequal n are not comparable.  The loss uses the same images twice, as that of
`s3search.metrics.frechet_loss` does,

    loss = 2 MIND(n) - (MIND(first half) + MIND(second half)) / 2

and is free of the term in 1/n; that in 1/N is the same for all schedules.  A sixth of the bias of
24 images stays where features are normal: tails add a factor of log log n to that term.

How MIND changes with the weight of an image is its potential of optimal transport: from y_(j) to
y_(j+1) it grows by  (y_(j+1) - y_(j)) (y_(j+1) + y_(j) - 2 X(j / n)),  X in the middle of a jump.
Blocks of images are left out to this order.

Source: arXiv:2605.06797; for the potential Santambrogio, Optimal Transport for Applied
Mathematicians (2015), sec. 7.2.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.metrics.intervals import LeftOut, without_blocks
from s3search.metrics.samples import Array, loss_sample, second_sample, two_samples
from s3search.metrics.statistic import Loss, SampleStatistic

N_DIRECTIONS = 1000
_SEED = 2020  # of torch-fidelity
_SCALE = 3.0  # times d
_PORTIONS = tuple(slice(i, i + 50) for i in range(0, N_DIRECTIONS, 50))  # directions at once


def monge_distance(real: npt.ArrayLike, made: npt.ArrayLike) -> float:
    """MIND between features (N, d) and (n, d) as torch-fidelity gives it, of min(N, n) of each."""
    x, y = two_samples(real, made)
    generator = torch.Generator().manual_seed(_SEED)
    n = min(len(x), len(y))
    x, y = (
        f if len(f) == n else f[torch.randperm(len(f), generator=generator)[:n].numpy()]
        for f in (x, y)
    )
    directions = _directions(x.shape[1], generator)
    squared = [
        _transport(*(np.sort(directions[some] @ f.T) for f in (x, y))) for some in _PORTIONS
    ]
    return float(_SCALE * x.shape[1] * np.concatenate(squared).mean())


@dataclass(frozen=True, eq=False)
class MindStatistic(SampleStatistic):
    """MIND to one sample of real images, all of them.

    Keeps the sorted projections of the real images: 400 MB of 50,000.
    """

    kind: ClassVar[str] = "mind"

    def left_out(self, seen: Array, n_blocks: int) -> LeftOut:
        """MIND of features (n, d) and, with more than one block, without each block of them."""
        made = second_sample(self.real, seen)
        n = len(made)
        scale = _SCALE * made.shape[1] / N_DIRECTIONS
        value, influence = 0.0, np.zeros(n)
        for some in _PORTIONS:
            projected = self._directions[some] @ made.T
            sorted_real = self._sorted_real[some]
            if n_blocks < 2:
                value += scale * float(_transport(sorted_real, np.sort(projected)).sum())
                continue
            order = projected.argsort()
            y = np.take_along_axis(projected, order, axis=1)
            value += scale * float(_transport(sorted_real, y).sum())
            potential = _potential(sorted_real, y)
            influence += scale * np.bincount(order.ravel(), potential.ravel(), minlength=n)
        blocks = np.array_split(np.arange(n), n_blocks) if n_blocks > 1 else []
        return LeftOut(value, without_blocks(value, influence, blocks))

    def loss(self, device: torch.device) -> Loss:
        """The loss of the module's docstring."""
        return MindLoss(self._directions, self._sorted_real, device)

    @cached_property
    def _directions(self) -> Array:  # (M, d)
        return _directions(self.real.shape[1], torch.Generator().manual_seed(_SEED))

    @cached_property
    def _sorted_real(self) -> Array:  # (M, N)
        return np.concatenate(
            [np.sort(self._directions[some] @ self.real.T) for some in _PORTIONS]
        )


class MindLoss:
    """MIND without its term in 1/n, of features (n, d) on one device."""

    def __init__(self, directions: Array, sorted_real: Array, device: torch.device) -> None:
        self._directions, self._sorted_real = directions, sorted_real
        self._on_device = torch.tensor(directions, device=device)
        self._levels: dict[int, tuple[Tensor, float]] = {}

    def __call__(self, features: Tensor) -> Tensor:
        """The loss, n >= 4."""
        f = loss_sample(features, self._on_device.shape[1])
        half = len(f) // 2
        halves = self.distance(f[:half]) + self.distance(f[half:])
        return 2.0 * self.distance(f) - 0.5 * halves

    def distance(self, features: Tensor) -> Tensor:
        """MIND as `MindStatistic.value` has it."""
        levels, beyond = self._levels_of(len(features))
        sorted_made = (self._on_device @ features.T).sort(dim=1).values
        squared = ((sorted_made - levels) ** 2).mean(dim=1).mean() + beyond
        return _SCALE * features.shape[1] * squared

    def _levels_of(self, n: int) -> tuple[Tensor, float]:
        """x_j (M, n) of the module's docstring and the terms of the real images alone."""
        if n not in self._levels:
            found = _bin_means(self._sorted_real, n)
            beyond = float((self._sorted_real**2).mean() - (found**2).mean())
            self._levels[n] = torch.tensor(found, device=self._on_device.device), beyond
        return self._levels[n]


def _directions(d: int, generator: torch.Generator) -> Array:  # (M, d)
    """Of unit length, in single precision as torch-fidelity draws them."""
    drawn = torch.randn(N_DIRECTIONS, d, generator=generator, dtype=torch.float32)
    drawn = drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found: Array = drawn.double().numpy()
    return found


def _transport(x: Array, y: Array) -> Array:  # (m,)
    """int (X - Y)^2 of sorted rows x (m, N) and y (m, n)."""
    if x.shape == y.shape:
        alike: Array = ((x - y) ** 2).mean(axis=1)
        return alike
    means = _bin_means(x, y.shape[1])
    found: Array = ((y - means) ** 2 - means**2).mean(axis=1) + (x**2).mean(axis=1)
    return found


def _potential(x: Array, y: Array) -> Array:  # (m, n)
    """Of every sorted image y (m, n) towards sorted rows x (m, N), with mean zero."""
    at = np.arange(1, y.shape[1]) * x.shape[1]
    left, right = -(-at // y.shape[1]) - 1, at // y.shape[1]  # alike but at a jump of X
    boundary = x[:, left] + x[:, right]  # 2 X(j / n)
    growth = np.diff(y) * (y[:, 1:] + y[:, :-1] - boundary)
    found = np.pad(np.cumsum(growth, axis=1), ((0, 0), (1, 0)))
    centred: Array = found - found.mean(axis=1, keepdims=True)
    return centred


def _bin_means(x: Array, n: int) -> Array:  # (m, n)
    """Means of the quantile function of sorted rows x (m, N) between j / n and (j + 1) / n."""
    n_real = x.shape[1]
    whole, rest = np.divmod(np.arange(1, n) * n_real, n)
    sums = np.cumsum(x, axis=1)
    until = sums[:, whole - 1] * (whole > 0) + x[:, whole] * (rest / n)
    bounds = np.concatenate([np.zeros((len(x), 1)), until, sums[:, -1:]], axis=1)
    found: Array = np.diff(bounds, axis=1) * (n / n_real)
    return found
