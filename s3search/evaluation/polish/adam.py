"""Adam with a full matrix down a noisy loss, and a way back from numbers that are not finite.

The numbers of a schedule act together: moving one level asks for other coefficients.  So the step
is scaled by the root of the whole second moment of the gradients instead of its diagonal
(full-matrix AdaGrad, Duchi et al. 2011; with forgetting GGT, arXiv:1806.02958), shrunk half way to
its diagonal, since few gradients are known:

    C = E[g g^T]     M = (C + diag C) / 2     step = rate M^(-1/2) E[g]

Every gradient comes from other images, so C holds the gradient's own noise: directions in which
the loss says little move little, whatever the scale of loss and numbers.  The mean of the
gradients starts at 0 uncorrected, which keeps the first steps short while they are mostly noise.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed

Objective = Callable[[int], tuple[float, list[Tensor]]]
"""Iteration -> the loss and its gradient, one tensor per leaf."""

_BETAS = (0.9, 0.97)  # of the means of g and of g g^T
_TO_DIAGONAL = 0.5
_LEAST_ROOT = 0.003  # of an eigenvalue's root, as a share of the largest
_WARM_UP = 5  # iterations
_LARGEST_JUMP = 10.0  # a gradient longer than this times the mean of those before is cut
_MAX_FAILURES = 5  # iterations in a row without a finite gradient


class RecoveringAdam:
    """Full-matrix Adam on some leaves, which remembers the last of their values that had a finite
    loss.
    """

    def __init__(
        self, leaves: Sequence[Tensor], project: Callable[[], None], learning_rate: float
    ) -> None:
        """``project`` puts the leaves back into their ranges after every step."""
        self._leaves, self._project, self._rate = leaves, project, learning_rate
        self._keep()

    def run(self, objective: Objective, n_iterations: int) -> list[float]:
        """The losses, nan where one was not finite; there the rate is halved and the leaves go
        back.
        """
        losses: list[float] = []
        norms: list[float] = []
        failures, moments = 0, _Moments(sum(leaf.numel() for leaf in self._leaves))
        for i in range(n_iterations):
            loss, gradient = objective(i)
            flat = torch.cat([g.flatten() for g in gradient]).double()
            norm = float(flat.norm())
            if not (math.isfinite(loss) and math.isfinite(norm)):
                if not norms:
                    raise EvaluationFailed(
                        f"polish: the schedule has a loss of {loss} with a gradient of {norm}; "
                        "only one with finite images and derivatives can be polished"
                    )
                losses.append(math.nan)
                self._rate, failures = 0.5 * self._rate, failures + 1
                moments = _Moments(len(flat))
                self.restore()
                if failures == _MAX_FAILURES:
                    break
                continue
            losses.append(loss)
            failures = 0
            self._keep()
            kept = min(norm, _LARGEST_JUMP * sum(norms) / len(norms)) if norms else norm
            norms.append(kept)
            direction = moments.direction(flat * (kept / norm if norm > 0.0 else 1.0))
            decay = 0.5 * (1.0 + math.cos(math.pi * i / n_iterations))
            self._move(-self._rate * min(1.0, (i + 1) / _WARM_UP) * decay * direction)
            self._project()
        return losses

    def restore(self) -> None:
        """Back to the last values that had a finite loss."""
        put_back(self._leaves, self._good)

    def _move(self, step: Tensor) -> None:
        parts = torch.split(step, [leaf.numel() for leaf in self._leaves])
        with torch.no_grad():
            for leaf, part in zip(self._leaves, parts, strict=True):
                leaf.add_(part.view_as(leaf))

    def _keep(self) -> None:
        self._good = copied(self._leaves)


def copied(leaves: Sequence[Tensor]) -> list[Tensor]:
    """The present values of leaves, for `put_back`."""
    return [leaf.detach().clone() for leaf in leaves]


@torch.no_grad()
def put_back(leaves: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Gives leaves values that they had."""
    for leaf, value in zip(leaves, values, strict=True):
        leaf.copy_(value)


class _Moments:
    """What Adam remembers of ``n`` numbers' gradients."""

    def __init__(self, n: int) -> None:
        self._mean = torch.zeros(n, dtype=torch.float64)
        self._second = torch.zeros(n, n, dtype=torch.float64)
        self._seen = 0

    def direction(self, gradient: Tensor) -> Tensor:
        """The scaled mean of the gradients so far, this one included; 0 where this one is."""
        if not len(gradient):
            return gradient
        first, second = _BETAS
        self._seen += 1
        own = gradient.cpu()
        self._mean.lerp_(own, 1.0 - first)
        self._second.lerp_(torch.outer(own, own), 1.0 - second)
        moment = self._second / (1.0 - second**self._seen)
        shrunk = torch.lerp(moment, torch.diag(moment.diagonal()), _TO_DIAGONAL)
        values, axes = torch.linalg.eigh(shrunk)
        roots = values.clamp(min=0.0).sqrt()
        if not roots[-1] > 0.0:
            return torch.zeros_like(gradient)
        scaled = axes @ ((axes.T @ self._mean) / (roots + _LEAST_ROOT * roots[-1]))
        return torch.where(own != 0.0, scaled, 0.0).to(gradient)
