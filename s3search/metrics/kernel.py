"""The kernel distance (KID): squared maximum mean discrepancy of features, without bias.

    k(a, b) = (a . b / d + 1)^3                       d feature dimensions
    MMD^2   = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)
    KID     = mean of MMD^2 over random subsets of both samples

Unlike the Fréchet distance its mean does not depend on the number of images, so values of unequal
n can be compared; it may be negative.

Source: arXiv:1801.01401, eq. 4 and sec. 4.
"""

import numpy as np
import numpy.typing as npt

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.frechet import Estimate

Array = npt.NDArray[np.float64]

N_SUBSETS = 100
SUBSET_IMAGES = 1000
_SEED = 0x6B6964  # of the subsets: the same ones whatever is measured


def kernel_distance(
    real: npt.ArrayLike,
    made: npt.ArrayLike,
    *,
    n_subsets: int = N_SUBSETS,
    subset_images: int = SUBSET_IMAGES,
) -> Estimate:
    """KID between features (n, d) and (m, d), with the standard error over subsets.

    With fewer images than ``subset_images`` on one side, subsets are as large as that side.
    """
    x, y = checked_features(real, made)
    size = min(subset_images, len(x), len(y))
    rng = np.random.default_rng(_SEED)
    found = np.array(
        [
            squared_discrepancy(
                x[rng.choice(len(x), size, replace=False)],
                y[rng.choice(len(y), size, replace=False)],
            )
            for _ in range(n_subsets)
        ]
    )
    error = float(found.std(ddof=1) / n_subsets**0.5) if n_subsets > 1 else None
    return Estimate(float(found.mean()), error)


def squared_discrepancy(x: Array, y: Array) -> float:
    """The unbiased MMD^2 of features (n, d) and (m, d)."""
    inside = [_off_diagonal_mean(_kernel(f, f)) for f in (x, y)]
    return sum(inside) - 2.0 * float(_kernel(x, y).mean())


def checked_features(real: npt.ArrayLike, made: npt.ArrayLike) -> tuple[Array, Array]:
    """Both samples as float64; raises where they cannot be compared."""
    x, y = (np.asarray(f, dtype=np.float64) for f in (real, made))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise IncompatibleStatistics(
            f"two samples of features (n, d) of one dimension are needed, found {x.shape} (real) "
            f"and {y.shape} (made); use one extractor for both"
        )
    if min(len(x), len(y)) < 2:
        raise EvaluationFailed(
            f"at least 2 images are needed, found {len(x)} real ones and {len(y)} made"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise EvaluationFailed("the features of the images are not finite")
    return x, y


def _kernel(a: Array, b: Array) -> Array:
    powers: Array = (a @ b.T / a.shape[1] + 1.0) ** 3
    return powers


def _off_diagonal_mean(k: Array) -> float:
    n = len(k)
    return float(k.sum() - np.trace(k)) / (n * (n - 1))
