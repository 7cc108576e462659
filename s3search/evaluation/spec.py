"""What a worker needs to build an `s3search.evaluation.evaluator.Evaluator`, and what it loads."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from s3search.errors import IncompatibleStatistics, InvalidConfig
from s3search.evaluation.fingerprints import DIGITS, add_weights
from s3search.evaluation.live import LIVE, LiveObjects, placed
from s3search.evaluation.plugins import MODELS, call_plugin, importable_from
from s3search.models.statistics import GaussianStatistics
from s3search.processes import NOISE_PROCESSES
from s3search.rules import EmsStatistics
from s3search.search.direction import Direction
from s3search.solvers.shapes import checked_shape

Precision = Literal["float32", "bfloat16"]
PRECISIONS: Mapping[Precision, torch.dtype | None] = {
    "float32": None,  # whatever the model's own dtype is
    "bfloat16": torch.bfloat16,
}


Target = Literal["fine", "given"]
"""What images are compared with one by one: a fine solve of the same noises, or what the model's
condition hands over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """Which metric, and of what: an extractor whose features have a distance to those of real
    images, or a score of single images.
    """

    name: str  # of the extractor, or of the score
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "frechet"
    direction: Direction = Direction.MINIMIZE
    target: Target | None = None
    frames: str | None = None  # "mean": a function of the user's sees the frames of videos
    where: str = "metric"  # the table of the study file

    @property
    def is_score(self) -> bool:
        """Whether single images have a number."""
        return self.kind == "score"

    @property
    def key(self) -> str:
        """The key of the study file that names it."""
        return f"{self.where}.{'score' if self.is_score else 'features'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorSpec:
    """Everything a worker needs to build an `Evaluator`: plain data and, where a study searches
    objects of the program, these.
    """

    model: str
    model_options: Mapping[str, Any] = field(default_factory=dict)
    metric: MetricSpec
    reference: str | None = None  # no distance can do without
    reference_options: Mapping[str, Any] = field(default_factory=dict)
    second: MetricSpec | None = None  # a second metric, for validation alone
    guards: tuple[MetricSpec, ...] = ()  # what may not get worse
    ems: str | None = None  # files that `s3search tools statistics` wrote
    gaussian: str | None = None
    device: str = "cpu"  # "auto": a GPU if torch sees one
    batch_size: int | None = None
    precision: Precision = "float32"
    import_from: tuple[str, ...] = field(default=(), compare=False)  # folders of modules
    live: LiveObjects = field(default_factory=LiveObjects, compare=False)


def device_of_spec(spec: EvaluatorSpec) -> torch.device:
    """Where a worker computes; raises `InvalidConfig` for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if spec.device.startswith("cuda") and not has_gpu:
        raise InvalidConfig("a GPU was asked for (cluster.gpus_per_worker > 0), torch sees none")
    if spec.device == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    return torch.device(spec.device)


def load_model(spec: EvaluatorSpec) -> Any:
    """The denoiser where its loader leaves it; raises `InvalidConfig` for anything else.

    From here on all that the study names can be imported.
    """
    metrics = [own for own in (spec.metric, spec.second, *spec.guards) if own is not None]
    named = [spec.model, spec.reference or "", *(own.name for own in metrics)]
    importable_from(spec.import_from, named)
    model = call_plugin("model.loader", spec.model, spec.model_options, MODELS, spec.live.model)
    for attribute in ("process", "sample_shape"):
        if not hasattr(model, attribute):
            raise InvalidConfig(
                f"model.loader: {spec.model!r} returned a {type(model).__name__} without "
                f"{attribute!r}; a denoiser has 'process' and 'sample_shape'"
            )
    for is_so, what, found in (
        (callable(model), "that is no callable D(x, t)", type(model).__name__),
        (isinstance(model.process, NOISE_PROCESSES), "of an unknown process", model.process),
    ):
        if not is_so:
            raise InvalidConfig(
                f"model.loader: {spec.model!r} returned a denoiser {what}: {found!r}; it has a "
                "process of s3search.processes"
            )
    checked_shape(model.sample_shape, f"model.loader: sample_shape of {spec.model!r}")
    return model


def placed_model(model: Any, device: torch.device, *, is_live: bool) -> Any:
    """The denoiser on the worker's device; one that is no module stays where it is."""
    if is_live:
        return placed(model, device)
    return model.to(device) if isinstance(model, torch.nn.Module) else model


def load_ems(path: str | Path, shape: tuple[int, ...] | None = None) -> EmsStatistics:
    """The EMS in a file, for images of ``shape`` if it is given; raises
    `InvalidConfig`.
    """
    try:
        found = EmsStatistics.load(path)
    except IncompatibleStatistics as error:
        raise InvalidConfig(f"statistics.ems: {error}") from error
    if shape is not None and not found.fits(shape):
        raise InvalidConfig(
            f"statistics.ems: {path} is for images of shape {found.shape}, the model makes {shape}"
        )
    return found


def load_gaussian(path: str | Path, shape: tuple[int, ...] | None = None) -> GaussianStatistics:
    """The Gaussian in a file, for images of ``shape`` if it is given; raises
    `InvalidConfig`.
    """
    try:
        found = GaussianStatistics.load(path)
    except IncompatibleStatistics as error:
        raise InvalidConfig(f"statistics.gaussian: {error}") from error
    if shape is not None and found.mean.shape != shape:
        raise InvalidConfig(
            f"statistics.gaussian: {path} is for images of shape {found.mean.shape}, the model "
            f"makes {shape}"
        )
    return found


def fingerprint(spec: EvaluatorSpec, denoiser: Any) -> str:
    """Hash of the model's options, its precision and, where it has any, parameters; 16 hexadecimal
    digits.  A live model was hashed by the program that had it.
    """
    if spec.model == LIVE and spec.precision == "float32":
        return str(spec.model_options["fingerprint"])
    digest = hashlib.sha256(f"{spec.model}{sorted(spec.model_options.items())}".encode())
    if spec.precision != "float32":
        digest.update(spec.precision.encode())
    if isinstance(denoiser, torch.nn.Module):
        add_weights(digest, denoiser)
    return digest.hexdigest()[:DIGITS]
