"""Adam down a noisy loss, with a way back from numbers that are not finite.

The learning rate warms up over a few steps and decays with a cosine to 0; every gradient comes
from other noise, hence the short memory of its squares (arXiv:1412.6980, beta_2 0.99).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed

Objective = Callable[[int], tuple[float, list[Tensor]]]
"""Iteration -> the loss and its gradient, one tensor per leaf."""

_BETAS = (0.9, 0.99)
_WARM_UP = 5  # iterations
_LARGEST_JUMP = 10.0  # a gradient longer than this times the mean of those before is cut
_MAX_FAILURES = 5  # iterations in a row without a finite gradient


class RecoveringAdam:
    """Adam on some leaves, which remembers the last of their values that had a finite loss."""

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
        failures, adam = 0, self._adam()
        for i in range(n_iterations):
            loss, gradient = objective(i)
            norm = math.sqrt(math.fsum(float(g.square().sum()) for g in gradient))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                if not norms:
                    raise EvaluationFailed(
                        f"polish: the schedule has a loss of {loss} with a gradient of {norm}; "
                        "only one with finite images and derivatives can be polished"
                    )
                losses.append(math.nan)
                self._rate, failures, adam = 0.5 * self._rate, failures + 1, self._adam()
                self.restore()
                if failures == _MAX_FAILURES:
                    break
                continue
            losses.append(loss)
            failures = 0
            self._keep()
            kept = min(norm, _LARGEST_JUMP * sum(norms) / len(norms)) if norms else norm
            norms.append(kept)
            for leaf, g in zip(self._leaves, gradient, strict=True):
                leaf.grad = g * (kept / norm if norm > 0.0 else 1.0)
            decay = 0.5 * (1.0 + math.cos(math.pi * i / n_iterations))
            adam.param_groups[0]["lr"] = self._rate * min(1.0, (i + 1) / _WARM_UP) * decay
            adam.step()
            self._project()
        return losses

    def restore(self) -> None:
        """Back to the last values that had a finite loss."""
        with torch.no_grad():
            for leaf, value in zip(self._leaves, self._good, strict=True):
                leaf.copy_(value)

    def _keep(self) -> None:
        self._good = [leaf.detach().clone() for leaf in self._leaves]

    def _adam(self) -> torch.optim.Adam:
        return torch.optim.Adam(self._leaves, betas=_BETAS)
