"""Decision files of USF / S3 (arXiv:2312.07243): a dict of lists, saved with torch.

Every decision maps onto a field of ours one to one; the names in the file are those of the paper:

    timesteps            times, continuous t in (0, 1] for VP, sigma for EDM
    orders, start_points, derivative_types, prediction_types      the predictor of each step
    corrector_types      no_corrector, pseudo, implicit, each with its own recipe
    afs                  where the first prediction comes from
    skip_coefficients    factors on the U-Net's skip connections, a change of the model

The published code differs from that in three places, which `compat` reproduces:

    implicit corrector   never evaluates again: it is the pseudo one
    zero_x0, VP          every prediction at the first point follows from eps = x, not from D = 0
    zero_x0, EDM         its data predictions there are -79 x; no first prediction does that, so
                         a file whose steps use one is refused
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.files import arrays_in
from s3search.formats.importers.request import Request, required, time_of_fraction
from s3search.formats.importers.tensors import load_tensors
from s3search.processes import Edm, NoiseProcess
from s3search.rules import (
    Derivative,
    EmsStatistics,
    Prediction,
    Relaxation,
    RelaxationKind,
    Taylor,
)
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    ModelPatch,
    Schedule,
    Start,
    StartKind,
    StatisticsReference,
    Step,
    needs_ems,
)

_MOST_PIXELS = 2**24  # of a mean image, its channels counted

_PREDICTIONS = {
    "noise_prediction": Prediction.NOISE,
    "data_prediction": Prediction.DATA,
    "dpmsolver_v3_prediction": Prediction.V3,
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Derivative(_Strict):
    estimate: str
    active_points: tuple[int, ...] = Field(min_length=1)
    relaxation: str | None = None
    relaxation_coefficient: float | None = None


class _Corrector(_Strict):
    type: Literal["no_corrector", "pseudo", "implicit"]
    start_point: int | None = None
    taylor_order: int | None = None
    derivative_type: tuple[_Derivative, ...] | None = None


class _Decisions(_Strict):
    timesteps: tuple[float, ...] = Field(min_length=2)
    orders: tuple[int, ...]
    prediction_types: tuple[
        Literal["noise_prediction", "data_prediction", "dpmsolver_v3_prediction"], ...
    ]
    start_points: tuple[int, ...]
    derivative_types: tuple[tuple[_Derivative, ...], ...]
    corrector_types: tuple[_Corrector, ...]
    afs: Literal["no_afs", "zero_x0", "average_x0"] = "no_afs"
    skip_coefficients: tuple[float, ...] | None = None


def read(request: Request) -> Schedule:
    """The schedule of a decision file; a score saved beside the decisions goes to the
    provenance.
    """
    found = _plain(load_tensors(request.source))
    score = None
    if isinstance(found, list) and len(found) == 2:
        found, score = found
    try:
        schedule = schedule_of(
            found,
            required(request, "process"),
            compat=bool(request.compat),
            mean_image=request.mean_image,
            ems=None if request.ems is None else EmsStatistics.load(request.ems),
        )
    except (InvalidConfig, InvalidSchedule) as error:
        raise type(error)(f"{request.source}: {error}") from error
    if isinstance(score, int | float):
        return schedule.model_copy(
            update={"provenance": {**schedule.provenance, "score": float(score)}}
        )
    return schedule


def schedule_of(
    decisions: Any,
    process: NoiseProcess,
    *,
    compat: bool = False,
    mean_image: Path | None = None,
    ems: EmsStatistics | None = None,
) -> Schedule:
    """The schedule that a dict of decisions describes for a model with this process.

    ``ems`` are the statistics of the model that the file was searched on, which v3 steps need.
    """
    found = _parsed(decisions)
    n = len(found.timesteps) - 1
    lists = ("orders", "prediction_types", "start_points", "derivative_types", "corrector_types")
    for name in lists:
        length = len(getattr(found, name))
        if length != n:
            raise InvalidSchedule(f"{name}: {n + 1} timesteps need {n} entries, found {length}")
    if compat:
        _check_first_point(found, process)
    steps = [_step(found, i, compat=compat) for i in range(n)]
    return Schedule(
        process=process,
        times=[time_of_fraction(process, t) for t in found.timesteps],
        steps=steps,
        start=_start(found.afs, process, compat=compat, mean_image=mean_image),
        model_patch=_patch(found.skip_coefficients),
        statistics=_reference(steps, ems),
        provenance={"compat": compat},
    )


def _parsed(decisions: Any) -> _Decisions:
    try:
        return _Decisions.model_validate(decisions)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise InvalidConfig(f"{path or 'file'}: {first['msg']}; not USF's decisions") from error


def _step(found: _Decisions, i: int, *, compat: bool) -> Step:
    prediction = _PREDICTIONS[found.prediction_types[i]]
    rule = _taylor(
        prediction, found.orders[i], found.start_points[i], found.derivative_types[i], i
    )
    entry = found.corrector_types[i]
    if entry.type == "no_corrector":
        return Step(predictor=rule)
    if entry.taylor_order is None or entry.start_point is None or entry.derivative_type is None:
        raise InvalidSchedule(f"corrector_types.{i}: {entry.type!r} needs its order and points")
    kind = CorrectorKind.PSEUDO if compat else CorrectorKind(entry.type)
    own = _taylor(prediction, entry.taylor_order, entry.start_point, entry.derivative_type, i)
    return Step(predictor=rule, corrector=Corrector(kind=kind, rule=own))


def _reference(steps: Sequence[Step], ems: EmsStatistics | None) -> StatisticsReference | None:
    if needs_ems(steps) is None:
        return None
    if ems is None:
        raise InvalidConfig(
            "prediction_types: v3 steps need the EMS statistics of the model; measure them with "
            "`s3search tools statistics ems` and give the file with --ems"
        )
    return StatisticsReference(digest=ems.digest)


def _taylor(
    prediction: Prediction, order: int, start: int, entries: Sequence[_Derivative], i: int
) -> Taylor:
    derivatives = []
    for number, entry in enumerate(entries):
        if entry.estimate != f"Difference_{len(entry.active_points)}":
            raise InvalidSchedule(
                f"derivative_types.{i}: {entry.estimate} with active points "
                f"{list(entry.active_points)}; Difference_m goes with m points"
            )
        # NOTE: whatever a file says of the others, the published code relaxes the first
        # derivative only.
        relaxation = _relaxation(entry, i) if number == 0 else None
        derivatives.append(Derivative(points=entry.active_points, relaxation=relaxation))
    try:
        return Taylor(
            prediction=prediction, order=order, start=start, derivatives=tuple(derivatives)
        )
    except ValidationError as error:
        raise InvalidSchedule(f"orders.{i}: {error.errors()[0]['msg']}") from error


def _relaxation(entry: _Derivative, i: int) -> Relaxation | None:
    if entry.relaxation is None:
        return None
    try:
        kind = RelaxationKind(entry.relaxation)
    except ValueError as error:
        raise InvalidSchedule(
            f"derivative_types.{i}: relaxation {entry.relaxation!r} is not known"
        ) from error
    if kind is not RelaxationKind.LINEAR:
        return Relaxation(kind=kind)
    return Relaxation(kind=kind, coefficient=entry.relaxation_coefficient or 0.0)


def _start(afs: str, process: NoiseProcess, *, compat: bool, mean_image: Path | None) -> Start:
    if afs == "no_afs":
        return Start()
    if afs == "zero_x0":
        is_edm = isinstance(process, Edm)
        return Start(kind=StartKind.UNIT_NOISE if compat and not is_edm else StartKind.ZERO_X0)
    if mean_image is None:
        raise InvalidConfig(
            "afs: average_x0 starts from the mean image of the training data, which the file does "
            "not hold; give it with --mean-image FILE.npy"
        )
    return Start(kind=StartKind.AVERAGE_X0, image=_image(mean_image))


def _image(path: Path) -> Any:
    """The (C, H, W) array of an .npy, or of an .npz with one; leading axes of 1 are dropped."""
    try:
        found = arrays_in(path)
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"--mean-image: {path} cannot be read ({error})") from error
    if len(found) != 1:
        raise InvalidConfig(f"--mean-image: {path} holds {[*found]}, expected one array")
    [image] = found.values()
    if image.dtype.kind not in "fiu" or image.size > _MOST_PIXELS:
        raise InvalidConfig(
            f"--mean-image: {path} holds {image.dtype} {image.shape}, expected the numbers of one "
            "image"
        )
    image = image.astype(np.float64)
    while image.ndim > 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3:
        raise InvalidConfig(f"--mean-image: expected shape (C, H, W), found {image.shape}")
    return image.tolist()


def _patch(skips: Sequence[float] | None) -> ModelPatch | None:
    if skips is None or all(factor == 1.0 for factor in skips):
        return None
    return ModelPatch(skip_scale=tuple(skips))


def _check_first_point(found: _Decisions, process: NoiseProcess) -> None:
    """Refuses what the published code does with zero_x0 in EDM, where it cannot be expressed."""
    if found.afs != "zero_x0" or not isinstance(process, Edm):
        return
    for i, prediction in enumerate(found.prediction_types):
        corrector = found.corrector_types[i]
        used = {i + 1 + p for p in _points(found.start_points[i], found.derivative_types[i])}
        if corrector.start_point is not None and corrector.derivative_type is not None:
            used |= {i + 2 + p for p in _points(corrector.start_point, corrector.derivative_type)}
        if prediction != "noise_prediction" and 0 in used:
            raise InvalidSchedule(
                f"afs: with zero_x0 the published EDM code gives step {i} a {prediction} of "
                "-79 x at the first point, which no schedule expresses; import without --compat "
                "for the rule it meant"
            )


def _points(start: int, derivatives: Sequence[_Derivative]) -> list[int]:
    return [start, *(p for entry in derivatives for p in entry.active_points)]


def _plain(value: Any) -> Any:
    """Tensors and numpy scalars as lists and numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
