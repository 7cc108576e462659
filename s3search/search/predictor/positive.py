"""Losses as positive numbers, whose logarithms predictors learn.

Distances are positive and range over orders of magnitude, and their logarithm is learned.  A loss
may have any sign, as minus a score has, or an unbiased distance near 0.  Such losses v become

    exp(asinh((v - m) / s)),     m their median, s half of what the middle half of them spans

whose logarithm is linear where most schedules are, and grows slowly for those that are far worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class PositiveScale:
    """A rising map to positive numbers; that which changes nothing without ``middle``."""

    middle: float | None = None
    spread: float = 1.0

    @staticmethod
    def of(losses: Sequence[float]) -> "PositiveScale":
        """The map for losses like these."""
        known = np.asarray(losses, dtype=np.float64)
        if not len(known) or known.min() > 0.0:
            return PositiveScale()
        low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
        spread = (high - low) / 2.0 or float(known.std()) or 1.0
        return PositiveScale(middle=float(middle), spread=float(spread))

    def __call__(self, loss: float) -> float:
        """The number of a loss."""
        if self.middle is None:
            return loss
        return float(np.exp(np.arcsinh((loss - self.middle) / self.spread)))
