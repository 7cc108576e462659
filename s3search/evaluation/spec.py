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

Precision = Literal["float32", "bfloat16"]
PRECISIONS: Mapping[Precision, torch.dtype | None] = {
    "float32": None,  # whatever the model's own dtype is
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorSpec:
    """Everything a worker needs to build an `Evaluator`: plain data and, where a study searches
    objects of the program, these.
    """

    model: str
    model_options: Mapping[str, Any] = field(default_factory=dict)
    features: str
    features_options: Mapping[str, Any] = field(default_factory=dict)
    reference: str
    reference_options: Mapping[str, Any] = field(default_factory=dict)
    second_features: str | None = None  # a second extractor, for validation alone
    second_options: Mapping[str, Any] = field(default_factory=dict)
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
    named = (spec.model, spec.features, spec.reference, spec.second_features or "")
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
        (len(tuple(model.sample_shape)) == 3, "without (C, H, W)", model.sample_shape),
    ):
        if not is_so:
            raise InvalidConfig(
                f"model.loader: {spec.model!r} returned a denoiser {what}: {found!r}; it has a "
                "process of s3search.processes and sample_shape = (C, H, W)"
            )
    return model


def placed_model(model: Any, device: torch.device, *, is_live: bool) -> Any:
    """The denoiser on the worker's device; one that is no module stays where it is."""
    if is_live:
        return placed(model, device)
    return model.to(device) if isinstance(model, torch.nn.Module) else model


def load_ems(path: str | Path, shape: tuple[int, ...] | None = None) -> EmsStatistics:
    """The EMS in a file, for images of ``shape`` (C, H, W) if it is given; raises
    `InvalidConfig`.
    """
    try:
        found = EmsStatistics.load(path)
    except IncompatibleStatistics as error:
        raise InvalidConfig(f"statistics.ems: {error}") from error
    if shape is not None and found.shape not in ((1, 1, 1), shape):
        raise InvalidConfig(
            f"statistics.ems: {path} is for images of shape {found.shape}, the model makes {shape}"
        )
    return found


def load_gaussian(path: str | Path, shape: tuple[int, ...] | None = None) -> GaussianStatistics:
    """The Gaussian in a file, for images of ``shape`` (C, H, W) if it is given; raises
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
