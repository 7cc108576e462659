"""The squared maximum mean discrepancy of two samples: how differently a kernel sees them.

    x (N, d), y (m, d)    features of real and of made images
    MMD^2 = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j)

The first two means are over all pairs of different images, which has no bias, or over all pairs,
an image with itself included: that is larger by about  (k(x, x) - k(x, x')) (1 / N + 1 / m).
Source: Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012), eq. 3 and 5.

The mean over the real images is taken once.  A value costs m N + m^2 / 2 kernels, in chunks that
fit in memory: 10,000 images against 50,000 of 2,048 dimensions are 1e12 multiplications.  Sums
over pairs of blocks of made images give the value with each block left out, exactly and for
nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s3search.metrics.intervals import LeftOut
from s3search.metrics.samples import Array, loss_sample

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows (..., n, d) and (..., m, d) -> (..., n, m)."""

_CHUNK = 2048  # images on either side of a kernel matrix in memory


@dataclass(frozen=True, eq=False, kw_only=True)
class Discrepancy:
    """MMD^2 to one sample of real images."""

    kernel: Kernel
    real: Array  # (N, d)
    with_itself: bool  # whether pairs of an image with itself count

    def left_out(self, made: Array, n_blocks: int) -> LeftOut:
        """MMD^2 of features (m, d) and, with more than one block, without each block of them."""
        real, y = torch.from_numpy(self.real), torch.from_numpy(made)
        blocks = y.tensor_split(n_blocks)
        towards_real = _sums(self.kernel, real, y).tensor_split(n_blocks)
        crossed = np.array([float(own.sum()) for own in towards_real])
        among = np.zeros((n_blocks, n_blocks))
        for i, block in enumerate(blocks):
            among[i, i] = _sum_of_pairs(self.kernel, block)
            if not self.with_itself:
                among[i, i] -= float(_sum_with_itself(self.kernel, block))
            for j in range(i):
                among[i, j] = among[j, i] = float(_sums(self.kernel, block, blocks[j]).sum())
        sizes = np.array([len(block) for block in blocks])
        among_real = self.among_real(with_itself=self.with_itself)

        def distance(kept: Array) -> float:
            m = int(kept @ sizes)
            n_pairs = m * m if self.with_itself else m * (m - 1)
            crossed_mean = kept @ crossed / (len(real) * m)
            return float(among_real + kept @ among @ kept / n_pairs - 2.0 * crossed_mean)

        without = 1.0 - np.eye(n_blocks) if n_blocks > 1 else np.empty((0, 1))
        return LeftOut(distance(np.ones(n_blocks)), np.array([distance(row) for row in without]))

    def among_real(self, *, with_itself: bool) -> float:
        """Mean of k over the pairs of real images."""
        (of_pairs, of_itself), n = self._real_sums, len(self.real)
        return of_pairs / n**2 if with_itself else (of_pairs - of_itself) / (n * (n - 1))

    @cached_property
    def _real_sums(self) -> tuple[float, float]:
        """Of k over all pairs of real images, and over those of one with itself."""
        real = torch.from_numpy(self.real)
        return _sum_of_pairs(self.kernel, real), float(_sum_with_itself(self.kernel, real))


class DiscrepancyLoss:
    """MMD^2 without bias, of features (n, d) on one device."""

    def __init__(self, to: Discrepancy, device: torch.device) -> None:
        self._kernel, self._real = to.kernel, torch.tensor(to.real, device=device)
        self._among_real = to.among_real(with_itself=False)

    def __call__(self, features: Tensor) -> Tensor:
        """The loss, n >= 4."""
        y = loss_sample(features, self._real.shape[1])
        m = len(y)
        among = (self._kernel(y, y).sum() - _sum_with_itself(self._kernel, y)) / (m * (m - 1))
        crossed = sum(self._crossed(y, part) for part in torch.split(self._real, _CHUNK))
        found: Tensor = self._among_real + among - 2.0 * crossed / (m * len(self._real))
        return found

    def _crossed(self, y: Tensor, part: Tensor) -> Tensor:
        """Of k over all pairs; its matrix is made again when the gradient needs it."""
        found: Tensor = checkpoint(
            lambda own: self._kernel(part, own).sum(),
            y,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return found


def _sums(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:  # (m,)
    """Of k over all rows of a, for each row of b (m, d)."""
    parts = torch.split(a, _CHUNK)
    return torch.cat(
        [
            torch.stack([kernel(part, others).sum(0) for part in parts]).sum(0)
            for others in torch.split(b, _CHUNK)
        ]
    )


def _sum_of_pairs(kernel: Kernel, a: Tensor) -> float:
    """Of k over all pairs of rows, each two chunks once."""
    parts = torch.split(a, _CHUNK)
    within = math.fsum(float(kernel(part, part).sum()) for part in parts)
    across = math.fsum(float(kernel(*two).sum()) for two in combinations(parts, 2))
    return within + 2.0 * across


def _sum_with_itself(kernel: Kernel, a: Tensor) -> Tensor:
    """Of k over the pairs of a row with itself."""
    return kernel(a[:, None], a[:, None]).sum()
