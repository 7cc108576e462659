"""From a folder, a function or an object to a pipeline that is called as a whole."""

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from s3search.errors import InvalidConfig, nearest
from s3search.integrations.pipelines.networks import modules_in
from s3search.models.diffusers.loading import (
    DTYPES,
    model_of_pipeline,
    own_sampler_of,
    pipeline_in,
)
from s3search.models.diffusers.scheduler_config import PipelineModel, flow_shift
from s3search.models.importing import imported
from s3search.processes import Flow

if TYPE_CHECKING:
    from s3search.integrations.pipelines.conditions import ArgumentSource
    from s3search.integrations.pipelines.denoiser import CalledPipeline

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

_OURS = {
    "num_inference_steps": "it is the schedule's number of calls",
    "timesteps": "they are the schedule's",
    "sigmas": "they are the schedule's",
    "latents": "noise is drawn by the seed of each measurement",
    "generator": "noise is drawn by the seed of each measurement",
    "output_type": "it is a key of [model] beside call",
    "return_dict": "what the call returns is read by its first field",
    "num_images_per_prompt": "every image has a prompt of its own",
    "num_videos_per_prompt": "every video has a prompt of its own",
}
"""Arguments of a call that nobody else may give."""


def load(  # noqa: PLR0913  # the keys of [model] in a study file
    path: str | None = None,
    *,
    pipeline: str | None = None,
    call: Mapping[str, Any] | None = None,
    prompts: str | Sequence[str] | None = None,
    held_out: float = 0.2,
    classes: Sequence[int] | None = None,
    output_type: str | None = None,
    dtype: str = "float32",
    variant: str | None = None,
    revision: str | None = None,
) -> "CalledPipeline":
    """The pipeline of a folder or a hub (``path``), or that ``pipeline``, the import path of a
    function, returns, as a model; ``call`` are the arguments of its call.

    Raises `InvalidConfig` for what cannot be loaded or follows no schedule, with what would do.
    """
    if (path is None) == (pipeline is None):
        raise InvalidConfig(
            "path: needs either the folder or hub id of a pipeline, or pipeline = "
            "'module:function', which returns one"
        )
    if dtype not in DTYPES:
        raise InvalidConfig(f"dtype: {dtype!r} is not a choice; {nearest(dtype, DTYPES)}")
    if path is not None:
        pipe = pipeline_in(path, torch_dtype=DTYPES[dtype], variant=variant, revision=revision)
    else:
        pipe = _returned(str(pipeline))
    made = runs_of(
        pipe,
        call=call,
        prompts=prompts,
        held_out=held_out,
        classes=classes,
        output_type=output_type,
    )
    return made.eval().requires_grad_(False)


def runs_of(
    pipe: Any,
    *,
    call: Mapping[str, Any] | None = None,
    prompts: str | Sequence[str] | None = None,
    held_out: float = 0.2,
    classes: Sequence[int] | None = None,
    output_type: str | None = None,
) -> "CalledPipeline":
    """A pipeline in memory as a model, where and as it is; raises `InvalidConfig`."""
    # diffusers is imported here, where there is a pipeline
    from s3search.integrations.pipelines.calling import Caller, call_parameters  # noqa: PLC0415
    from s3search.integrations.pipelines.denoiser import CalledPipeline  # noqa: PLC0415
    from s3search.integrations.pipelines.dry_run import DryRun  # noqa: PLC0415

    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is None or not hasattr(scheduler, "config") or not callable(pipe):
        raise InvalidConfig(
            f"model: a {type(pipe).__name__} is no pipeline that is called and has a scheduler of "
            "diffusers"
        )
    known = call_parameters(pipe)
    arguments = {name: _picture(name, value) for name, value in (call or {}).items()}
    _check_arguments(arguments, known, inspect.signature(type(pipe).__call__))
    if prompts is None and isinstance(arguments.get("prompt"), str):
        prompts, held_out = [arguments.pop("prompt")], 0.0
    source = _source(known, arguments, prompts, held_out, classes)
    usual = "pt" if "output_type" in known else None
    caller = Caller(pipe, arguments, usual if output_type is None else output_type)
    model = model_of_pipeline(pipe)
    config = {**dict(scheduler.config), "_class_name": type(scheduler).__name__}
    parameters = (each for part in modules_in(pipe).values() for each in part.parameters())
    device = next((each.device for each in parameters), torch.device("cpu"))
    with torch.no_grad():
        facts = DryRun(caller, model, config, source, device).facts()
    own = own_sampler_of(pipe, _shift(pipe, model, facts.mu))
    return CalledPipeline(caller, source, model, facts, own)


def _shift(pipe: Any, model: PipelineModel, mu: float | None) -> float | None:
    """The shift of a flow's times, of which a dynamic one is told to the scheduler as ``mu``."""
    config = dict(pipe.scheduler.config)
    if not isinstance(model.process, Flow) or "s3_model" in config:
        return None
    if not config.get("use_dynamic_shifting"):
        return flow_shift(config, 0, type(pipe.scheduler).__name__)
    if mu is None:
        return None
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def _returned(path: str) -> Any:
    function = imported("pipeline", path)
    try:
        return function()
    except Exception as error:  # the user's code may raise anything
        kind = type(error).__name__
        raise InvalidConfig(f"pipeline: {path!r} failed with {kind}: {error}") from error


def _picture(name: str, value: Any) -> Any:
    """An argument as it is, or the picture in the file that it names."""
    if not isinstance(value, str) or Path(value).suffix.lower() not in _PICTURES:
        return value
    try:
        with Image.open(Path(value).expanduser()) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise InvalidConfig(f"call.{name}: cannot read the picture {value!r} ({error})") from error


def _check_arguments(
    arguments: Mapping[str, Any], known: Sequence[str], signature: inspect.Signature
) -> None:
    """Raises `InvalidConfig` for arguments that are unknown, or not the user's to give."""
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in arguments:
        if name in _OURS:
            raise InvalidConfig(f"call.{name}: leave it out; {_OURS[name]}")
        if name not in known and not takes_any:
            raise InvalidConfig(f"call.{name}: the pipeline takes none; {nearest(name, known)}")
    if "num_inference_steps" not in known:
        raise InvalidConfig(
            "model: the pipeline's call takes no num_inference_steps, so that no schedule's "
            "number of calls can be asked for"
        )


def _source(
    known: Sequence[str],
    arguments: Mapping[str, Any],
    prompts: str | Sequence[str] | None,
    held_out: float,
    classes: Sequence[int] | None,
) -> "ArgumentSource":
    from s3search.integrations.pipelines.conditions import (  # noqa: PLC0415
        ClassArguments,
        NoArguments,
        PromptArguments,
    )

    for name, value, argument in (
        ("prompts", prompts, "prompt"),
        ("classes", classes, "class_labels"),
    ):
        if value is not None and argument not in known:
            raise InvalidConfig(f"{name}: the pipeline's call takes no {argument}; leave it out")
    if prompts is not None:
        return PromptArguments(prompts, held_out, known)
    if classes is not None:
        return ClassArguments(classes)
    for name, argument in (("prompts", "prompt"), ("classes", "class_labels")):
        if argument in known and not {argument, "prompt_embeds"} & arguments.keys():
            raise InvalidConfig(
                f"{name}: the pipeline's call takes {argument}; give {name}, one for each image, "
                f"or {argument} in call"
            )
    return NoArguments(known)
