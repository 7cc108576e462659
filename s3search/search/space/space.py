"""The search space: which schedules a search may propose, and how far one mutation goes.

The choices are those of USF / S3 (arXiv:2312.07243, sec. 3), with the end of the trajectory added:
the level at which it stops, and whether the last step returns the network's clean estimate.  A
space is a TOML table; presets stand in ``search_spaces/``.

Times are searched in lam = log(alpha / sigma).  The first time is always the process's noisy end.
"""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from s3search.errors import InvalidConfig, nearest
from s3search.models.statistics import GaussianStatistics
from s3search.processes import Edm, NoiseProcess, VpDiscrete
from s3search.rules import (
    LINEAR_PREDICTIONS,
    EmsNodes,
    Limits,
    Prediction,
    Range,
    RelaxationKind,
    SearchedRule,
    Taylor,
    families,
    solvers,
)
from s3search.schedules.jump import GaussianJump
from s3search.schedules.layers import Layers
from s3search.schedules.schedule import CorrectorKind, StartKind
from s3search.schedules.spacing import EndRule
from s3search.search.space.choices import (
    CompensationName,
    CorrectorChoice,
    FamilyName,
    RelaxationChoice,
    SolverName,
)

_RANGES = ("beta", "gamma", "dc_ratio", "dualfast_coefficient")  # that are fields of their own

MeanImage = tuple[tuple[tuple[float, ...], ...], ...]


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


class SearchSpace(_Table):
    """One space; every field is described for users in ``search_spaces/README.md``."""

    nfe: tuple[Annotated[int, Field(ge=1)], ...] = ()  # network calls per image; empty: any
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
    families: tuple[FamilyName, ...] = Field(default_factory=families)
    solvers: tuple[SolverName, ...] = (Taylor.solver,)  # what is drawn and mutated into
    beta: Range = (0.3, 1.0)  # range of momentum's beta
    gamma: Range = (0.0, 1.0)  # range of BDIA's gamma
    ranges: Mapping[str, Range] = {}  # of other numbers of solvers, where not their own
    # points that a step may start from; -2 and -3 make singlestep solvers' steps
    start_points: tuple[Annotated[int, Field(ge=-3, le=-1)], ...] = (-1,)
    compensations: tuple[CompensationName, ...] = ()
    dc_ratio: Range = (0.5, 1.5)  # range of DC-Solver's ratio
    dualfast_coefficient: Range = (0.0, 0.5)  # range of DualFast's c
    network_shift: float = Field(default=0.0, ge=0)  # largest |lam(told) - lam(t)|
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
    # of `average_x0` starts: handed in by the caller (`with_mean_image`), never from a file
    mean_image: MeanImage | None = None
    # of v3 steps: handed in likewise (`with_ems`)
    ems: EmsNodes | None = None
    # the jump from the noisy end: handed in likewise (`with_gaussian`)
    jump: GaussianJump | None = None
    # the network's blocks, and what they cost: handed in likewise (`with_layers`)
    layers: Layers | None = None

    @field_validator(
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

    def with_mean_image(self, image: Any) -> Self:
        """This space with the mean image of the data, nested lists or an array (C, H, W)."""
        nested = tuple(tuple(tuple(map(float, row)) for row in plane) for plane in image)
        return self.model_copy(update={"mean_image": nested})

    def with_ems(self, nodes: EmsNodes) -> Self:
        """This space with the EMS statistics that its v3 steps are computed with."""
        return self.model_copy(update={"ems": nodes})

    def with_gaussian(self, statistics: GaussianStatistics, process: NoiseProcess) -> Self:
        """This space with the Gaussian that its jumps are made with."""
        jump = statistics.jump(process.time_range[1], self.jump_modes)
        return self.model_copy(update={"jump": jump})

    def with_layers(self, layers: Layers) -> Self:
        """This space with the blocks that calls may leave out."""
        return self.model_copy(update={"layers": layers})

    def jump_lams(self, process: NoiseProcess) -> Range | None:
        """Lowest and highest lam at which a jump may land, None where there are no jumps."""
        if self.jump is None or self.jump_sigma is None or StartKind.NETWORK not in self.starts:
            return None
        low, high = (-math.log(sigma) for sigma in reversed(self.jump_sigma))
        low = max(low, process.lam(self.jump.from_time) + self.min_gap)
        end, _ = self.end_lams(process, called=True)
        return (low, high) if low <= high < end else None

    @property
    def usable_predictions(self) -> tuple[Prediction, ...]:
        """The predictions that exist here: `v3` needs statistics."""
        if self.ems is not None:
            return self.predictions
        return tuple(p for p in self.predictions if p in LINEAR_PREDICTIONS)

    def starts_for(self, process: NoiseProcess, first_time: float) -> tuple[StartKind, ...]:
        """The starts that exist here: `average_x0` needs a mean image, `unit_noise` a signal."""
        possible = tuple(
            kind for kind in self.starts if self._has_start(kind, process, first_time)
        )
        return possible or (StartKind.NETWORK,)

    def _has_start(self, kind: StartKind, process: NoiseProcess, first_time: float) -> bool:
        if kind is StartKind.AVERAGE_X0:
            return self.mean_image is not None
        return kind is not StartKind.UNIT_NOISE or process.alpha(first_time) > 0.0

    def solvers_for(self, process: NoiseProcess) -> tuple[type[SearchedRule], ...]:
        """The rules that are drawn here: `velocity` belongs to flows."""
        known = solvers()
        return tuple(known[name] for name in self.solvers if known[name].exists_for(process))

    def limits(self, process: NoiseProcess) -> Limits:
        """What the rules must keep to."""
        ranges = _own_ranges() | dict(self.ranges)
        ranges |= {name: getattr(self, name) for name in _RANGES}
        return Limits(
            process=process,
            highest_order=max(self.orders),
            predictions=self.predictions,
            ranges=ranges,
        )

    def end_lams(self, process: NoiseProcess, *, called: bool) -> Range:
        """Lowest and highest lam of the end level; ``called`` if the network is called there."""
        low, high = (-math.log(sigma) for sigma in reversed(self.end_sigma))
        if called:
            high = min(high, highest_called_lam(process))
        return min(low, high), high


def _own_ranges() -> dict[str, Range]:
    """Of the numbers of all solvers, by name."""
    return {name: own for rule in solvers().values() for name, own in rule.ranges.items()}


def highest_called_lam(process: NoiseProcess) -> float:
    """The cleanest level that the network was trained on, as far as the process tells."""
    match process:
        case Edm():
            return process.lam(process.sigma_min)
        case VpDiscrete():
            return process.lam(0.0)
        case _:
            return math.inf


def load_space(
    name_or_path: str | Path, overrides: Mapping[str, Any] | None = None
) -> SearchSpace:
    """The space of a preset's name or a TOML file, with some of its fields replaced.

    >>> load_space("usf", {"nfe": [5], "mutation": {"start": 0}})
    """
    path = _preset_path(name_or_path)
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"{path}: cannot be read as TOML ({error})") from error
    space = parse_space(fields, source=path.name)
    return parse_space(_merged(fields, overrides)) if overrides else space


def parse_space(fields: Mapping[str, Any], source: str = "space") -> SearchSpace:
    """The space that a parsed TOML table describes; errors give the path inside ``source``."""
    try:
        return SearchSpace.model_validate(dict(fields))
    except ValidationError as error:
        raise InvalidConfig(_first_problem(error, source)) from error


def preset_names() -> tuple[str, ...]:
    """Names of the presets that were installed with the package."""
    folder = preset_folder()
    return tuple(sorted(path.stem for path in folder.glob("*.toml"))) if folder else ()


def preset_folder() -> Path | None:
    """Where the presets were installed; None where they were not."""
    package = Path(__file__).resolve().parents[2]
    folders = (package / "search_spaces", package.parent / "search_spaces")  # wheel, checkout
    return next((folder for folder in folders if folder.is_dir()), None)


def _preset_path(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    folder = preset_folder()
    if folder is not None and text in preset_names():
        return folder / f"{text}.toml"
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.is_file():
        return path
    known = preset_names()
    listed = ", ".join(known) or "none installed"
    hint = nearest(text, known)
    suffix = f"; {hint}" if hint.startswith("did") else ""
    raise InvalidConfig(
        f"space.preset: no preset {text!r}; presets: {listed}{suffix}; "
        "a file of your own is named by its path, ending in .toml"
    )


def _merged(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with ``overrides`` laid over them, tables within tables merged likewise."""
    merged = dict(fields)
    for key, value in overrides.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type] # both are
    return merged


def _first_problem(error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    path = ".".join([source, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        inside = MutationRates if first["loc"][0] == "mutation" else SearchSpace
        return f"{path}: unknown key; {nearest(str(first['loc'][-1]), inside.model_fields)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        message += f" (found {first['input']!r})"
    return f"{path}: {message}"
