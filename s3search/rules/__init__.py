"""The update rules: how the next state follows from past states and past network calls.

Every rule is linear in them, so it is written over `LinearForm` and compiles to a row of numbers.
A new solver is one module with one rule class, and a place among those registered below.
"""

from s3search.rules.adams import Adams
from s3search.rules.adams_time import AdamsTime, clock_of
from s3search.rules.arrays import NumberArray, number_array
from s3search.rules.base import (
    INVARIANT_TOLERANCE,
    MAX_ORDER,
    Objection,
    RuleModel,
    TaylorForm,
    refuse_pure_noise,
)
from s3search.rules.bidirectional import Bidirectional
from s3search.rules.ems import EmsNodes, EmsStatistics
from s3search.rules.er_sde import ErSde, NoiseFunction
from s3search.rules.free import Free
from s3search.rules.momentum import Momentum, MomentumKind
from s3search.rules.noise import NoiseKind, StepNoise
from s3search.rules.points import (
    LINEAR_PREDICTIONS,
    Index,
    Level,
    Number,
    Point,
    Prediction,
    level,
)
from s3search.rules.registry import (
    AnyRule,
    families,
    register,
    registered,
    rules,
    solvers,
)
from s3search.rules.relaxation import Relaxation, RelaxationKind
from s3search.rules.sa_solver import StochasticAdams
from s3search.rules.sde import SdeTaylor
from s3search.rules.searched import Limits, MultistepRule, Range, SearchedRule
from s3search.rules.slope import Slope, SlopeTerm
from s3search.rules.taylor import Derivative, Taylor
from s3search.rules.unipc import UniPC, Variant
from s3search.rules.velocity import Clock, NoisePath, Scale, Velocity

register(
    *(Taylor, UniPC, Adams, AdamsTime, Slope, Momentum, Bidirectional, Velocity, Free),
    *(SdeTaylor, StochasticAdams, ErSde),
)

__all__ = [
    "INVARIANT_TOLERANCE",
    "LINEAR_PREDICTIONS",
    "MAX_ORDER",
    "Adams",
    "AdamsTime",
    "AnyRule",
    "Bidirectional",
    "Clock",
    "Derivative",
    "EmsNodes",
    "EmsStatistics",
    "ErSde",
    "Free",
    "Index",
    "Level",
    "Limits",
    "Momentum",
    "MomentumKind",
    "MultistepRule",
    "NoiseFunction",
    "NoiseKind",
    "NoisePath",
    "Number",
    "NumberArray",
    "Objection",
    "Point",
    "Prediction",
    "Range",
    "Relaxation",
    "RelaxationKind",
    "RuleModel",
    "Scale",
    "SdeTaylor",
    "SearchedRule",
    "Slope",
    "SlopeTerm",
    "StepNoise",
    "StochasticAdams",
    "Taylor",
    "TaylorForm",
    "UniPC",
    "Variant",
    "Velocity",
    "clock_of",
    "families",
    "level",
    "number_array",
    "refuse_pure_noise",
    "register",
    "registered",
    "rules",
    "solvers",
]
