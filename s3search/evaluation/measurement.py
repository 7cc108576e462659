"""A schedule's features as its images come, and whether it is measured any further."""

from collections import deque

import numpy as np

from s3search.metrics.frechet import Array, FrechetReference, frechet_estimate
from s3search.search.questions import Measure


class Observed:
    """What was seen of the images of one question so far."""

    def __init__(self, question: Measure, reference: FrechetReference) -> None:
        self.question = question
        self.path: dict[int, float] = {}  # distances at the thresholds, by number of images
        self.n_images = 0  # seen
        self.has_stopped = False
        self._reference = reference
        self._thresholds = deque(question.thresholds)
        self._features: list[Array] = []

    def sees(self, features: Array) -> None:
        """Takes the features (b, d) of the next images; raises `EvaluationFailed`."""
        self._features.append(features)
        self.n_images += len(features)
        if self._thresholds and self.n_images >= self._thresholds[0][0]:
            n_images, threshold = self._thresholds.popleft()
            so_far = self.features[:n_images]
            value = frechet_estimate(self._reference, so_far, n_blocks=1).value
            self.path[n_images] = value
            if value > threshold:
                self.has_stopped = True
                self._features = [so_far]

    @property
    def features(self) -> Array:
        """The features (n, d) of all images that count."""
        return np.concatenate(self._features)
