"""A search space as a file says it: which schedules a search may propose, and how far one
mutation goes.

The choices are those of USF / S3 (arXiv:2312.07243, sec. 3), with the end of the trajectory added:
the level at which it stops, and whether the last step returns the network's clean estimate.  What
of them exists for a process and a model is the question of `s3search.search.space.problem`.

Times are searched in lam = log(alpha / sigma).  The first time is always the process's noisy end.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from s3search.errors import nearest
from s3search.rules import (
    LINEAR_PREDICTIONS,
    Prediction,
    Range,
    RelaxationKind,
    Taylor,
    families,
    solvers,
)
from s3search.rules.reverse_sde import ReverseSdeRule
from s3search.schedules.schedule import CorrectorKind, StartKind
from s3search.schedules.spacing import EndRule
from s3search.search.space.choices import (
    CompensationName,
    CorrectorChoice,
    FamilyName,
    ListedSolverName,
    RelaxationChoice,
    SolverName,
)
from s3search.search.space.noise_ranges import NoiseRanges, without_unused

_RANGES = ("beta", "gamma", "dc_ratio", "dualfast_coefficient")  # that are fields of their own


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Rate = Annotated[float, Field(ge=0)]


class MutationRates(_Table):
    """How often a mutation changes what, relative to each other; a rate of 0 switches it off."""

    times: Rate = 4.0  # move one inner time, all of them, or bend the spacing
    end: Rate = 1.0  # the end level
    move: Rate = 0.5  # remove one time and insert another elsewhere
    prediction: Rate = 1.0  # noise or data at one step
    order: Rate = 1.5  # the order of one step
    relaxation: Rate = 1.5  # kind or coefficient at one step
    estimation: Rate = 0.5  # how many points estimate one first derivative
    corrector: Rate = 1.0  # the corrector of one step
    solver: Rate = 1.5  # the solver family of one step, or its beta or gamma
    start_point: Rate = 0.5  # the point that one step starts from
    compensation: Rate = 1.0  # of one step
    network_time: Rate = 1.0  # what the network is told at one point
    jump: Rate = 0.5  # to jump or not, and where to
    start: Rate = 0.5  # network or analytic first prediction
    end_rule: Rate = 0.5  # stop or denoise
    noise: Rate = 1.0  # the noise of one step, at times of all


def plain_families() -> tuple[str, ...]:
    """All but those of rules with noise of their own, which are of the space's noise."""
    return tuple(name for name in families() if name != ReverseSdeRule.family)


CHOICES = (
    "nfe",
    "predictions",
    "orders",
    "low_order_estimates",
    "relaxations",
    "correctors",
    "starts",
    "end_rules",
    "families",
    "solvers",
    "start_points",
    "compensations",
)
"""The fields of a `SpaceConfig` that list what may be chosen, each choice once."""


class SpaceConfig(_Table):
    """The table ``[space]``; every field is described for users in ``search_spaces/README.md``."""

    nfe: tuple[Annotated[int, Field(ge=1)], ...] = ()  # network calls per image; empty: any
    # where the winner is to run; None: in the model's own pipeline, if it is of diffusers
    target: str | None = None
    solver: ListedSolverName | None = None  # of the target "sigmas"; None: any of the program's
    data_bound: bool = False  # starts at the mean image of the data
    predictions: tuple[Prediction, ...] = Field(default=LINEAR_PREDICTIONS, min_length=1)
    orders: tuple[Annotated[int, Field(ge=1, le=4)], ...] = Field(default=(1, 2, 3), min_length=1)
    # a first derivative may also be estimated from this many points, fewer than its order's own
    low_order_estimates: tuple[Annotated[int, Field(ge=1, le=2)], ...] = (1, 2)
    relaxations: tuple[RelaxationChoice, ...] = Field(
        default=(None, RelaxationKind.LINEAR), min_length=1
    )
    coefficient_sigma: float = Field(default=0.1, gt=0)  # one random-walk step of a coefficient
    coefficient_limit: float = Field(default=1.0, gt=0)  # |c| for linear, |c - 1| for scale
    correctors: tuple[CorrectorChoice, ...] = Field(
        default=(None, CorrectorKind.PSEUDO), min_length=1
    )
    starts: tuple[StartKind, ...] = Field(default=(StartKind.NETWORK,), min_length=1)
    end_rules: tuple[EndRule, ...] = Field(default=tuple(EndRule), min_length=1)
    end_sigma: Range = (0.002, 0.1)  # range of sigma / alpha at the end level
    # published steps that children may inherit
    families: tuple[FamilyName, ...] = Field(default_factory=plain_families)
    solvers: tuple[SolverName, ...] = (Taylor.solver,)  # what is drawn and mutated into
    beta: Range = (0.3, 1.0)  # range of momentum's beta
    gamma: Range = (0.0, 1.0)  # range of BDIA's gamma
    ranges: Mapping[str, Range] = {}  # of other numbers of solvers, where not their own
    # points that a step may start from; -2 and -3 make singlestep solvers' steps
    start_points: tuple[Annotated[int, Field(ge=-3, le=-1)], ...] = (-1,)
    compensations: tuple[CompensationName, ...] = ()
    dc_ratio: Range = (0.5, 1.5)  # range of DC-Solver's ratio
    dualfast_coefficient: Range = (0.0, 0.5)  # range of DualFast's c
    noise: NoiseRanges = NoiseRanges()  # that steps may add
    network_shift: float = Field(default=0.0, ge=0)  # largest |lam(network time) - lam(t)|
    # range of sigma / alpha at which a Gaussian jump may land; no range: no jumps
    jump_sigma: Range | None = None
    jump_modes: int = Field(default=8, ge=0)  # directions that a jump tells apart
    # range of a call's guidance scale; no range: guidance is the model's, as its table says
    guidance: Range | None = None
    # most that a schedule may cost, in NFE-equivalents; blocks are left out to stay within it
    cost: float | None = Field(default=None, gt=0)
    time_sigma: float = Field(default=0.3, gt=0)  # size of one move of a time, in lam
    min_gap: float = Field(default=0.05, gt=0)  # least distance of neighbouring times, in lam
    changes: int = Field(default=3, ge=1)  # a mutation changes 1 to this many places
    mutation: MutationRates = MutationRates()

    @field_validator(*CHOICES)
    @classmethod
    def _names_each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            words = ["none" if value is None else str(value) for value in values]
            raise ValueError(f"names one choice twice: {', '.join(words)}")
        return values

    @field_validator("predictions")
    @classmethod
    def _beside_v3(cls, predictions: tuple[Prediction, ...]) -> tuple[Prediction, ...]:
        if set(predictions) == {Prediction.V3}:
            raise ValueError(
                "'v3' is not possible at every step; name 'data' or 'noise' beside it"
            )
        return predictions

    @field_validator("start_points")
    @classmethod
    def _with_the_newest(cls, points: tuple[int, ...]) -> tuple[int, ...]:
        if -1 not in points:
            raise ValueError("must have -1, the start wherever no older point is possible")
        return points

    @field_validator("solvers")
    @classmethod
    def _with_taylor(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if Taylor.solver not in names:
            raise ValueError("must have 'taylor', the step wherever no other is possible")
        return names

    @model_validator(mode="after")
    def _parameters_in_order(self) -> Self:
        for name, (low, high) in {"beta": self.beta, "gamma": self.gamma}.items():
            if not 0 <= low <= high <= 1 or (name == "beta" and low == 0):
                least = "0 <" if name == "beta" else "0 <="
                raise ValueError(f"{name}: need {least} low <= high <= 1, found [{low}, {high}]")
        if self.guidance is not None and not 1 <= self.guidance[0] <= self.guidance[1]:
            raise ValueError(f"guidance: need 1 <= low <= high, found {list(self.guidance)}")
        numbers = _own_ranges().keys() - set(_RANGES)
        for name in self.ranges:
            if name not in numbers:
                raise ValueError(f"ranges: no solver has {name!r}; {nearest(name, numbers)}")
        for name, (low, high) in {
            "dc_ratio": self.dc_ratio,
            "dualfast_coefficient": self.dualfast_coefficient,
            **{f"ranges.{name}": own for name, own in self.ranges.items()},
        }.items():
            if not low <= high:
                raise ValueError(f"{name}: need low <= high, found [{low}, {high}]")
        return self

    @model_validator(mode="after")
    def _ends_in_order(self) -> Self:
        low, high = self.end_sigma
        if not 0 < low <= high:
            raise ValueError(f"end_sigma: need 0 < low <= high, found [{low}, {high}]")
        if self.jump_sigma is not None:
            least, most = self.jump_sigma
            if not 2 * high <= least <= most:
                raise ValueError(
                    f"jump_sigma: need twice end_sigma's {high} <= low <= high, found "
                    f"[{least}, {most}]"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_unused_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(dump(self), MutationRates.model_fields["noise"].default)

    @property
    def parameter_ranges(self) -> dict[str, Range]:
        """The range of every number that rules and compensations have, by name."""
        return _own_ranges() | dict(self.ranges) | {name: getattr(self, name) for name in _RANGES}


def _own_ranges() -> dict[str, Range]:
    """Of the numbers of all solvers, by name."""
    return {name: own for rule in solvers().values() for name, own in rule.ranges.items()}
