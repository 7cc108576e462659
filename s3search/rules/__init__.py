"""The update rules: how the next state follows from past states and past network calls.

Every rule is linear in them, so it is written over `LinearForm` and compiles to a row of numbers.
A new solver is one module with one rule class, listed in `AnyRule` below.
"""

from typing import Annotated

from pydantic import Field

from s3search.rules.adams import Adams
from s3search.rules.adams_time import AdamsTime
from s3search.rules.base import (
    INVARIANT_TOLERANCE,
    LINEAR_PREDICTIONS,
    Index,
    Level,
    Number,
    Point,
    Prediction,
    Problem,
    level,
)
from s3search.rules.bidirectional import Bidirectional
from s3search.rules.ems import EmsNodes, EmsStatistics
from s3search.rules.free import Free
from s3search.rules.momentum import Momentum, MomentumKind
from s3search.rules.slope import Slope, SlopeTerm
from s3search.rules.taylor import Derivative, Relaxation, RelaxationKind, Taylor
from s3search.rules.unipc import UniPC, Variant
from s3search.rules.velocity import Clock, NoisePath, Scale, Velocity

SlopeRule = AdamsTime | Bidirectional | Momentum | Slope | Velocity
"""Rules along weighted slopes: the solvers of `s3search.schedules.published.slopes`."""

AnyRule = Annotated[Taylor | UniPC | Adams | SlopeRule | Free, Field(discriminator="rule")]
"""Any rule, told apart by its ``rule`` key."""

__all__ = [
    "INVARIANT_TOLERANCE",
    "LINEAR_PREDICTIONS",
    "Adams",
    "AdamsTime",
    "AnyRule",
    "Bidirectional",
    "Clock",
    "Derivative",
    "EmsNodes",
    "EmsStatistics",
    "Free",
    "Index",
    "Level",
    "Momentum",
    "MomentumKind",
    "NoisePath",
    "Number",
    "Point",
    "Prediction",
    "Problem",
    "Relaxation",
    "RelaxationKind",
    "Scale",
    "Slope",
    "SlopeRule",
    "SlopeTerm",
    "Taylor",
    "UniPC",
    "Variant",
    "Velocity",
    "level",
]
