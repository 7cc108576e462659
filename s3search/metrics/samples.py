"""Features as numbers to calculate with, or a sentence that says why they are not."""

import numpy as np
import numpy.typing as npt

from s3search.errors import EvaluationFailed, IncompatibleStatistics

Array = npt.NDArray[np.float64]


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
    x, y = feature_matrix(real, "the real images"), feature_matrix(made, "the made images")
    if x.shape[1] != y.shape[1]:
        raise IncompatibleStatistics(
            f"the real images have {x.shape[1]} feature dimensions, the made ones {y.shape[1]}; "
            "use one extractor for both"
        )
    if min(len(x), len(y)) < 2:
        raise EvaluationFailed(
            f"at least 2 images are needed, found {len(x)} real ones and {len(y)} made"
        )
    return x, y
