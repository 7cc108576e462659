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

    replicates = FD - k rest,   the interval is between their quantiles

The factor k mends two shortfalls of few blocks: the bootstrap's variance is (B - 1) / B of the
right one, and quantiles of a normal shape ignore that the spread itself is estimated (Student's t
with B - 1 degrees of freedom, at the 95 % level).

The blocks are drawn alike for every schedule.  So replicate r of two schedules that were measured
on common noise belongs together: the interval of any expression of their distances is that of the
expression of their replicates, and a difference, or a ratio, is far better known than either
distance.  The interval of a / b is Fieller's: it holds the ratios x for which the interval of
a - x b holds 0, and has no end where b may be 0.

With many dimensions FD* costs too much.  There FD is linearised in the weights of images:
with m, C of all images, m_r, C_r of the reference,

    dFD(f) = 2 (m - m_r)^T (f - m) + (f - m)^T G (f - m) - tr G C,
    G = 1 - C_r^1/2 (C_r^1/2 C C_r^1/2)^-1/2 C_r^1/2

is the influence of an image with features f, and the rest is the mean of dFD over drawn blocks
(the infinitesimal jackknife): one eigenvalue problem instead of hundreds.

Any other distance is linearised in the weights of its blocks: with D all images' distance and D_k
what it is without block k, a drawn block adds  (B - 1) / B (mean D - D_k)  to the rest.

What is covered is the mean of FD over other noise *at the same n*: that is what two distances of
one n can be compared by.  The finite reference is taken as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from s3search.metrics.frechet import (
    Estimate,
    FeatureStatistics,
    FrechetReference,
    jackknife_error,
)
from s3search.metrics.symmetric import eigensystem, product

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]

LEVEL = 0.95
N_BLOCKS = 20
N_RESAMPLES = 200
_SEED = 0  # of the drawn blocks, alike for every schedule
_IMAGES_PER_DIMENSION = 2  # below, drawn blocks may have a singular covariance
_MOST_DIMENSIONS = 256  # above, FD is linearised: 200 eigenvalue problems would take seconds
_NORMAL_95 = 1.96
_ROUNDING = 1e-13  # of the largest eigenvalue


def replicates(reference: FrechetReference, features: Array, *, seed: int = _SEED) -> Array | None:
    """Distances (R,) that features (n, d) of as many images on other noise could have.

    Replicates of two schedules are paired if both were measured on the same noise and drawn with
    the same ``seed``.  None with fewer than two images per dimension or block.  Costs 0.1 s at
    64 dimensions, a second at 256, about two eigenvalue problems above.
    """
    n, d = features.shape
    if n < 2 * N_BLOCKS or n < _IMAGES_PER_DIMENSION * d:
        return None
    if d <= _MOST_DIMENSIONS:
        blocks = [FeatureStatistics.of(block) for block in np.array_split(features, N_BLOCKS)]
        value = reference.distance(pooled(blocks, np.ones(N_BLOCKS)))
        drawn = _drawn_blocks(seed)
        return _turned_round(value, _without_bias(reference.distances(blocks, drawn), drawn))
    of_all = FeatureStatistics.of(features, reference.device)
    influence = _influence(reference, of_all, features)
    value = reference.distance(of_all)
    without = without_blocks(value, influence, np.array_split(np.arange(n), N_BLOCKS))
    return linear_replicates(value, without, seed=seed)


def linear_replicates(value: float, without: Array, *, seed: int = _SEED) -> Array:  # (R,)
    """What `replicates` gives, of any distance that is ``value`` for all images and ``without``
    (N_BLOCKS,) with each block of as many left out: its bias is taken to be the same for all.
    """
    weights = (N_BLOCKS - 1) / N_BLOCKS * (without.mean() - without)
    return _turned_round(value, (_drawn_blocks(seed) - 1.0) @ weights)


def without_blocks(
    value: float, influence: Array, blocks: Sequence[npt.NDArray[np.int64]]
) -> Array:  # (B,)
    """What a distance is, to first order, with each block of images left out: ``influence`` (n,)
    is its change with the weight of each image, times n and with mean zero.
    """
    n = len(influence)
    return np.array([value - influence[own].sum() / (n - len(own)) for own in blocks])


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """A distance and what it is with each of B blocks of images left out."""

    value: float
    without: Array  # (B,)

    def times(self, scale: float) -> "LeftOut":
        """All of it in another unit, ``scale`` times as large."""
        return LeftOut(scale * self.value, scale * self.without)

    def estimate(self) -> Estimate:
        """With the jackknife's error over other noise; without one of fewer than two blocks."""
        is_known = len(self.without) > 1
        return Estimate(self.value, jackknife_error(self.without) if is_known else None)

    def replicates(self) -> Array | None:
        """`linear_replicates`; None of other than N_BLOCKS blocks."""
        if len(self.without) != N_BLOCKS:
            return None
        return linear_replicates(self.value, self.without)


def interval(found: npt.ArrayLike) -> Interval:
    """The 95 % interval of what has these replicates (R,)."""
    low, high = np.quantile(np.asarray(found), [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return float(low), float(high)


def interval_of(
    value: float, standard_error: float | None, found: npt.ArrayLike | None
) -> Interval | None:
    """The 95 % interval of a distance: of its replicates (R,), else the normal one; None where
    neither is known.
    """
    if found is not None:
        return interval(found)
    if standard_error is None:
        return None
    half = _NORMAL_95 * standard_error
    return value - half, value + half


def difference_interval(a: npt.ArrayLike, b: npt.ArrayLike) -> Interval:
    """The interval of a - b from paired replicates (R,) of both."""
    return interval(np.asarray(a) - np.asarray(b))


def ratio_interval(a: npt.ArrayLike, b: npt.ArrayLike) -> Interval | None:
    """The interval of a / b from paired replicates (R,) of both; None if b may be 0."""
    above, below = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    ratios = np.full(above.shape, np.inf)
    np.divide(above, below, out=ratios, where=below > 0.0)
    with np.errstate(invalid="ignore"):  # between two infinite ones
        low, high = interval(ratios)
    return (low, high) if np.isfinite([low, high]).all() else None


def mean_interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of what a few independent draws estimate by their mean: Student's t; the
    mean itself of a single one.
    """
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return mean, mean
    error = float(np.std(values, ddof=1)) / n**0.5
    half = float(stdtrit(n - 1, (1.0 + LEVEL) / 2.0)) * error
    return mean - half, mean + half


def shifted_ratio_interval(a: npt.ArrayLike, b: npt.ArrayLike, by: Interval) -> Interval | None:
    """The interval of (a - c) / (b - c) from paired replicates (R,) of a and b, c being anywhere
    in ``by``; None if b - c may be 0.

    The ratio rises or falls with c throughout, so the two ends of ``by`` give both of its ends.
    """
    ends = [ratio_interval(np.asarray(a) - c, np.asarray(b) - c) for c in by]
    found = [each for each in ends if each is not None]
    if len(found) < len(ends):
        return None
    return min(low for low, _ in found), max(high for _, high in found)


def pooled(blocks: Sequence[FeatureStatistics], counts: npt.ArrayLike) -> FeatureStatistics:
    """The statistics of every block taken ``counts`` (B,) times."""
    taken = [(int(c), block) for c, block in zip(np.asarray(counts), blocks, strict=True) if c]
    n = sum(c * block.n for c, block in taken)
    mean = sum((c * block.n / n) * block.mean for c, block in taken)
    gaps = np.array([(c * block.n) ** 0.5 * (block.mean - mean) for c, block in taken])
    scatter = sum((c * block.scatter for c, block in taken), start=gaps.T @ gaps)
    return FeatureStatistics(n=n, mean=np.asarray(mean), scatter=scatter)


def _drawn_blocks(seed: int) -> npt.NDArray[np.int64]:  # (R, B)
    """How often each block is drawn in each replicate."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(N_BLOCKS, np.full(N_BLOCKS, 1.0 / N_BLOCKS), size=N_RESAMPLES)


def _turned_round(value: float, rest: Array) -> Array:
    """value - k rest; see the module's docstring."""
    t, z = stdtrit(N_BLOCKS - 1, (1.0 + LEVEL) / 2.0), ndtri((1.0 + LEVEL) / 2.0)
    k = (N_BLOCKS / (N_BLOCKS - 1)) ** 0.5 * float(t / z)
    found: Array = value - k * rest
    return found


def _without_bias(resampled: Array, drawn: npt.NDArray[np.int64]) -> Array:
    """What is left of the resampled distances (R,) when their line in sum_k w_k^2 is taken off,
    ``drawn`` (R, B) being w.
    """
    repeats = (drawn**2).sum(axis=1).astype(float)
    repeats -= repeats.mean()
    spread = float(repeats @ repeats)
    slope = float(repeats @ resampled) / spread if spread > 0.0 else 0.0
    rest: Array = resampled - resampled.mean() - slope * repeats
    return rest


def _influence(
    reference: FrechetReference, of_all: FeatureStatistics, features: Array
) -> Array:  # (n,)
    """dFD of every image; see the module's docstring."""
    root, device = reference.root, reference.device
    between = product(product(root, of_all.covariance, device), root, device)
    values, vectors = eigensystem(between, device)
    kept = values > values[-1] * _ROUNDING
    half = root @ (vectors[:, kept] * values[kept] ** -0.25)
    centred = features - of_all.mean
    # the quadratic form of 1 - half half^T
    square = (centred**2).sum(axis=1) - (product(centred, half, device) ** 2).sum(axis=1)
    found: Array = 2.0 * centred @ (of_all.mean - reference.mean) + square - square.mean()
    return found
