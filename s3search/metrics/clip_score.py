"""How well images show what their texts say: the CLIP score.

    score = w max(cos(image features, text features), 0), mean over images

Source: arXiv:2104.08718, sec. 3, with w = 2.5; many tables give 100 cos instead (w = 100).
"""

import numpy as np
import numpy.typing as npt

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.frechet import Estimate
from s3search.metrics.samples import feature_matrix

WEIGHT = 2.5


def clip_score(images: npt.ArrayLike, texts: npt.ArrayLike, *, weight: float = WEIGHT) -> Estimate:
    """The mean score of features (n, d) and (n, d), row by row, with its standard error."""
    x, y = feature_matrix(images, "the images"), feature_matrix(texts, "the texts")
    if x.shape != y.shape or not len(x):
        raise IncompatibleStatistics(
            f"a CLIP score needs one text for each image, in features of one shape (n, d), found "
            f"{x.shape} of images and {y.shape} of texts"
        )
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    if not lengths.all():
        raise EvaluationFailed("the CLIP features of an image or a text are all zero")
    scores = weight * np.maximum((x * y).sum(axis=1) / lengths, 0.0)
    error = float(scores.std(ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else None
    return Estimate(float(scores.mean()), error)
