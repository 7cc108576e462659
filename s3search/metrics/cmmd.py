"""CMMD: squared maximum mean discrepancy of CLIP embeddings under a wide Gaussian kernel.

    e(x)    = x / |x|                               features of an image, made of unit length
    k(a, b) = exp(-|a - b|^2 / (2 sigma^2)),        sigma = 10
    CMMD    = 1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y))

Each mean is over all pairs, an image with itself included, as the published code has it.  That is
not without bias: an image's kernel with itself is 1, more than with any other, so that images of
the very distribution of the real ones are at a distance of about

    1000 (1 - E k(x, x')) (1 / N + 1 / n)

and not 0.  So values of unequal n (or N) are not comparable, and a search may compare only those
of equal n.  The loss leaves these pairs out and has no bias.

The published code's embeddings are of unit length as they come; here every image's features are
divided by their length, so that those of any extractor are.  Of unit vectors |a - b| <= 2, where
k is all but linear in |a - b|^2: CMMD is close to  1000 |mean e(x) - mean e(y)|^2 / sigma^2  and
says little about how much images vary.  What is summed is k - 1: the ones cancel, and what is left
keeps all its digits.

Source: arXiv:2401.09603, sec. 4; google-research/cmmd (distance.py, 4c42994).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from s3search.metrics.discrepancy import Discrepancy, DiscrepancyLoss
from s3search.metrics.intervals import LeftOut
from s3search.metrics.samples import Array, second_sample
from s3search.metrics.statistic import Loss, SampleStatistic

_SIGMA = 10.0
_SCALE = 1000.0


@dataclass(frozen=True, eq=False)
class CmmdStatistic(SampleStatistic):
    """CMMD to one sample of real images; its loss has no bias, its value has."""

    kind: ClassVar[str] = "cmmd"

    def left_out(self, seen: Array, n_blocks: int) -> LeftOut:
        """CMMD of features (n, d) and, with more than one block, without each block of them."""
        made = _of_unit_length(second_sample(self.real, seen))
        return self._discrepancy.left_out(made, n_blocks).times(_SCALE)

    def loss(self, device: torch.device) -> Loss:
        """1000 times the discrepancy without pairs of an image with itself."""
        discrepancy = DiscrepancyLoss(self._discrepancy, device)

        def loss(features: Tensor) -> Tensor:
            return _SCALE * discrepancy(functional.normalize(features.double(), dim=-1))

        return loss

    @cached_property
    def _discrepancy(self) -> Discrepancy:
        real = _of_unit_length(self.real)
        return Discrepancy(kernel=gaussian_less_one, real=real, with_itself=True)


def gaussian_less_one(a: Tensor, b: Tensor) -> Tensor:
    """k - 1 for all pairs of rows."""
    squared = (a * a).sum(-1)[..., :, None] + (b * b).sum(-1)[..., None, :] - 2.0 * (a @ b.mT)
    return torch.expm1(-squared / (2.0 * _SIGMA**2))


def _of_unit_length(features: Array) -> Array:
    found: Array = functional.normalize(torch.from_numpy(features), dim=-1).numpy()
    return found
