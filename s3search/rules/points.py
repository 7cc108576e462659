"""Levels, points and predictions: what an update rule is a function of."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from s3search.processes import NoiseProcess
from s3search.rules.linear_form import LinearForm, combine

Number = Annotated[float, Field(strict=True), AfterValidator(lambda value: value + 0.0)]
"""A number as JSON means it, neither text nor true; -0.0 becomes 0.0: equal means equal."""

Index = Annotated[int, Field(strict=True)]
"""A whole number, likewise."""


class Part(BaseModel):
    """Base of what a step is made of: frozen, without unknown fields or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prediction(StrEnum):
    """Which output of the network a rule extrapolates."""

    NOISE = "noise"
    DATA = "data"
    V3 = "v3"  # DPM-Solver-v3's g, made of both with EMS statistics; `Taylor` alone knows it


LINEAR_PREDICTIONS = (Prediction.NOISE, Prediction.DATA)
"""The predictions that need no statistics."""


class Level(NamedTuple):
    """A time with its signal and noise level."""

    t: float
    alpha: float
    sigma: float
    lam: float


@lru_cache(maxsize=65_536)
def level(process: NoiseProcess, t: float) -> Level:
    """The level of ``process`` at time ``t``."""
    return Level(t, process.alpha(t), process.sigma(t), process.lam(t))


@dataclass(frozen=True, slots=True)
class Point:
    """A state of the trajectory at which the network was called.

    ``state`` is where a step starts from, ``evaluated_at`` is what the network was given: they
    differ after a pseudo corrector, which moves the state and keeps the call.  ``called_at`` is
    the level of the network time, None where that is the point's own.  ``noise`` is the unit noise
    that the step to it drew, None where it drew none.
    """

    level: Level
    state: LinearForm
    evaluated_at: LinearForm
    data: LinearForm
    called_at: Level | None = None
    noise: LinearForm | None = None

    def predicted(self, prediction: Prediction) -> LinearForm:
        """D, or eps = (x - alpha D) / sigma at the level of the network time."""
        if prediction is Prediction.DATA:
            return self.data
        assert prediction is Prediction.NOISE, "v3 predictions need statistics"
        _, alpha, sigma, _ = self.called_at or self.level
        return combine(((1.0 / sigma, self.evaluated_at), (-alpha / sigma, self.data)))
