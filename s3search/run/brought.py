"""What a program brings to a search: a model, metrics and real images, or names of loaders.

Each becomes a table of the study, as its file would have it, and, unless a loader is named, the
object itself.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.errors import InvalidConfig, nearest
from s3search.evaluation.fingerprints import content_digest, fingerprint_of, label_of
from s3search.evaluation.live import LIVE
from s3search.evaluation.plugins import FEATURES, MODELS, REFERENCES, SCORES, parameters_of
from s3search.integrations.pipelines.loading import runs_of
from s3search.metrics.references import ImageSource
from s3search.metrics.references.source import check_images
from s3search.models.diffusers.loading import PIPELINES, denoiser_of, is_pipeline
from s3search.models.given import given_denoiser
from s3search.processes import NOISE_PROCESSES, NoiseProcess
from s3search.solvers.shapes import SHAPES, are_pictures, checked_shape
from s3search.study.file.metric_tables import DISTANCES

_OF_CALLS = {"call", "output_type"}  # options of a pipeline that is called as a whole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Brought:
    """A table of the study and, if it says "live", the object."""

    table: dict[str, Any]
    live: Any = None
    guards: tuple[Any, ...] = ()  # objects of a metric's guards


def options_of(model: Any) -> Sequence[str] | None:
    """Names of the options that go with a model: its loader's, or a pipeline's; None: any."""
    if isinstance(model, str):
        return parameters_of("model", model, MODELS)
    if is_pipeline(model):
        known = [inspect.signature(each).parameters for each in (denoiser_of, runs_of)]
        return list(dict.fromkeys(name for own in known for name in own if name != "pipe"))
    return []


def model_of(
    model: Any,
    process: NoiseProcess | None,
    sample_shape: Sequence[int] | None,
    options: Mapping[str, Any],
) -> Brought:
    """A denoiser, a network with its process and shape, a pipeline, or a loader's name; raises
    `InvalidConfig`.
    """
    if isinstance(model, str | Mapping) or is_pipeline(model):
        for key, value in {"process": process, "sample_shape": sample_shape}.items():
            if value is not None:
                raise InvalidConfig(f"{key}: this model brings its own; leave the keyword out")
    match model:
        case str():
            return Brought(table={"loader": model, **options})
        case Mapping():
            return Brought(table=dict(model))
        case _ if is_pipeline(model):
            return _pipeline(model, options)
    denoiser = _denoiser(model, process, sample_shape)
    known = (denoiser.process.model_dump_json(), tuple(denoiser.sample_shape))
    return _live("loader", denoiser, label_of(model), fingerprint_of(model, *known))


def metric_of(metric: Any, features: Any) -> Brought:
    """The deciding metric, and the objects of its guards: a table of the study file whose
    ``features`` and ``score`` may be callables; the kind of a distance, with ``features`` beside
    it; a score, as a callable or by name; or ``features`` alone, of a Fréchet distance.  Raises
    `InvalidConfig`.
    """
    match metric:
        case None:
            return features_of("features", features)
        case Mapping():
            own = {} if features is None else {"features": features}
            table, guards = {**own, **metric}, metric.get("guard", ())
            table.pop("guard", None)
            found = measure_of("metric", table)
            if not isinstance(guards, Sequence) or isinstance(guards, str):
                raise InvalidConfig(f"metric.guard: needs a list of tables, found {guards!r}")
            each = [measure_of(f"metric.guard[{i}]", own) for i, own in enumerate(guards)]
            return Brought(
                table={**found.table, "guard": [guard.table for guard in each]},
                live=found.live,
                guards=tuple(guard.live for guard in each),
            )
        case str() if metric in DISTANCES:
            own = {} if features is None else {"features": features}
            return measure_of("metric", {"kind": metric, **own})
    if features is not None:
        raise InvalidConfig(
            "features: a score of images has none; leave the keyword out, or name a second metric "
            "with validation_metric"
        )
    if isinstance(metric, str) or (callable(metric) and not isinstance(metric, type)):
        return measure_of("metric", {"score": metric})
    raise InvalidConfig(
        "metric: needs a score (images (B, ...), **given) -> (B,), a name "
        f"({', '.join([*DISTANCES, *SCORES])}, 'package.module:function'), or the table [metric] "
        f"of a study file as a mapping, found {_found(metric)}"
    )


def features_of(keyword: str, features: Any) -> Brought:
    """A callable from images to features, a loader's name, or a whole table; raises
    `InvalidConfig`.
    """
    if isinstance(features, Mapping):
        return measure_of(keyword, features)
    if isinstance(features, str) or (callable(features) and not isinstance(features, type)):
        return measure_of(keyword, {"features": features})
    raise InvalidConfig(
        f"{keyword}: needs a callable from images (B, ...) to features (B, d), or "
        f"a name ({', '.join(FEATURES)}, 'package.module:function'), found {_found(features)}"
    )


def measure_of(keyword: str, table: Any) -> Brought:
    """A metric's table whose ``features`` or ``score`` may be a callable."""
    if not isinstance(table, Mapping):
        raise InvalidConfig(f"{keyword}: needs a table of a study file, found {table!r}")
    for key in ("features", "score"):
        own = table.get(key)
        if callable(own) and not isinstance(own, type):
            known, digest = label_of(own), fingerprint_of(own)
            label = known if getattr(own, "name", None) == known else f"{known}-{digest[:8]}"
            found = _live(key, own, label, digest)
            natural = getattr(own, "direction", None) if key == "score" else None
            said = {} if natural is None else {"direction": natural}
            return Brought(table={**said, **table, **found.table}, live=own)
    return Brought(table=dict(table))


def reference_of(reference: Any, model: Any) -> Brought:
    """Real images as a tensor, an array or an image source, a folder of them, a file of statistics
    or a loader's name; raises `InvalidConfig`.

    ``model``, if it is live, tells how many channels the images of a folder have.
    """
    match reference:
        case str() | Path():
            return Brought(table=_named(reference, model))
        case Mapping():
            return Brought(table=dict(reference))
        case Tensor() | np.ndarray():
            images = _images(reference, model)
            table = {"images": LIVE, "object": "images", "n": len(images)}
            return Brought(table={**table, "digest": content_digest(images)}, live=images)
        case ImageSource():
            table = {"images": LIVE, "object": label_of(reference), "n": reference.n}
            digest = {} if reference.digest is None else {"digest": reference.digest}
            return Brought(table={**table, **digest}, live=reference)
    raise InvalidConfig(
        "reference: needs real images as a float tensor (N, C, H, W) in [-1, 1], or real samples "
        "of the shape that the model makes, (N, ...), a folder of "
        f"pictures, a .npz with mu and sigma, or a name ({', '.join(REFERENCES)}, "
        f"'package.module:function'), found {_found(reference)}"
    )


def _pipeline(pipe: Any, options: Mapping[str, Any]) -> Brought:
    """A pipeline in memory: by its network where that is known, as a whole where it is not or
    where its call is spoken of.
    """
    is_whole = type(pipe).__name__ not in PIPELINES or bool(_OF_CALLS & options.keys())
    try:
        denoiser = _made(pipe, runs_of if is_whole else denoiser_of, options)
    except InvalidConfig as error:  # whose words are those of a study file
        raise InvalidConfig(
            f"model: {str(error).removeprefix('path: ').removeprefix('model: ')}"
        ) from error
    known = (denoiser.process.model_dump_json(), tuple(denoiser.sample_shape))
    return _live("loader", denoiser, type(pipe).__name__, fingerprint_of(denoiser, *known))


def _made(pipe: Any, make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    known = [name for name in inspect.signature(make).parameters if name != "pipe"]
    unknown = [name for name in options if name not in known]
    if unknown:
        hint = (
            "height and width are arguments of call"
            if unknown[0] in ("height", "width")
            else (nearest(unknown[0], known))
        )
        raise InvalidConfig(
            f"{unknown[0]}: a {type(pipe).__name__} that is called as a whole takes none; {hint}"
        )
    return make(pipe, **options)


def _denoiser(model: Any, process: NoiseProcess | None, sample_shape: Sequence[int] | None) -> Any:
    """The model itself, or together with what it does not say."""
    if not callable(model) or isinstance(model, type):
        raise InvalidConfig(
            "model: needs a denoiser D(x, t) that returns the clean image, a diffusers pipeline "
            f"or a name ({', '.join(MODELS)}, 'package.module:function'), found {_found(model)}"
        )
    own_process = getattr(model, "process", None) if process is None else process
    own_shape = getattr(model, "sample_shape", None) if sample_shape is None else sample_shape
    for key, value in {"process": own_process, "sample_shape": own_shape}.items():
        if value is None:
            raise InvalidConfig(
                f"model: this {label_of(model)} has no {key!r}; give process=s3search.processes."
                "edm() (or vp_linear(), vp_cosine(), vp_discrete(), flow()) and "
                f"sample_shape, such as {SHAPES}"
            )
    if not isinstance(own_process, NOISE_PROCESSES):
        raise InvalidConfig(
            "process: needs one of s3search.processes: edm(), vp_linear(), vp_cosine(), "
            f"vp_discrete() or flow(), found {_found(own_process)}"
        )
    shape = checked_shape(own_shape, "sample_shape")
    if process is None and sample_shape is None:
        return model
    return given_denoiser(model, own_process, shape)


def _named(reference: str | Path, model: Any) -> dict[str, Any]:
    path = Path(reference).expanduser()
    if isinstance(reference, str) and (reference in REFERENCES or ":" in reference):
        return {"images": reference}
    if path.is_dir():
        shape = getattr(model, "sample_shape", (3,))
        is_grey = shape[0] == 1 and getattr(model, "decode", None) is None
        grey = {"channels": 1} if is_grey else {}
        return {"images": "folder", "path": str(path.resolve()), **grey}
    if path.suffix == ".npz":
        return {"images": "npz", "path": str(path.resolve())}
    raise InvalidConfig(
        f"reference: {str(reference)!r} is no folder, no .npz and no loader's name; "
        f"{nearest(str(reference), REFERENCES)}"
    )


def _images(found: Any, model: Any) -> Tensor:
    """Real images of the rank that a live model makes, float32 on the CPU; no copy is made of
    what is both.
    """
    images = torch.as_tensor(found).detach()
    shape = None if getattr(model, "decode", None) else getattr(model, "sample_shape", None)
    fits = images.ndim > 1 if shape is None else images.ndim == len(shape) + 1
    if not fits or not images.is_floating_point():
        made = "" if shape is None else f", the model makes {tuple(shape)}"
        raise InvalidConfig(
            "reference: needs real images as floats (N, C, H, W) in [-1, 1], or real samples of "
            f"the rank that the model makes, (N, ...), found {images.dtype} "
            f"{tuple(images.shape)}{made}; bytes (N, H, W, C) become images by "
            "images.permute(0, 3, 1, 2).float() / 127.5 - 1"
        )
    if len(images) < 2:
        raise InvalidConfig(f"reference: needs at least 2 real images, found {len(images)}")
    check_images(images)
    if are_pictures(images) and float(images.min()) >= 0.0:
        raise InvalidConfig(
            f"reference: needs values in [-1, 1], found {float(images.min()):g} to "
            f"{float(images.max()):g}, as of images in [0, 1]; these become that by "
            "2 * images - 1"
        )
    return images.float().cpu()


def _live(key: str, thing: Callable[..., Any], label: str, fingerprint: str) -> Brought:
    table = {key: LIVE, "object": label, "fingerprint": fingerprint}
    return Brought(table=table, live=thing)


def _found(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else repr(thing)[:80]
