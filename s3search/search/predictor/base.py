"""What every predictor takes and gives: examples with proxies in, a forecast of the distance out.

A distance found by a search ranges over orders of magnitude (0.07 to 40 on one small model), so
everything here is about its logarithm.  Lower is better.

Shapes: n examples, p proxies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from s3search.schedules.schedule import Schedule

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_LEAST = 1e-12  # a distance of zero is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a predictor sees of one schedule.

    ``proxies`` are positive scores by name, such as {"gaussian": 0.3, "mixture": 1.2}; a name that
    is absent or nan was not measured, inf means that the schedule diverged.
    """

    schedule: Schedule
    proxies: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Mean and standard deviation of the log distance of each example."""

    mean: Array  # (n,)
    std: Array  # (n,), positive


class Predictor(Protocol):
    """Learns the log distance of schedules from measured ones; deterministic for a seed."""

    def fit(self, examples: Sequence[Example], values: Sequence[float], seed: int) -> None:
        """Learns from scratch; ``values`` are finite distances, one per example."""

    def predict(self, examples: Sequence[Example]) -> Forecast:
        """The forecast of each; needs `fit` first."""

    def for_fold(self) -> Self:
        """An unfitted predictor of the same kind for a cross-validation: cheaper to fit, and free
        to begin from what this one learnt about its own settings.
        """


def log_distances(examples: Sequence[Example], values: Sequence[float]) -> Array:  # (n,)
    """The logarithms of the values; raises `ValueError` where they do not fit the examples."""
    if len(values) != len(examples) or not examples:
        raise ValueError(
            f"a predictor learns from one distance per example and at least one example, "
            f"found {len(values)} distances for {len(examples)} examples"
        )
    array = np.asarray(values, dtype=np.float64)
    bad = np.nonzero(~np.isfinite(array))[0]
    if len(bad):
        raise ValueError(
            f"values[{bad[0]}]: a predictor learns from finite distances, found {array[bad[0]]}; "
            "leave failed measurements out"
        )
    return np.log(np.maximum(array, _LEAST))
