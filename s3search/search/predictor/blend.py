"""Several predictors as one: the mean of their forecasts, with a width that was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s3search.search.predictor.base import Array, Example, Forecast, Predictor

_COVERED, _QUANTILE = 0.9, 1.645  # of the absolute value of a normal variable
_WIDENINGS = (0.5, 5.0)


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """The members' mean, their mean variance times ``widening``^2."""

    members: tuple[Predictor, ...]
    widening: float = 1.0

    def fit(self, examples: Sequence[Example], values: Sequence[float], seed: int) -> None:
        """Fits every member."""
        for member in self.members:
            member.fit(examples, values, seed)

    def predict(self, examples: Sequence[Example]) -> Forecast:
        """The blended forecast."""
        return blended([member.predict(examples) for member in self.members], self.widening)

    def for_fold(self) -> "Blend":
        """A blend of members for a fold."""
        return Blend(tuple(member.for_fold() for member in self.members), self.widening)


def blended(forecasts: Sequence[Forecast], widening: float = 1.0) -> Forecast:
    """The mean of the means, and the root of the mean variance, widened."""
    mean = np.mean([forecast.mean for forecast in forecasts], axis=0)
    variance = np.mean([forecast.std**2 for forecast in forecasts], axis=0)
    return Forecast(mean, widening * np.sqrt(variance))


def widening_for(forecast: Forecast, y: Array) -> float:
    """The factor on the deviations with which 90 % intervals would have held 90 % of ``y``."""
    misses = np.abs(y - forecast.mean) / forecast.std
    factor = float(np.quantile(misses, _COVERED)) / _QUANTILE
    return min(max(factor, _WIDENINGS[0]), _WIDENINGS[1])
