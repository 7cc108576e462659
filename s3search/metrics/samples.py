"""Features as numbers to calculate with, or a sentence that says why they are not."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, IncompatibleStatistics

Array = npt.NDArray[np.float64]

_FEWEST_OF_A_LOSS = 4  # images: two in each half


def feature_matrix(features: npt.ArrayLike, whose: str) -> Array:
    """Features (n, d) in float64; raises where shape or dtype is another or one is not finite."""
    found = np.asarray(features)
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise IncompatibleStatistics(
            f"the features of {whose} should be real numbers (n, d), found {found.dtype} "
            f"{found.shape}"
        )
    if not np.isfinite(found).all():
        raise EvaluationFailed(f"the features of {whose} are not finite")
    return found.astype(np.float64)


def two_samples(real: npt.ArrayLike, made: npt.ArrayLike) -> tuple[Array, Array]:
    """Features (n, d) and (m, d) of at least two images each."""
    x = feature_matrix(real, "the real images")
    return x, second_sample(x, made)


def second_sample(real: Array, made: npt.ArrayLike) -> Array:
    """Features (m, d) of made images that are to be compared with ``real`` (n, d), at least two
    of each.
    """
    y = feature_matrix(made, "the made images")
    if real.shape[1] != y.shape[1]:
        raise IncompatibleStatistics(
            f"the real images have {real.shape[1]} feature dimensions, the made ones "
            f"{y.shape[1]}; use one extractor for both"
        )
    if min(len(real), len(y)) < 2:
        raise EvaluationFailed(
            f"at least 2 images are needed, found {len(real)} real ones and {len(y)} made"
        )
    return y


def loss_sample(features: Tensor, d: int) -> Tensor:
    """Features (n, d) in float64 that a loss is taken of, n >= 4."""
    if features.ndim != 2 or features.shape[1] != d:
        raise IncompatibleStatistics(
            f"the reference has {d} feature dimensions, the images' features are of shape "
            f"{tuple(features.shape)}; use the extractor that the reference was made with"
        )
    if len(features) < _FEWEST_OF_A_LOSS:
        raise EvaluationFailed(
            f"the loss needs at least {_FEWEST_OF_A_LOSS} images, found {len(features)}"
        )
    return features.to(torch.float64)


def redrawn(features: Array, n_images: int, *, seed: int, n_resamples: int) -> Iterator[Array]:
    """``n_resamples`` samples (n_images, d), drawn with replacement from features (N, d)."""
    rng = np.random.default_rng(seed)
    for row in rng.integers(len(features), size=(n_resamples, n_images)):
        yield features[row]
