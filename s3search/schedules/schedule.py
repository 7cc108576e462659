"""A schedule: when to call the network, and what each step does with the answers.

    times    t_0 > t_1 > ... > t_n in the process's unit; n steps
    start    where the first prediction comes from: the network, or an analytic guess that saves
    one call
    steps    step i goes from t_i (or an earlier point) to t_{i+1}: a predictor rule and, if
    wanted, a corrector

A free step may stay at its level (t_{i+1} = t_i, a corrector's row) if only free steps follow: the
other rules divide by the distances of their points.  A time rises only where noise is added from a
time below both, as in a restart (`s3search.rules.noise`), or by a free step with noise.

A schedule is frozen and valid by construction: what exists can be compiled.  Sources: USF / S3
(arXiv:2312.07243); its decisions map one to one onto the fields here.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.files import text_of, write_text
from s3search.processes import NoiseProcess
from s3search.rules import (
    AnyRule,
    Free,
    Index,
    Level,
    NoiseKind,
    Number,
    NumberArray,
    StepNoise,
    level,
)
from s3search.rules.compensation import AnyCompensation
from s3search.schedules.in_words import InWords
from s3search.schedules.jump import GaussianJump

MOST_STEPS = 2000  # twice what the models with the most training steps can be sampled with
_LEAST_GAP = 1e-6  # in lam; differences of neighbours keep ten digits, and no search needs less

FORMAT = "s3search.schedule"
VERSION = 2
"""That of schedules with noise in their steps; those without are written as version 1, which every
release reads."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    _later_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that the format's first files do not have: left out where they are None, so that a
    schedule without them keeps its JSON and its id."""

    @property
    def optional_fields(self) -> tuple[str, ...]:
        """The later fields that are in use."""
        return tuple(
            name for name in sorted(self._later_fields) if getattr(self, name) is not None
        )

    @model_serializer(mode="wrap")
    def _without_unused_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = dump(self)
        for name in self._later_fields:
            if data.get(name, ...) is None:
                del data[name]
        return data


class StartKind(StrEnum):
    """Where the prediction at the first time comes from."""

    NETWORK = "network"
    ZERO_X0 = "zero_x0"  # D = 0: the noise is all there is
    UNIT_NOISE = "unit_noise"  # eps = x / sqrt(alpha^2 + sigma^2): exact for x_0 ~ N(0, I)
    AVERAGE_X0 = "average_x0"  # D = the mean image of the data


class Start(_Frozen):
    """The first prediction; all kinds but `network` save one call (USF's analytic first step).

    `unit_noise` is what USF's VP code does under the name zero_x0 (and diff-sampler's first
    slope); `zero_x0` is the clean rule. ``image`` is the mean image, nested lists of the samples'
    shape, for `average_x0`.  ``network_time`` is the time of the first network call (see `Step`).
    ``jump`` makes the state at times[0] from noise at an earlier time, in closed form.
    ``noise_scale`` is what unit noise is multiplied by to make the state at times[0], where that
    is not the noise of its level, sigma: pipelines whose first level is not the noisiest one begin
    with unit noise all the same.  ``noise`` is added to a first state that is made with less of
    it (churn at the first step).
    """

    kind: StartKind = StartKind.NETWORK
    image: NumberArray | None = None
    network_time: Number | None = None
    jump: GaussianJump | None = None
    noise_scale: Annotated[Number, Field(gt=0.0)] | None = None
    noise: StepNoise | None = None

    _later_fields: ClassVar = frozenset({"network_time", "jump", "noise_scale", "noise"})

    @model_validator(mode="after")
    def _image_fits(self) -> "Start":
        needs_image = self.kind is StartKind.AVERAGE_X0
        if needs_image != (self.image is not None):
            verb = "needs" if needs_image else "takes no"
            raise ValueError(f"start {self.kind.value!r} {verb} image")
        if self.network_time is not None and self.kind is not StartKind.NETWORK:
            raise ValueError(f"start {self.kind.value!r} makes no call that takes network_time")
        if self.noise is not None and (
            self.kind is not StartKind.NETWORK or self.jump or self.noise_scale
        ):
            raise ValueError("noise: only a start 'network' without jump and noise_scale takes it")
        if self.noise_scale is not None and self.jump is not None:
            raise ValueError("noise_scale: a jump has its own scale of noise; give one of the two")
        return self


class CorrectorKind(StrEnum):
    """What happens to the network call at the predicted state once it has corrected that state."""

    PSEUDO = "pseudo"  # it is kept: no further call
    IMPLICIT = "implicit"  # the network is called again at the corrected state


class Corrector(_Frozen):
    """Recomputes the new state with the network call made there; its rule sees that call as point
    -1.
    """

    kind: CorrectorKind = CorrectorKind.PSEUDO
    rule: AnyRule


class Step(_Frozen):
    """One step to the next time.

    ``network_time`` is the time of the network call at the new point, where it is not the point's
    own (LD3, arXiv:2405.15506; TS-DPM, arXiv:2305.15583).  ``compensation`` replaces the
    newest prediction before the predictor uses it (DC-Solver, DualFast).  ``noise`` is fresh: the
    rules go below the target, and it brings the state up (ancestral steps, DDIM's eta, LCM).
    """

    predictor: AnyRule
    corrector: Corrector | None = None
    network_time: Number | None = None
    compensation: AnyCompensation | None = None
    noise: StepNoise | None = None

    _later_fields: ClassVar = frozenset({"network_time", "compensation", "noise"})

    @property
    def is_stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.noise is not None or self.predictor.draws_noise

    @property
    def may_rise(self) -> bool:
        """Whether it may end at a time above the one where it begins."""
        if isinstance(self.predictor, Free):
            return self.predictor.draws_noise
        return self.noise is not None and self.noise.kind is NoiseKind.TIME

    def rule_target(self, process: NoiseProcess, past: Sequence[Level], to: Level) -> Level:
        """Where its rules go after points at levels ``past``: below ``to`` where noise follows."""
        if self.noise is None:
            return to
        return self.noise.below(process, self.starting_level(past), to)

    def starting_level(self, past: Sequence[Level]) -> Level:
        """That of the point it begins at; of the newest where there is no such point."""
        begins = self.predictor.begins_at
        return past[begins] if -len(past) <= begins < 0 else past[-1]

    @property
    def mixes_predictions(self) -> bool:
        """Whether the predictor or the corrector extrapolates a mixture of D and eps."""
        rules = (self.predictor, *(() if self.corrector is None else (self.corrector.rule,)))
        return any(rule.mixes_predictions for rule in rules)


def _n_before_free(steps: Sequence[Step]) -> int:
    """How many steps there are before those, up to the end, that are free and nothing else."""
    for n in range(len(steps), 0, -1):
        step = steps[n - 1]
        is_free = isinstance(step.predictor, Free)
        if not is_free or step.corrector is not None or step.compensation is not None:
            return n
    return 0


class ModelPatch(_Frozen):
    """A change of the network itself that the schedule was searched with; no scheduler can replay
    it alone.

    ``skip_scale`` multiplies the skip connections of a U-Net, one factor per link (USF).
    ``skip_layers`` lists, for the call each step starts with, the layers it leaves out
    (AutoDiffusion).  ``guidance_scale`` lists, for each network call, how far its answer is moved
    away from the one to the null condition (classifier-free guidance; 1 leaves it alone).
    """

    skip_scale: tuple[Number, ...] | None = None
    skip_layers: tuple[tuple[Annotated[Index, Field(ge=0)], ...], ...] | None = None

    guidance_scale: tuple[Annotated[Number, Field(ge=1)], ...] | None = None

    _later_fields: ClassVar = frozenset({"skip_layers", "guidance_scale"})


class StatisticsReference(_Frozen):
    """The statistics that a schedule's v3 steps are computed with: measured on one model, named by
    their digest, given to `compile_plan`.
    """

    kind: Literal["ems"] = "ems"
    digest: str = Field(pattern="^[0-9a-f]{32}$")


class Schedule(InWords, _Frozen):
    """Times and steps for one process; see the module's docstring.

    >>> schedule = Schedule.load("schedule.json")
    >>> schedule.nfe, schedule.id
    """

    process: NoiseProcess
    times: tuple[Number, ...] = Field(min_length=2, max_length=MOST_STEPS + 1)
    start: Start = Start()
    steps: tuple[Step, ...] = Field(min_length=1, max_length=MOST_STEPS)
    model_patch: ModelPatch | None = None
    statistics: StatisticsReference | None = None
    provenance: Mapping[str, Any] = Field(default_factory=dict)

    _later_fields: ClassVar = frozenset({"statistics"})

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InvalidSchedule(_first_problem(error)) from error

    @model_validator(mode="after")
    def _times_fall(self) -> "Schedule":
        if len(self.times) != len(self.steps) + 1:
            raise InvalidSchedule(
                f"times: {len(self.steps)} steps need {len(self.steps) + 1} times, "
                f"found {len(self.times)}"
            )
        first_free = _n_before_free(self.steps)
        for i, t in enumerate(self.times):
            reason = self.process.check_time(t)
            if reason is not None:
                raise InvalidSchedule(
                    f"times[{i}]: {reason}; this is a {self.process.type!r} schedule"
                )
            if self.rises_to(i):
                continue
            may_stay = i > first_free
            if i and not (t < self.times[i - 1] or (may_stay and t == self.times[i - 1])):
                raise InvalidSchedule(
                    f"times[{i}]: times must fall at every step, from the noise to the image, "
                    f"unless noise of kind 'time' raises them; found {t} after {self.times[i - 1]}"
                )
            gap = self.process.lam(t) - self.process.lam(self.times[i - 1]) if i else math.inf
            if gap < _LEAST_GAP and not may_stay:
                raise InvalidSchedule(
                    f"times[{i}]: {t} is the time before it but for rounding; "
                    f"neighbours differ by at least {_LEAST_GAP:g} in log(alpha / sigma)"
                )
            if t == self.process.clean_time and i < len(self.times) - 1:
                raise InvalidSchedule(f"times[{i}]: only the last time may be the clean end {t}")
        return self

    def rises_to(self, i: int) -> bool:
        """Whether noise raises time i: rules, but free ones, look no further back than to it."""
        return i > 0 and self.times[i] >= self.times[i - 1] and self.steps[i - 1].may_rise

    @model_validator(mode="after")
    def _steps_are_possible(self) -> "Schedule":
        levels = [level(self.process, t) for t in self.times]
        if self.start.noise is not None:
            problem = self.start.noise.problem(self.process, None, levels[0])
            if problem is not None:
                raise InvalidSchedule(f"start.noise.{problem.field}: {problem.message}")
        first = 0  # of the points that a rule may use: a rise begins them anew
        for i, step in enumerate(self.steps):
            first = i if self.rises_to(i) else first
            begins = 0 if isinstance(step.predictor, Free) else first  # it divides by no distance
            _check_step(i, step, self.process, levels[begins : i + 1], levels[i + 1])
        last = self.steps[-1].corrector
        if last is not None and last.kind is CorrectorKind.IMPLICIT:
            raise InvalidSchedule(
                f"steps[{self.n_steps - 1}].corrector.kind: nothing uses a call after the last "
                "step; make the last corrector 'pseudo' or remove it"
            )
        if self.start.kind is StartKind.UNIT_NOISE and self.process.alpha(self.times[0]) == 0:
            raise InvalidSchedule("start.kind: 'unit_noise' needs alpha > 0 at times[0]")
        return self

    @model_validator(mode="after")
    def _jump_falls(self) -> "Schedule":
        if self.start.jump is None:
            return self
        t = self.start.jump.from_time
        reason = self.process.check_time(t)
        if reason is None and not t > self.times[0]:
            reason = f"the jump must fall to times[0] = {self.times[0]}, found {t}"
        if reason is not None:
            raise InvalidSchedule(f"start.jump.from_time: {reason}")
        return self

    @model_validator(mode="after")
    def _network_times_are_possible(self) -> "Schedule":
        named = [("start", self.start.network_time)]
        named += [(f"steps[{i}]", step.network_time) for i, step in enumerate(self.steps)]
        for (owner, t), own in zip(named, self.times, strict=True):
            if t is None:
                continue
            reason = self.process.check_time(t)
            if reason is None and not math.isfinite(self.process.lam(t)):
                reason = f"{t} is pure noise or the clean end, which has no D or no eps"
            if reason is None and not self.process.alpha(own) > 0.0:
                reason = f"at pure noise (t = {own}) only the point's own time is possible"
            if reason is not None:
                raise InvalidSchedule(f"{owner}.network_time: {reason}")
        mixing = [i for i, step in enumerate(self.steps) if step.mixes_predictions]
        if mixing and self.has_network_times:
            raise InvalidSchedule(
                f"steps[{mixing[0]}]: a velocity mixes D and eps, which a network_time tells "
                "apart; remove every network_time or use a rule of one prediction"
            )
        compensated = [i for i, step in enumerate(self.steps) if step.compensation is not None]
        if compensated and self.has_network_times:
            raise InvalidSchedule(
                f"steps[{compensated[0]}].compensation: predictions at times apart from their "
                "points' cannot be mixed; remove every network_time or every compensation"
            )
        if self.steps[-1].network_time is not None and self.steps[-1].corrector is None:
            raise InvalidSchedule(
                f"steps[{len(self.steps) - 1}].network_time: the network is not called after the "
                "last step; remove it"
            )
        return self

    @model_validator(mode="after")
    def _statistics_are_named(self) -> "Schedule":
        needing = needs_ems(self.steps)
        if needing is not None and self.statistics is None:
            raise InvalidSchedule(
                f"{needing}: a v3 step needs EMS statistics and the schedule names none; set "
                'statistics to {"kind": "ems", "digest": ...}'
            )
        if needing is None and self.statistics is not None:
            raise InvalidSchedule("statistics: no step uses them; remove the key")
        return self

    @model_validator(mode="after")
    def _patch_fits(self) -> "Schedule":
        patch = self.model_patch or ModelPatch()
        layers, scales = patch.skip_layers, patch.guidance_scale
        if scales is not None and len(scales) != self.nfe:
            raise InvalidSchedule(
                f"model_patch.guidance_scale: {self.nfe} network calls need {self.nfe} scales, "
                f"found {len(scales)}"
            )
        if layers is not None and len(layers) != len(self.steps):
            raise InvalidSchedule(
                f"model_patch.skip_layers: {len(self.steps)} steps need {len(self.steps)} lists, "
                f"found {len(layers)}"
            )
        return self

    @property
    def n_steps(self) -> int:
        """Number of steps, one less than the times."""
        return len(self.steps)

    @property
    def is_stochastic(self) -> bool:
        """Whether a step draws noise."""
        return self.start.noise is not None or any(step.is_stochastic for step in self.steps)

    @property
    def has_network_times(self) -> bool:
        """Whether a call has a network time apart from the time of its state."""
        times = (self.start.network_time, *(step.network_time for step in self.steps))
        return any(t is not None for t in times)

    @property
    def nfe(self) -> int:
        """Network calls per image, as the sampling loop really makes them."""
        return n_calls(self.steps, self.start)

    @cached_property
    def id(self) -> str:
        """Hash of all that decides the images; 32 hexadecimal digits."""
        content = self.model_dump(mode="json", exclude={"provenance"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def changed(self, **fields: Any) -> "Schedule":
        """This schedule with other values for these fields, checked like any."""
        own = {name: getattr(self, name) for name in Schedule.model_fields}
        return Schedule(**{**own, **fields})

    def to_dict(self) -> dict[str, Any]:
        """The wire format, without the compiled table (see
        `s3search.formats.exporters.schedule_json`)."""
        return {
            "format": FORMAT,
            "version": VERSION if self.is_stochastic else 1,
            **self.model_dump(mode="json"),
            "nfe": self.nfe,
        }

    @staticmethod
    def from_dict(data: Any) -> "Schedule":
        """The schedule that ``data`` describes; raises `InvalidSchedule` with the path of the
        field at fault.
        """
        if not isinstance(data, dict):
            raise InvalidSchedule(f"expected a JSON object, found {type(data).__name__}")
        wire = dict(data)
        if wire.pop("format", None) != FORMAT:
            raise InvalidSchedule(f"format: expected {FORMAT!r}, found {data.get('format')!r}")
        version = wire.pop("version", None)
        if type(version) is not int or not 1 <= version <= VERSION:
            raise InvalidSchedule(
                f"version: this release reads versions 1 to {VERSION}, found {version!r}"
            )
        nfe, _table = wire.pop("nfe", None), wire.pop("plan", None)
        unknown = [key for key in wire if key not in Schedule.model_fields]
        if unknown:
            hint = nearest(unknown[0], Schedule.model_fields)
            raise InvalidSchedule(f"{unknown[0]}: unknown key; {hint}")
        schedule = Schedule(**wire)
        if version == 1 and schedule.is_stochastic:
            raise InvalidSchedule("version: noise in steps came with version 2, found 1")
        if nfe is not None and nfe != schedule.nfe:
            raise InvalidSchedule(
                f"nfe: the steps make {schedule.nfe} network calls, found {nfe!r}"
            )
        return schedule

    def save(self, path: str | Path) -> None:
        """Writes the JSON to ``path``; the file appears complete or not at all."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @staticmethod
    def load(path: str | Path) -> "Schedule":
        """Reads a schedule file; raises `InvalidSchedule` for anything but a valid one."""
        if not isinstance(path, str | Path):
            raise InvalidSchedule(
                f"a path was asked for, found {type(path).__name__}; Schedule.from_dict reads data"
            )
        try:
            text = text_of(path)
        except InvalidConfig as error:
            raise InvalidSchedule(str(error)) from error
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidSchedule(f"{path}: not valid JSON ({error})") from error
        try:
            return Schedule.from_dict(data)
        except InvalidSchedule as error:
            raise InvalidSchedule(f"{path}: {error}") from error


def _check_step(
    i: int, step: Step, process: NoiseProcess, past: Sequence[Level], to: Level
) -> None:
    """Raises `InvalidSchedule` if step i, from points at levels ``past`` to ``to``, is not
    possible.
    """
    target = to
    if step.noise is not None:
        _check_noise(i, step, process, past, to)
        target = step.rule_target(process, past, to)
    problem = step.predictor.problem(past, target)
    if problem is not None:
        raise InvalidSchedule(f"steps[{i}].predictor.{problem.field}: {problem.message}")
    if step.compensation is not None:
        problem = step.compensation.problem(past)
    if problem is not None:
        raise InvalidSchedule(f"steps[{i}].compensation.{problem.field}: {problem.message}")
    if step.corrector is None:
        return
    if target.sigma == 0.0:
        raise InvalidSchedule(
            f"steps[{i}].corrector: the network has no value at the clean end; "
            "remove the last corrector"
        )
    problem = step.corrector.rule.problem([*past, to], target)
    if problem is not None:
        raise InvalidSchedule(f"steps[{i}].corrector.rule.{problem.field}: {problem.message}")


def _check_noise(
    i: int, step: Step, process: NoiseProcess, past: Sequence[Level], to: Level
) -> None:
    """Raises `InvalidSchedule` for noise that step i, from ``past`` to ``to``, cannot add."""
    assert step.noise is not None
    rules = (step.predictor, *(() if step.corrector is None else (step.corrector.rule,)))
    if any(rule.draws_noise or rule.needs_ems or isinstance(rule, Free) for rule in rules):
        raise InvalidSchedule(
            f"steps[{i}].noise: {step.predictor.rule!r} steps have their own noise or none; "
            "remove it or take another rule"
        )
    problem = step.noise.problem(process, step.starting_level(past), to)
    if problem is not None:
        raise InvalidSchedule(f"steps[{i}].noise.{problem.field}: {problem.message}")


def has_noise_times(schedule: Schedule) -> bool:
    """Whether noise is added from a time, which must stay below the times of its step."""
    noises = (schedule.start.noise, *(step.noise for step in schedule.steps))
    return any(noise is not None and noise.kind is NoiseKind.TIME for noise in noises)


def n_calls(steps: Sequence[Step], start: Start) -> int:
    """Network calls that steps make after such a start."""
    correctors = [step.corrector for step in steps[:-1] if step.corrector is not None]
    again = sum(corrector.kind is CorrectorKind.IMPLICIT for corrector in correctors)
    is_analytic = start.kind is not StartKind.NETWORK
    return len(steps) - is_analytic + again + (steps[-1].corrector is not None)


def needs_ems(steps: Sequence[Step]) -> str | None:
    """The path of the first rule that needs EMS statistics, None if there is none."""
    for i, step in enumerate(steps):
        if step.predictor.needs_ems:
            return f"steps[{i}].predictor"
        if step.corrector is not None and step.corrector.rule.needs_ems:
            return f"steps[{i}].corrector.rule"
    return None


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the wire format."""
    schema = Schedule.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = FORMAT
    schema["properties"] = {
        "format": {"const": FORMAT},
        "version": {"enum": [*range(1, VERSION + 1)]},
        **schema["properties"],
        "nfe": {"type": "integer", "minimum": 0},
        "plan": {"type": ["object", "null"], "description": "the compiled table, optional"},
    }
    schema["required"] = ["format", "version", *schema["required"]]
    for definition in schema["$defs"].values():
        tags = [key for key, p in definition.get("properties", {}).items() if "const" in p]
        if tags:  # pydantic counts a tag with a default as optional; a reader needs it
            definition["required"] = [*tags, *definition.get("required", ())]
    return schema


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _first_problem(error: ValidationError) -> str:
    """One sentence with the path of the first field at fault."""
    first = error.errors()[0]
    inner = first.get("ctx", {}).get("error")
    path, tags = "", _tags()
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in tags:
            path += f".{part}" if path else str(part)
    if isinstance(inner, InvalidSchedule):
        return str(inner)
    message = str(inner) if inner is not None else first["msg"]
    value = first.get("input")
    if inner is None and isinstance(value, (str, int, float)):
        message += f" (found {value!r})"
    if first["type"] == "extra_forbidden":
        message = f"unknown key; {nearest(str(first['loc'][-1]), _field_names())}"
    return f"{path}: {message}" if path else message


@cache
def _definitions() -> dict[str, Any]:
    schema: dict[str, Any] = Schedule.model_json_schema()
    return {**schema["$defs"], "Schedule": schema}


def _field_names() -> set[str]:
    """Every key that occurs anywhere in the wire format."""
    return {name for d in _definitions().values() for name in d.get("properties", ())}


def _tags() -> set[str]:
    """The names that tell rules and processes apart; pydantic puts them into an error's path."""
    properties = (d.get("properties", {}) for d in _definitions().values())
    consts = (own.get(key, {}).get("const") for own in properties for key in ("rule", "type"))
    return {const for const in consts if const is not None}
