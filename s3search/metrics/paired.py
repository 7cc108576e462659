"""Distances between two sets of features made from the same noises.

What two schedules make of one noise differs by the schedules alone, so a few dozen images rank
where a distance to real images would need hundreds.
"""

from enum import StrEnum
from typing import assert_never

import numpy as np
import numpy.typing as npt

from s3search.errors import IncompatibleStatistics

Array = npt.NDArray[np.float64]


class Pairing(StrEnum):
    """What is compared of two samples of features."""

    FULL = "full"  # the Fréchet distance with full covariances
    DIAGONAL = "diagonal"  # the same with diagonal ones
    SQUARE = "square"  # the mean squared difference, image by image


def paired_distance(a: Array, b: Array, pairing: Pairing = Pairing.FULL) -> float:
    """The distance between features (n, d) and (n, d), n >= 2."""
    if a.shape != b.shape or len(a) < 2:
        raise IncompatibleStatistics(
            f"a paired distance needs two samples of one shape and at least 2 images, "
            f"found {a.shape} and {b.shape}"
        )
    match pairing:
        case Pairing.FULL:
            return _frechet(a, b)
        case Pairing.DIAGONAL:
            spread = a.std(axis=0, ddof=1) - b.std(axis=0, ddof=1)
            return float(_gap(a, b) + (spread**2).sum())
        case Pairing.SQUARE:
            return float(((a - b) ** 2).mean())
    assert_never(pairing)


def _frechet(a: Array, b: Array) -> float:
    """With X_a, X_b the centred features, tr (C_a^1/2 C_b C_a^1/2)^1/2 is the sum of the singular
    values of X_a X_b^T / (n - 1), or of the triangles of their QR decompositions.
    """
    x, y = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = float((x**2).sum() + (y**2).sum())
    if len(x) > x.shape[1]:
        x, y = np.linalg.qr(x, mode="r"), np.linalg.qr(y, mode="r")
    overlap = float(np.linalg.svd(x @ y.T, compute_uv=False).sum())
    return _gap(a, b) + (spread - 2.0 * overlap) / (len(a) - 1)


def _gap(a: Array, b: Array) -> float:
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())
