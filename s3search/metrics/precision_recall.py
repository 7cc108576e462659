"""How much of what is made is real (precision, density), and how much of the real is made
(recall, coverage).

    r_k(f; S)   distance from f to its k-th nearest neighbour in S, itself not counted
    ball(f; S)  the points nearer to f than r_k(f; S), its border included

    precision   share of made points inside the ball of some real one
    recall      share of real points inside the ball of some made one
    density     balls of real points around a made one, mean, over k
    coverage    share of real points whose ball holds a made one

All four depend on both numbers of images: compare only values of equal ones.

Source: arXiv:1904.06991, eq. 1 and 2 (k = 3); arXiv:2002.09797, eq. 2 and 3 (k = 5).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import pairwise_distances_chunked  # type: ignore[import-untyped]
from sklearn.neighbors import NearestNeighbors  # type: ignore[import-untyped]

from s3search.errors import EvaluationFailed
from s3search.metrics.samples import Array, two_samples

K_PRECISION = 3
K_DENSITY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifolds:
    """How two samples cover each other; see the module's docstring."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(
    real: npt.ArrayLike,
    made: npt.ArrayLike,
    *,
    k_precision: int = K_PRECISION,
    k_density: int = K_DENSITY,
) -> Manifolds:
    """The four shares for features (n, d) and (m, d), each with more than k points."""
    x, y = two_samples(real, made)
    most = max(k_precision, k_density)
    if min(len(x), len(y)) <= most:
        raise EvaluationFailed(
            f"{most} nearest neighbours need at least {most + 1} images, found {len(x)} real ones "
            f"and {len(y)} made"
        )
    near, far = _radii(x, k_precision), _radii(x, k_density)
    made_near = _radii(y, k_precision)
    precise, balls = np.zeros(len(y), bool), np.zeros(len(y))
    recalled, covered = np.zeros(len(x), bool), np.zeros(len(x), bool)
    for rows, distances in _distances(x, y):
        precise |= (distances <= near[rows, None]).any(axis=0)
        inside = distances <= far[rows, None]
        balls += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (distances <= made_near).any(axis=1)
    return Manifolds(
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        density=float(balls.mean()) / k_density,
        coverage=float(covered.mean()),
    )


def _radii(f: Array, k: int) -> Array:  # (n,)
    distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(f).kneighbors()
    radii: Array = distances[:, -1]
    return radii


def _distances(x: Array, y: Array) -> Iterator[tuple[slice, Array]]:
    """Rows of the distances (n, m), as many at once as fit into scikit-learn's working memory."""
    start = 0
    for chunk in pairwise_distances_chunked(x, y):
        yield slice(start, start + len(chunk)), chunk
        start += len(chunk)
