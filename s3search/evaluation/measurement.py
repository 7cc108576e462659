"""A schedule's features as its images come, and whether it is still in its race."""

from collections import deque

import numpy as np

from s3search.evaluation.record import EvaluationRequest
from s3search.metrics.frechet import Array, FrechetReference, frechet_estimate


class Measurement:
    """What was seen of the images of one request so far."""

    def __init__(self, request: EvaluationRequest, reference: FrechetReference) -> None:
        self.request = request
        self.path: list[tuple[int, float]] = []  # (images, distance) at the bars of the race
        self.n_images = 0  # seen
        self.has_left = False  # the race
        self._reference = reference
        self._bars = deque(request.race)
        self._features: list[Array] = []

    def sees(self, features: Array) -> None:
        """Takes the features (b, d) of the next images; raises `EvaluationFailed`."""
        self._features.append(features)
        self.n_images += len(features)
        if self._bars and self.n_images >= self._bars[0][0]:
            n_images, bar = self._bars.popleft()
            so_far = self.features[:n_images]
            value = frechet_estimate(self._reference, so_far, n_blocks=1).value
            self.path.append((n_images, value))
            if value > bar:
                self.has_left = True
                self._features = [so_far]

    @property
    def features(self) -> Array:
        """Of all images (n, d) that count."""
        return np.concatenate(self._features)
