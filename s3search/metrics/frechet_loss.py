"""The Fréchet distance as a loss: differentiable, and without most of its bias.

FD of n images is biased upwards by a term in 1/n, which rewards images that vary less.  The same
images give the distance at n/2 twice, so

    loss = 2 FD(n) - (FD(first half) + FD(second half)) / 2

is free of that term (Richardson's extrapolation; arXiv:1911.07023 fits the same line), and a few
hundred images per iteration suffice.  It may be negative.  All numbers are float64.

With X the centred features / sqrt(n - 1), tr (C^1/2 X^T X C^1/2)^1/2 is taken from the smaller of
the d x d and the n x n matrix of equal eigenvalues.  Only eigenvalues are differentiated, which
needs no gaps between them; those that are rounding count as zero.
"""

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.metrics.frechet import FrechetReference

_ROUNDING = 1e-13  # of the largest eigenvalue
_FEWEST = 4  # images: two in each half


class FrechetLoss:
    """The distance of features (n, d) to one reference, on one device."""

    def __init__(self, reference: FrechetReference, device: torch.device) -> None:
        self._mean = torch.tensor(reference.mean, device=device)
        self._covariance = torch.tensor(reference.covariance, device=device)
        self._root = torch.tensor(reference.root, device=device)
        self._trace = self._covariance.trace()

    def __call__(self, features: Tensor) -> Tensor:
        """The loss of the module's docstring, n >= 4."""
        n, half = len(features), len(features) // 2
        if n < _FEWEST:
            raise EvaluationFailed(f"the loss needs at least {_FEWEST} images, found {n}")
        halves = self.distance(features[:half]) + self.distance(features[half:])
        return 2.0 * self.distance(features) - 0.5 * halves

    def distance(self, features: Tensor) -> Tensor:
        """FD as `FrechetReference.distance` has it."""
        f = features.to(torch.float64)
        n, d = f.shape
        if d != len(self._mean):
            raise IncompatibleStatistics(
                f"the reference has {len(self._mean)} feature dimensions, the images have {d}; "
                "use the extractor that the reference was made with"
            )
        mean = f.mean(0)
        x = (f - mean) / (n - 1) ** 0.5
        if n < d:
            values = torch.linalg.eigvalsh(x @ self._covariance @ x.T)
        else:
            y = x @ self._root
            values = torch.linalg.eigvalsh(y.T @ y)
        overlap = torch.sqrt(values[values > values[-1].detach() * _ROUNDING]).sum()
        squared: Tensor = (
            ((mean - self._mean) ** 2).sum() + self._trace + (x * x).sum() - 2.0 * overlap
        )
        return squared
