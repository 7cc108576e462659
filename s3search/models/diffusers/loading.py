"""From a folder, a hub id or a pipeline in memory to a denoiser."""

import difflib
import hashlib
import importlib
import inspect
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.files import cache_folder
from s3search.models.diffusers import dit, pixart, stable_diffusion, unconditional
from s3search.models.diffusers.denoiser import Pipeline, PipelineDenoiser
from s3search.models.diffusers.flows import FLOWS, flow_pipeline, usual_scale
from s3search.models.diffusers.guidance import parse_guidance
from s3search.models.diffusers.scheduler_config import (
    OwnSampler,
    PipelineModel,
    flow_shift,
    model_of,
)
from s3search.models.diffusers.settings import Settings

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

PIPELINES: dict[str, Callable[[Any, Settings], Pipeline]] = {
    "DDPMPipeline": unconditional.pixels,
    "DDIMPipeline": unconditional.pixels,
    "PNDMPipeline": unconditional.pixels,
    "ScoreSdeVePipeline": unconditional.score,
    "LDMPipeline": unconditional.latents,
    "DiTPipeline": dit.dit,
    "StableDiffusionPipeline": stable_diffusion.stable_diffusion,
    "StableDiffusionXLPipeline": stable_diffusion.stable_diffusion_xl,
    "PixArtAlphaPipeline": pixart.pixart,
    "PixArtSigmaPipeline": pixart.pixart,
    **{name: partial(flow_pipeline, entry) for name, entry in FLOWS.items()},
}
"""What each kind of pipeline's network is told."""

_INDEX = "model_index.json"
_SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


def load(  # noqa: PLR0913  # the keys of [model] in a study file
    path: str,
    *,
    guidance_scale: float | None = None,
    guidance_interval: Sequence[float] | None = None,
    prompts: str | Sequence[str] | None = None,
    held_out: float = 0.2,
    classes: Sequence[int] | None = None,
    height: int | None = None,
    width: int | None = None,
    n_frames: int | None = None,
    dtype: str = "float32",
    channels_last: bool = False,
    compile: bool | str = False,
    variant: str | None = None,
    revision: str | None = None,
    cache: str | None = None,
) -> PipelineDenoiser:
    """The network of the pipeline in a folder or on a hub as a frozen denoiser.

    ``guidance_scale`` is the pipeline's own default unless given.  Raises `InvalidConfig` for
    anything that cannot be loaded, with what would do.
    """
    _check_choice("dtype", dtype, DTYPES)
    if not isinstance(compile, bool):
        _check_choice("compile", compile, COMPILE_MODES)
    denoiser = denoiser_of(
        pipeline_in(path, torch_dtype=DTYPES[dtype], variant=variant, revision=revision),
        guidance_scale=guidance_scale,
        guidance_interval=guidance_interval,
        prompts=prompts,
        held_out=held_out,
        classes=classes,
        height=height,
        width=width,
        n_frames=n_frames,
        cache=str(cache_folder()) if cache is None else cache,
    )
    denoiser.eval().requires_grad_(False)
    _cast(denoiser, DTYPES[dtype])
    _place(denoiser, channels_last=channels_last, compiled=compile)
    return denoiser


def is_pipeline(thing: object) -> bool:
    """Whether an object is a pipeline of diffusers, which need not be installed."""
    kinds = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(thing).__mro__)
    return ("diffusers", "DiffusionPipeline") in kinds


def denoiser_of(  # noqa: PLR0913  # those of the keys above that make no copy of the pipeline
    pipe: Any,
    *,
    guidance_scale: float | None = None,
    guidance_interval: Sequence[float] | None = None,
    prompts: str | Sequence[str] | None = None,
    held_out: float = 0.2,
    classes: Sequence[int] | None = None,
    height: int | None = None,
    width: int | None = None,
    n_frames: int | None = None,
    cache: str | None = None,
) -> PipelineDenoiser:
    """The network of a pipeline in memory as a denoiser, where and as it is.

    ``cache`` is a folder for the prompts' embeddings; without one they are kept in memory.  Raises
    `InvalidConfig` for a pipeline that is not known, and for what it does not take.
    """
    kind = type(pipe).__name__
    if kind not in PIPELINES:
        raise InvalidConfig(
            f"path: this is a {kind}, whose network is not known; known: "
            f"{', '.join(sorted(PIPELINES))}; write a loader of your own for it"
        )
    scale = _usual_scale(pipe) if guidance_scale is None else guidance_scale
    model = model_of_pipeline(pipe)
    guidance = parse_guidance(scale, guidance_interval, model.process)
    settings = Settings(
        guidance_scale=guidance.scale,
        prompts=prompts,
        held_out=held_out,
        classes=classes,
        height=height,
        width=width,
        n_frames=n_frames,
        cache=None if cache is None else Path(cache).expanduser() / "embeddings",
    )
    parts = PIPELINES[kind](pipe, settings)
    if parts.embeds_guidance:
        guidance = parse_guidance(1.0, guidance_interval, model.process)
    guidance = replace(guidance, combine=parts.combine)
    own = own_sampler_of(pipe, _shift(pipe, parts.n_tokens))
    digest = _digest(pipe, parts, model, scale)
    return PipelineDenoiser(parts, model, guidance, own, digest, pipeline=kind)


def pipeline_in(path: str, **options: Any) -> Any:
    """The pipeline in a folder or on a hub, with options of `from_pretrained`; raises
    `InvalidConfig`.
    """
    try:
        diffusers = importlib.import_module("diffusers")
    except ImportError as error:
        raise InvalidConfig(
            f"loader: 'diffusers' needs the packages diffusers and transformers ({error}); "
            "pip install diffusers transformers here and on the workers"
        ) from error
    _check_folder(path)
    options = {name: value for name, value in options.items() if value is not None}
    named = str(Path(path).expanduser()) if _is_folder(path) else path
    try:
        with warnings.catch_warnings():
            # newer releases call torch_dtype dtype, which older ones do not know
            warnings.simplefilter("ignore", FutureWarning)
            return diffusers.DiffusionPipeline.from_pretrained(named, **options)
    except ImportError as error:
        raise InvalidConfig(
            f"path: {path!r} needs a package that is not installed ({_first_line(error)}); "
            "pip install diffusers transformers here and on the workers"
        ) from error
    except Exception as error:  # diffusers raises anything for files that it cannot read
        where = "the folder" if _is_folder(path) else "a folder or a reachable hub id"
        raise InvalidConfig(
            f"path: {path!r} cannot be loaded ({type(error).__name__}: {_first_line(error)}); it "
            f"must be {where} of a whole pipeline, as save_pretrained writes it"
        ) from error


def _check_folder(path: str) -> None:
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / _INDEX).is_file():
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise InvalidConfig(
                f"path: {path!r} is no pipeline: it has no {_INDEX}, found {found}; name the "
                "folder that save_pretrained of a whole pipeline wrote"
            )
        return
    if folder.is_file() and folder.suffix in _SINGLE_FILES:
        raise InvalidConfig(
            f"path: {path!r} is one file, which does not say how its pipeline is built; make a "
            f"folder of it with diffusers.StableDiffusionPipeline.from_single_file({path!r})."
            "save_pretrained(FOLDER), or with the class of its own pipeline "
            "(StableDiffusionXLPipeline, ...), and name that folder"
        )
    looks_local = path.startswith((".", "~", "/")) or folder.parent.is_dir()
    if folder.exists() or looks_local or path.count("/") != 1:
        raise InvalidConfig(f"path: there is no folder {path!r}; {_neighbours(folder)}")


def _neighbours(folder: Path) -> str:
    """The nearest name beside a folder that is not there, or the first parent that is."""
    parent = folder.parent
    while not parent.is_dir():
        folder, parent = parent, parent.parent
    names = [own.name for own in parent.iterdir() if own.is_dir()]
    close = difflib.get_close_matches(folder.name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {str(parent / close[0])!r}?"
    return f"{str(parent)!r} has {', '.join(sorted(names)[:8]) or 'no folders'}"


def _is_folder(path: str) -> bool:
    return Path(path).expanduser().is_dir()


def model_of_pipeline(pipe: Any) -> PipelineModel:
    """What the scheduler of a pipeline says of its network; raises `InvalidConfig`."""
    config = pipe.scheduler.config
    try:
        return model_of(config, type(pipe.scheduler).__name__)
    except (InvalidSchedule, ValueError, TypeError, KeyError) as error:
        raise InvalidConfig(
            f"path: no noise process follows from {type(pipe.scheduler).__name__}: {error}"
        ) from error


def own_sampler_of(pipe: Any, shift: float | None) -> OwnSampler | None:
    """What a pipeline runs unless told otherwise; ``shift`` is a flow's, at its images' size."""
    config = dict(pipe.scheduler.config)
    if "s3_model" in config:
        return None  # the scheduler is ours, and its schedule was searched
    return OwnSampler(
        scheduler=type(pipe.scheduler).__name__,
        pipeline=type(pipe).__name__,
        config={name: value for name, value in config.items() if not name.startswith("_")},
        shift=shift,
        left_out=tuple(sorted(config.get("_use_default_values", ()))),
    )


def _shift(pipe: Any, n_tokens: int | None) -> float | None:
    config = dict(pipe.scheduler.config)
    if n_tokens is None or "s3_model" in config:
        return None
    return flow_shift(config, n_tokens, type(pipe.scheduler).__name__)


def _usual_scale(pipe: Any) -> float:
    """What the pipeline guides with unless told otherwise; 1 where it does not guide."""
    entry = FLOWS.get(type(pipe).__name__)
    if entry is not None:
        return usual_scale(entry, pipe)
    known = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
    if known is None:
        return 1.0
    return float(known.default)


def _digest(pipe: Any, parts: Pipeline, model: PipelineModel, scale: float) -> bytes:
    """Of all but the parameters that decides the images."""
    content = [type(pipe).__name__, repr(model), scale, parts.sample_shape, parts.source.content]
    return hashlib.sha256(json.dumps(content).encode()).digest()


def _cast(denoiser: PipelineDenoiser, dtype: torch.dtype) -> None:
    """Network and VAE in the dtype asked for, but for a class that keeps parts in float32.

    diffusers 0.42 without accelerate leaves the transformer of Stable Diffusion 3 in float32.
    """
    for part in (denoiser.network, denoiser.vae):
        if part is not None and not getattr(part, "_keep_in_fp32_modules", None):
            nn.Module.to(part, dtype)  # their own warns of such parts even where there are none


def _place(denoiser: PipelineDenoiser, *, channels_last: bool, compiled: bool | str) -> None:
    vae = denoiser.vae
    if vae is not None and vae.dtype is torch.float16 and vae.config.get("force_upcast"):
        nn.Module.to(vae, torch.float32)  # it overflows in float16
    if channels_last:
        denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        denoiser.network.compile(mode=None if compiled is True else compiled)


def _check_choice(field: str, value: Any, choices: Any) -> None:
    if value not in tuple(choices):
        hint = nearest(str(value), choices)
        raise InvalidConfig(f"{field}: {value!r} is not a choice; {hint}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
