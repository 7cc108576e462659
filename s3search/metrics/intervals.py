"""How far a Fréchet distance would move with other noise: intervals from blocks of images.

    blocks    B disjoint samples of one schedule's images, each on noise of its own
    FD        the distance of all blocks together, n images
    FD*       the distance of B blocks drawn with replacement

FD of n images is biased upwards by about c / n, and FD* by more, because drawn blocks repeat: its
bias is that of a sample of  B / (sum_k w_k^2 / B)  blocks, w_k how often block k was drawn.  It
moves the percentiles of FD* above FD, and its changes from draw to draw add a spread that other
noise does not have, the more the more dimensions.  So the part of FD* that is linear in
sum_k w_k^2  is taken off, and the rest, which has mean zero, is turned round as the basic interval
is (Davison and Hinkley 1997, sec. 5.2):

    [FD - k q_high,  FD - k q_low],   q the quantiles of the rest

The factor k mends two shortfalls of few blocks: the bootstrap's variance is (B - 1) / B of the
right one, and quantiles of a normal shape ignore that the spread itself is estimated (Student's t
with B - 1 degrees of freedom).

What is covered is the mean of FD over other noise *at the same n*: that is what two distances of
one n can be compared by.  The finite reference is taken as it is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from s3search.errors import EvaluationFailed
from s3search.metrics.frechet import (
    Estimate,
    FeatureStatistics,
    FrechetReference,
    jackknife_error,
)

_MOST_DIMENSIONS = 512  # above, an eigenvalue problem takes too long to solve hundreds of


def bootstrap_interval(
    reference: FrechetReference,
    blocks: Sequence[FeatureStatistics],
    *,
    level: float = 0.95,
    n_resamples: int = 200,
    seed: int,
) -> tuple[float, float]:
    """The interval for the distance of as many images on other noise; see the module's docstring.

    Costs ``n_resamples`` eigenvalue problems, 0.2 ms each at 64 dimensions; above 512 dimensions
    it is Student's interval of the jackknife, with as many as there are blocks.
    """
    n = _at_least_two(blocks)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level: must lie between 0 and 1, found {level}")
    tail = (1.0 - level) / 2.0
    t = float(stats.t.ppf(1.0 - tail, n - 1))
    if len(reference.mean) > _MOST_DIMENSIONS:
        estimate = jackknife(reference, blocks)
        assert estimate.standard_error is not None
        half = t * estimate.standard_error
        return estimate.value - half, estimate.value + half
    value = reference.distance(pooled(blocks, np.ones(n)))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=n_resamples)
    resampled = np.array([reference.distance(pooled(blocks, counts)) for counts in drawn])
    low, high = np.quantile(_without_bias(resampled, drawn), [tail, 1.0 - tail])
    k = (n / (n - 1)) ** 0.5 * t / float(stats.norm.ppf(1.0 - tail))
    return value - k * float(high), value - k * float(low)


def paired_difference(
    reference: FrechetReference,
    blocks_a: Sequence[FeatureStatistics],
    blocks_b: Sequence[FeatureStatistics],
) -> Estimate:
    """FD of a minus FD of b, with the standard error of the difference; block k of both was made
    from one noise.

    Two schedules differ far less on common noise than each of them over noises, so the error is
    smaller than the two errors together, and the biases cancel but for their difference.
    """
    n = _at_least_two(blocks_a)
    sizes_a, sizes_b = ([block.n for block in blocks] for blocks in (blocks_a, blocks_b))
    if sizes_a != sizes_b:
        raise EvaluationFailed(
            f"a paired difference needs blocks on common noise, found blocks of {sizes_a} and "
            f"{sizes_b} images"
        )
    own, other = _left_out(reference, blocks_a), _left_out(reference, blocks_b)
    value = reference.distance(pooled(blocks_a, np.ones(n)))
    value -= reference.distance(pooled(blocks_b, np.ones(n)))
    return Estimate(value, jackknife_error(own - other))


def jackknife(reference: FrechetReference, blocks: Sequence[FeatureStatistics]) -> Estimate:
    """FD of all blocks with the standard error over blocks."""
    n = _at_least_two(blocks)
    value = reference.distance(pooled(blocks, np.ones(n)))
    return Estimate(value, jackknife_error(_left_out(reference, blocks)))


def _left_out(
    reference: FrechetReference, blocks: Sequence[FeatureStatistics]
) -> npt.NDArray[np.float64]:  # (B,)
    """FD with each block left out in turn."""
    counts = 1.0 - np.eye(len(blocks))
    found = [reference.distance(pooled(blocks, row)) for row in counts]
    return np.array(found)


def pooled(blocks: Sequence[FeatureStatistics], counts: npt.ArrayLike) -> FeatureStatistics:
    """The statistics of every block taken ``counts`` (B,) times."""
    taken = [(int(c), block) for c, block in zip(np.asarray(counts), blocks, strict=True) if c]
    n = sum(c * block.n for c, block in taken)
    mean = sum((c * block.n / n) * block.mean for c, block in taken)
    gaps = np.array([(c * block.n) ** 0.5 * (block.mean - mean) for c, block in taken])
    scatter = sum((c * block.scatter for c, block in taken), start=gaps.T @ gaps)
    return FeatureStatistics(n=n, mean=np.asarray(mean), scatter=scatter)


def _without_bias(
    resampled: npt.NDArray[np.float64], drawn: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """What is left of the resampled distances (R,) when their line in sum_k w_k^2 is taken off,
    ``drawn`` (R, B) being w.
    """
    repeats = (drawn**2).sum(axis=1).astype(float)
    repeats -= repeats.mean()
    spread = float(repeats @ repeats)
    slope = float(repeats @ resampled) / spread if spread > 0.0 else 0.0
    rest: npt.NDArray[np.float64] = resampled - resampled.mean() - slope * repeats
    return rest


def _at_least_two(blocks: Sequence[FeatureStatistics]) -> int:
    if len(blocks) < 2:
        raise EvaluationFailed(
            f"an error over noise needs at least 2 blocks of images, found {len(blocks)}; "
            "measure more images"
        )
    return len(blocks)
