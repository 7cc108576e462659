"""What a schedule can be ranked by: one number for the features of its images, lower is better.

    kind        value                                                   of unequal n
    frechet     Fréchet distance (`s3search.metrics.frechet`)           not comparable
    kernel      squared maximum mean discrepancy, cubic kernel          comparable
    cmmd        the same with a wide Gaussian kernel                    not comparable
    mind        sliced Wasserstein distance                             not comparable

Each says how far its value would move with other noise, and is a loss that gradient descent can
lower.  ``seen`` is what was seen of each image, features (n, d), in the images' order: blocks of
images are the same for all schedules, so replicates of two schedules that were measured on common
noise are paired.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, Self

import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics
from s3search.metrics.frechet import (
    Estimate,
    FeatureStatistics,
    FrechetReference,
    affordable_blocks,
    frechet_estimate,
    resampled_distances,
)
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.metrics.intervals import N_BLOCKS, LeftOut, replicates
from s3search.metrics.samples import Array, feature_matrix, redrawn

Loss = Callable[[Tensor], Tensor]


class Statistic(Protocol):
    """A distance to one reference."""

    @property
    def kind(self) -> str:
        """Which distance."""

    @property
    def digest(self) -> str:
        """Hash of the reference, 16 hexadecimal digits."""

    @property
    def n(self) -> int | None:
        """Images behind the reference; None when a file does not say."""

    @property
    def dimensions(self) -> int | None:
        """Those of the features that it takes; None where there are none."""

    def value(self, seen: Array) -> float:
        """The distance of features (n, d); raises `EvaluationFailed` of too few or infinite ones,
        `IncompatibleStatistics` of others than the reference has.
        """

    def estimate(self, seen: Array) -> Estimate:
        """The distance with its standard error over other noise, where that is cheap."""

    def replicates(self, seen: Array) -> Array | None:
        """Paired replicates (R,) as `s3search.metrics.intervals.replicates` describes them."""

    def measured(self, seen: Array) -> tuple[Estimate, Array | None]:
        """Estimate and replicates, for less than both cost one after the other."""

    def loss(self, device: torch.device) -> Loss:
        """A differentiable function of features (n, d), n >= 4, without the value's bias in 1/n as
        far as the kind allows; may be negative.
        """

    def resampled(
        self, seen_of_real: Array, n_images: int, *, seed: int, n_resamples: int = 5
    ) -> list[float]:
        """The distances of ``n_images`` draws with replacement of the real images' features."""


@dataclass(frozen=True, eq=False)
class FrechetStatistic:
    """The Fréchet distance; a mean and a covariance are all that it needs of the real images."""

    kind: ClassVar[str] = "frechet"
    reference: FrechetReference

    @staticmethod
    def of(real_features: npt.ArrayLike) -> "FrechetStatistic":
        """The distance to real images by their features (N, d)."""
        real = _real_sample(real_features)
        return FrechetStatistic(FrechetReference.of(FeatureStatistics.of(real)))

    @property
    def digest(self) -> str:
        """The reference's."""
        return self.reference.digest

    @property
    def n(self) -> int | None:
        """The reference's."""
        return self.reference.n

    @property
    def dimensions(self) -> int:
        """The reference's."""
        return len(self.reference.mean)

    def value(self, seen: Array) -> float:
        """FD of features (n, d)."""
        return frechet_estimate(self.reference, seen, n_blocks=1).value

    def estimate(self, seen: Array) -> Estimate:
        """FD, with an error where there are neither many dimensions nor few images."""
        n_blocks = affordable_blocks(seen.shape[1])
        return frechet_estimate(self.reference, seen, n_blocks=n_blocks)

    def replicates(self, seen: Array) -> Array | None:
        """`s3search.metrics.intervals.replicates`."""
        return replicates(self.reference, seen)

    def measured(self, seen: Array) -> tuple[Estimate, Array | None]:
        """One after the other."""
        return self.estimate(seen), self.replicates(seen)

    def loss(self, device: torch.device) -> Loss:
        """`FrechetLoss`."""
        return FrechetLoss(self.reference, device)

    def resampled(
        self, seen_of_real: Array, n_images: int, *, seed: int, n_resamples: int = 5
    ) -> list[float]:
        """`resampled_distances`."""
        return resampled_distances(
            self.reference, seen_of_real, n_images, seed=seed, n_resamples=n_resamples
        )


@dataclass(frozen=True, eq=False)
class SampleStatistic(ABC):
    """A distance that needs every real image's features, and is known with each block of made
    images left out.
    """

    kind: ClassVar[str]
    real: Array  # (N, d)

    @classmethod
    def of(cls, real_features: npt.ArrayLike) -> Self:
        """The distance to real images by their features (N, d), N >= 2."""
        return cls(_real_sample(real_features))

    @abstractmethod
    def left_out(self, seen: Array, n_blocks: int) -> LeftOut:
        """The distance of features (n, d) and, with more than one block, those without each."""

    @abstractmethod
    def loss(self, device: torch.device) -> Loss:
        """As `Statistic.loss`."""

    @cached_property
    def digest(self) -> str:
        """Hash of the kind and all features."""
        found = hashlib.sha256(f"{self.kind} {self.real.shape}".encode())
        found.update(self.real.data)
        return found.hexdigest()[:16]

    @property
    def n(self) -> int:
        """Real images."""
        return len(self.real)

    @property
    def dimensions(self) -> int:
        """Of the real images' features."""
        return int(self.real.shape[1])

    def value(self, seen: Array) -> float:
        """The distance of features (n, d), n >= 2."""
        return self.left_out(seen, 1).value

    def estimate(self, seen: Array) -> Estimate:
        """The distance, with an error from 4 images on."""
        return self._blocks_left_out(seen).estimate()

    def replicates(self, seen: Array) -> Array | None:
        """`s3search.metrics.intervals.linear_replicates`; None with fewer than two images per
        block.
        """
        return self._blocks_left_out(seen).replicates()

    def measured(self, seen: Array) -> tuple[Estimate, Array | None]:
        """Estimate and replicates for the cost of one."""
        found = self._blocks_left_out(seen)
        return found.estimate(), found.replicates()

    def resampled(
        self, seen_of_real: Array, n_images: int, *, seed: int, n_resamples: int = 5
    ) -> list[float]:
        """The distances of draws with replacement of the real images' features (N, d)."""
        drawn = redrawn(seen_of_real, n_images, seed=seed, n_resamples=n_resamples)
        return [self.value(sample) for sample in drawn]

    def _blocks_left_out(self, seen: Array) -> LeftOut:
        return self.left_out(seen, max(1, min(N_BLOCKS, len(seen) // 2)))


def _real_sample(real_features: npt.ArrayLike) -> Array:
    real = feature_matrix(real_features, "the real images")
    if len(real) < 2:
        raise IncompatibleStatistics(
            f"a reference needs the features of at least 2 real images, found {len(real)}"
        )
    return real
