"""The Fréchet distance between feature distributions, from statistics that can be merged.

    n, m, S    count, mean (d,), scatter (d, d) = sum (f - m)(f - m)^T; covariance C = S / (n - 1)

    FD(a, b) = |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a^{1/2} C_b C_a^{1/2})^{1/2}

The last trace is the sum of the square roots of the eigenvalues of a symmetric matrix: no general
matrix square root is needed,
and the reference's root is computed once.  With fewer images than dimensions the same non-zero
eigenvalues come from the n x n
matrix  X C_a X^T / (n - 1),  X the centred features.  Everything is float64.

Source: arXiv:1706.08500, eq. 6.  FD of n images is biased upwards by roughly d^2 / 4n in units of
the feature variance; compare only distances of equal n.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.samples import redrawn
from s3search.metrics.symmetric import eigensystem, eigenvalues_between, gram

Array = npt.NDArray[np.float64]

_CPU = torch.device("cpu")
_LARGEST_STACK = 2**20  # numbers in the matrices that are taken at once: 8 MB
_JACKKNIFE_BLOCKS = 10
_JACKKNIFE_DIMENSIONS = 512  # above, eleven eigenvalue problems cost too much


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureStatistics:
    """Count, mean and scatter of features; merge any number of them in any order."""

    n: int
    mean: Array  # (d,)
    scatter: Array  # (d, d)

    @staticmethod
    def of(features: npt.ArrayLike, device: torch.device = _CPU) -> "FeatureStatistics":
        """The statistics of features (n, d), their products taken on the ``device``; raises
        `EvaluationFailed` if one is not finite.
        """
        x = np.asarray(features, dtype=np.float64)
        if not np.isfinite(x).all():
            raise EvaluationFailed("the features of the images are not finite")
        mean = x.mean(axis=0)
        centred = x - mean
        return FeatureStatistics(n=len(x), mean=mean, scatter=gram(centred, device))

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """The statistics of both samples together (Chan et al. 1983)."""
        if self.mean.shape != other.mean.shape:
            raise IncompatibleStatistics(
                f"cannot merge features of {len(self.mean)} and {len(other.mean)} dimensions"
            )
        n = self.n + other.n
        gap = other.mean - self.mean
        return FeatureStatistics(
            n=n,
            mean=self.mean + gap * (other.n / n),
            scatter=self.scatter + other.scatter + np.outer(gap, gap) * (self.n * other.n / n),
        )

    @property
    def covariance(self) -> Array:
        """Unbiased covariance (d, d)."""
        return self.scatter / (self.n - 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class FrechetReference:
    """The real side of the distance, with its square root computed once."""

    mean: Array  # (d,)
    covariance: Array  # (d, d)
    n: int | None = None  # images behind it; None when a file does not say
    device: torch.device = _CPU  # for large matrices, if it is a GPU

    def __post_init__(self) -> None:
        d = len(self.mean)
        if self.mean.shape != (d,) or self.covariance.shape != (d, d):
            raise IncompatibleStatistics(
                f"a reference needs a mean (d,) and a covariance (d, d), "
                f"found {self.mean.shape} and {self.covariance.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise IncompatibleStatistics("the reference statistics are not finite")

    @staticmethod
    def of(statistics: FeatureStatistics) -> "FrechetReference":
        """The reference made of real images' features."""
        return FrechetReference(
            mean=statistics.mean, covariance=statistics.covariance, n=statistics.n
        )

    @cached_property
    def digest(self) -> str:
        """Hash of mean, covariance and count, 16 hexadecimal digits."""
        content = self.mean.tobytes() + self.covariance.tobytes() + str(self.n).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    @cached_property
    def root(self) -> Array:
        """The symmetric square root of the covariance (d, d)."""
        values, vectors = eigensystem(self.covariance, self.device)
        return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T)

    @cached_property
    def _trace(self) -> float:
        return float(np.trace(self.covariance))

    def distance(self, statistics: FeatureStatistics) -> float:
        """FD to the sample behind ``statistics``."""
        self._check_dimension(len(statistics.mean))
        covariance = statistics.covariance
        eigenvalues = eigenvalues_between(self.root, covariance, self.root, self.device)
        spread = float(np.trace(statistics.scatter)) / (statistics.n - 1)
        return self._assemble(statistics.mean, spread, eigenvalues)

    def distances(
        self, blocks: Sequence[FeatureStatistics], counts: npt.ArrayLike
    ) -> Array:  # (R,)
        """FD to the blocks together, each taken ``counts`` (R, B) times; many at once take a
        fraction of what one after the other does.
        """
        weights = np.asarray(counts, dtype=np.float64) * [block.n for block in blocks]  # (R, B)
        d = len(self.mean)
        self._check_dimension(len(blocks[0].mean))
        means = np.stack([block.mean for block in blocks])
        within = np.stack([block.scatter / block.n for block in blocks]).reshape(len(blocks), -1)
        found = []
        for some in np.array_split(weights, -(-len(weights) * d * d // _LARGEST_STACK)):
            n = some.sum(axis=1)
            mean = some @ means / n[:, None]
            gaps = np.sqrt(some)[:, :, None] * (means - mean[:, None])  # (R, B, d)
            scatter = (some @ within).reshape(-1, d, d) + gaps.transpose(0, 2, 1) @ gaps
            covariance = scatter / (n - 1.0)[:, None, None]
            eigenvalues = np.linalg.eigvalsh(self.root @ covariance @ self.root)
            overlap = np.sqrt(np.clip(eigenvalues, 0.0, None)).sum(axis=1)
            spread = np.trace(covariance, axis1=1, axis2=2)
            gap = ((mean - self.mean) ** 2).sum(axis=1)
            found.append(gap + self._trace + spread - 2.0 * overlap)
        return np.concatenate(found)

    def distance_of_few(self, features: npt.ArrayLike) -> float:
        """FD to features (n, d), by the n x n matrix; cheaper than `distance` when n < d."""
        x = np.asarray(features, dtype=np.float64)
        self._check_dimension(x.shape[1])
        mean = x.mean(axis=0)
        centred = (x - mean) / np.sqrt(len(x) - 1)
        eigenvalues = eigenvalues_between(centred, self.covariance, centred.T, self.device)
        return self._assemble(mean, float((centred**2).sum()), eigenvalues)

    def _assemble(self, mean: Array, spread: float, eigenvalues: npt.NDArray[Any]) -> float:
        overlap = float(np.sqrt(np.clip(eigenvalues, 0.0, None)).sum())
        return float(((mean - self.mean) ** 2).sum()) + self._trace + spread - 2.0 * overlap

    def _check_dimension(self, d: int) -> None:
        if d != len(self.mean):
            raise IncompatibleStatistics(
                f"the reference has {len(self.mean)} feature dimensions, the images have {d}; "
                "use the extractor that the reference was made with"
            )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A distance and its standard error over image blocks (None with fewer than two blocks)."""

    value: float
    standard_error: float | None


def frechet_estimate(reference: FrechetReference, features: Array, *, n_blocks: int) -> Estimate:
    """FD of features (n, d) with a standard error from a jackknife over equal blocks of images.

    The error is that of drawing other noise for the same schedule; it knows nothing of the finite
    reference.
    """
    n, d = features.shape
    if n < 2:
        raise EvaluationFailed(f"a Fréchet distance needs at least 2 images, found {n}")
    if not np.isfinite(features).all():
        raise EvaluationFailed("the features of the images are not finite")
    if n < d:
        return Estimate(reference.distance_of_few(features), None)
    parts = np.array_split(features, n_blocks)
    blocks = [FeatureStatistics.of(block, reference.device) for block in parts]
    value = reference.distance(_merged(blocks))
    if n_blocks < 2:
        return Estimate(value, None)
    return Estimate(value, jackknife_error(left_out(reference, blocks)))


def affordable_blocks(d: int) -> int:
    """Blocks for the jackknife of features with d dimensions; one, for no error, where it would
    cost too much.
    """
    return _JACKKNIFE_BLOCKS if d <= _JACKKNIFE_DIMENSIONS else 1


def left_out(reference: FrechetReference, blocks: Sequence[FeatureStatistics]) -> Array:  # (B,)
    """FD with each block left out in turn."""
    return reference.distances(blocks, 1.0 - np.eye(len(blocks)))


def jackknife_error(without: Array) -> float:
    """The standard error of a value from what it is with each block left out (B,) (Efron and
    Stein 1981).
    """
    n = len(without)
    return float(((n - 1) / n * ((without - without.mean()) ** 2).sum()) ** 0.5)


def block_mean(
    reference: FrechetReference, features: Array, block_images: int | None
) -> float | None:
    """Mean FD of the disjoint blocks of ``block_images`` images in features (n, d).

    FD depends on its number of images, so a score of few images on one noise can only be checked
    against scores of as few images
    on other noise.  None without a whole block.
    """
    if block_images is None or len(features) < block_images:
        return None
    n_blocks = len(features) // block_images
    blocks = np.split(features[: n_blocks * block_images], n_blocks)
    return float(np.mean([frechet_estimate(reference, b, n_blocks=1).value for b in blocks]))


def resampled_distances(
    reference: FrechetReference, features: Array, n_images: int, *, seed: int, n_resamples: int = 5
) -> list[float]:
    """FD of ``n_images`` draws with replacement of the features (N, d) behind ``reference``."""
    drawn = redrawn(features, n_images, seed=seed, n_resamples=n_resamples)
    return [frechet_estimate(reference, sample, n_blocks=1).value for sample in drawn]


def _merged(blocks: list[FeatureStatistics]) -> FeatureStatistics:
    total = blocks[0]
    for block in blocks[1:]:
        total = total.merge(block)
    return total
