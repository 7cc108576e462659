"""The mean of scores of single images, with its error over noise and captions.

    value = mean of s_i             s_i the score of image i

Images of one caption are more alike than others, so the error of the mean is that of sums over
captions, where these are a sample of many (Liang and Zeger 1986; with G of them)

    error^2 = G / (G - 1)  sum_g (sum_{i of g} (s_i - value))^2 / n^2

and of single images where there are no captions.  With fewer captions than blocks (20) an interval
over captions would be too uncertain; then images are taken as they are, and the interval is over
noise alone: it holds for these captions.

Scores of two schedules on common noise are paired: intervals of differences come from replicates
whose blocks hold the same images, and of these whole captions.  What is reported with an interval
has the standard error of these blocks too (by the jackknife), since two errors of one number that
are not of one source contradict each other: 20 blocks know an error to one part in six.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.metrics.frechet import Estimate
from s3search.metrics.intervals import N_BLOCKS, LeftOut, without_blocks
from s3search.metrics.samples import Array

_FEWEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanStatistic:
    """The mean of scores (n, 1), or (n, 2) with the number of each image's caption."""

    digest: str  # of what images are compared with
    direction: Literal["minimize", "maximize"] = "maximize"
    n: int | None = None

    kind = "score"
    dimensions: None = None  # of features, of which there are none

    def value(self, seen: Array) -> float:
        """The mean; raises `EvaluationFailed` for fewer than two images."""
        return float(_scores(seen).mean())

    def estimate(self, seen: Array) -> Estimate:
        """The mean and its standard error."""
        scores, groups = _scores(seen), _groups(seen)
        sums = np.bincount(groups, scores - scores.mean())
        n = len(sums)
        error = float(np.sqrt(n / (n - 1) * (sums**2).sum()) / len(scores)) if n > 1 else None
        return Estimate(float(scores.mean()), error)

    def replicates(self, seen: Array) -> Array | None:
        """See `s3search.metrics.intervals`; None with fewer than two images for each block."""
        found = _blocks_left_out(seen)
        return None if found is None else found.replicates()

    def measured(self, seen: Array) -> tuple[Estimate, Array | None]:
        """Estimate and replicates of one set of blocks, so that the interval is as wide as the
        standard error says: 2.1 of it to each side, about.  Without replicates as `estimate`.
        """
        found = _blocks_left_out(seen)
        if found is None:
            return self.estimate(seen), None
        return found.estimate(), found.replicates()

    def loss(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The mean of scores (n, 1) as a loss, the lower the better."""
        sign = -1.0 if self.direction == "maximize" else 1.0
        return lambda scores: sign * scores[:, 0].mean()

    def resampled(
        self, seen: Array, n_images: int, *, seed: int, n_resamples: int = 5
    ) -> list[float]:
        """The means of ``n_images`` draws with replacement of the scores of real images."""
        scores, rng = _scores(seen), np.random.default_rng(seed)
        drawn = rng.integers(len(scores), size=(n_resamples, n_images))
        return [float(scores[row].mean()) for row in drawn]


def _blocks_left_out(seen: Array) -> LeftOut | None:
    """The mean, and what it is without each block of images, of whole captions where they are
    many; None with fewer than two images for each block.
    """
    scores, groups = _scores(seen), _groups(seen)
    if len(scores) < 2 * N_BLOCKS:
        return None
    block = groups * N_BLOCKS // (int(groups.max()) + 1)
    blocks = [np.nonzero(block == k)[0] for k in range(N_BLOCKS)]
    value = float(scores.mean())
    return LeftOut(value, without_blocks(value, scores - value, blocks))


def _scores(seen: Array) -> Array:
    if len(seen) < _FEWEST:
        raise EvaluationFailed(f"a mean with an error needs at least 2 images, found {len(seen)}")
    if not np.isfinite(seen).all():
        raise EvaluationFailed("the scores of the images are not finite")
    found: Array = seen[:, 0]
    return found


def _groups(seen: Array) -> npt.NDArray[np.int64]:
    """The number of the caption of each image, in the order in which they come; of the image
    itself where there are no captions, or few.
    """
    if seen.shape[1] > 1:
        _, first, inverse = np.unique(seen[:, 1], return_index=True, return_inverse=True)
        if len(first) >= N_BLOCKS:
            found: npt.NDArray[np.int64] = np.argsort(np.argsort(first))[inverse]
            return found
    return np.arange(len(seen))
