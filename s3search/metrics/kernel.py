"""The kernel distance (KID): squared maximum mean discrepancy of features, without bias.

    k(a, b) = (a . b / d + 1)^3                       d feature dimensions
    KID     = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

Unlike the Fréchet distance its mean does not depend on the number of images, so values of unequal
n can be compared; it may be negative, and is where a model repeats the very images that it is
compared with.

The paper averages over random subsets of both samples, which costs less per subset and estimates
the same number with more noise; here all pairs are taken.  What blocks of images leave out of the
sums gives the error over other noise, by the jackknife of `s3search.metrics.frechet`.

Source: arXiv:1801.01401, eq. 4 and sec. 4.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy.typing as npt
import torch
from torch import Tensor

from s3search.metrics.discrepancy import Discrepancy, DiscrepancyLoss
from s3search.metrics.frechet import Estimate
from s3search.metrics.intervals import LeftOut
from s3search.metrics.samples import Array, second_sample, two_samples
from s3search.metrics.statistic import Loss, SampleStatistic

N_BLOCKS = 10


def kernel_distance(
    real: npt.ArrayLike, made: npt.ArrayLike, *, n_blocks: int = N_BLOCKS
) -> Estimate:
    """KID between features (n, d) and (m, d), with its standard error over blocks of made images.

    There is no error with fewer than two blocks of two images.
    """
    x, y = two_samples(real, made)
    return KernelStatistic(x).left_out(y, max(1, min(n_blocks, len(y) // 2))).estimate()


@dataclass(frozen=True, eq=False)
class KernelStatistic(SampleStatistic):
    """KID to one sample of real images; its value and its loss have no bias."""

    kind: ClassVar[str] = "kernel"

    def left_out(self, seen: Array, n_blocks: int) -> LeftOut:
        """KID of features (n, d) and, with more than one block, without each block of them."""
        return self._discrepancy.left_out(second_sample(self.real, seen), n_blocks)

    def loss(self, device: torch.device) -> Loss:
        """KID as a function that has a gradient."""
        return DiscrepancyLoss(self._discrepancy, device)

    @cached_property
    def _discrepancy(self) -> Discrepancy:
        return Discrepancy(kernel=cubic, real=self.real, with_itself=False)


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """k of the module's docstring for all pairs of rows."""
    base = a @ b.mT / a.shape[-1] + 1.0
    return base * base * base
