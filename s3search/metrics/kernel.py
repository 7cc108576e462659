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

import numpy as np
import numpy.typing as npt

from s3search.metrics.frechet import Estimate, jackknife_error
from s3search.metrics.samples import Array, two_samples

N_BLOCKS = 10
_CHUNK = 2048  # images on either side of a kernel matrix in memory


def kernel_distance(
    real: npt.ArrayLike, made: npt.ArrayLike, *, n_blocks: int = N_BLOCKS
) -> Estimate:
    """KID between features (n, d) and (m, d), with its standard error over blocks of made images.

    There is no error with fewer than two blocks of two images.
    """
    x, y = two_samples(real, made)
    n_blocks = max(1, min(n_blocks, len(y) // 2))
    blocks = np.array_split(y, n_blocks)
    sizes = np.array([len(block) for block in blocks])
    among_real = _sum_of_others(x) / (len(x) * (len(x) - 1))
    crossed = np.array([_sum(x, block) for block in blocks])
    pairs = np.zeros((n_blocks, n_blocks))
    for i, block in enumerate(blocks):
        pairs[i, i] = _sum_of_others(block)
        for j in range(i):
            pairs[i, j] = pairs[j, i] = _sum(block, blocks[j])

    def distance(kept: npt.NDArray[np.bool_]) -> float:
        m = int(sizes[kept].sum())
        among_made = pairs[np.ix_(kept, kept)].sum() / (m * (m - 1))
        return float(among_real + among_made - 2.0 * crossed[kept].sum() / (len(x) * m))

    value = distance(np.ones(n_blocks, dtype=bool))
    if n_blocks < 2:
        return Estimate(value, None)
    without = np.array([distance(row) for row in ~np.eye(n_blocks, dtype=bool)])
    return Estimate(value, jackknife_error(without))


def _sum(a: Array, b: Array) -> float:
    """Of k over all pairs of rows."""
    parts = [range(0, len(f), _CHUNK) for f in (a, b)]
    return sum(
        float(((a[i : i + _CHUNK] @ b[j : j + _CHUNK].T / a.shape[1] + 1.0) ** 3).sum())
        for i in parts[0]
        for j in parts[1]
    )


def _sum_of_others(a: Array) -> float:
    """Of k over all pairs of two different rows."""
    itself = ((a * a).sum(axis=1) / a.shape[1] + 1.0) ** 3
    return _sum(a, a) - float(itself.sum())
