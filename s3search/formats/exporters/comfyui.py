"""A custom node for ComfyUI: its sigmas with its own sampler, or with ours and our table."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from s3search.errors import InvalidSchedule
from s3search.files import write_text
from s3search.formats.exporters.image_to_image import image_to_image_losses
from s3search.formats.exporters.k_diffusion import (
    drawn_part,
    exact_part,
    refused_part,
    start_scale,
)
from s3search.formats.exporters.measured import rounded_times
from s3search.formats.exporters.plain import PlainSampler, plain_sampler
from s3search.formats.exporters.python_file import python_file
from s3search.formats.exporters.report import Approximation, LossReport
from s3search.formats.exporters.request import Exported, ExportRequest
from s3search.formats.exporters.runtime.comfy_node import (
    S3Node,
    S3Schedule,
    S3Sigmas,
    comfy_samplers,
    start_at_step,
)
from s3search.formats.exporters.runtime.k_sampler import (
    end_of,
    is_near,
    noise_like,
    sample_s3,
    table_of,
)
from s3search.formats.exporters.sigma_table import SigmaTable, sigma_tables
from s3search.processes import Flow, VpDiscrete
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import noisy_time
from s3search.solvers.plan import compile_plan

_USAGE = (
    "A node for ComfyUI.",
    "Install: put this file into ComfyUI/custom_nodes and restart ComfyUI.",
    'Use: add the node {title!r} (double-click the canvas and type "s3search") and connect both '
    "of its outputs, sigmas and sampler, to SamplerCustom or SamplerCustomAdvanced. The number of "
    "steps is fixed.",
)
_KNOB = "Image-to-image: start_at_step leaves out the first, noisiest steps."

_ABOUT = (
    "Sampler and sigmas of an s3search schedule: {calls} network calls for the model that it was "
    "made for ({process} noise levels). Connect both to SamplerCustom or SamplerCustomAdvanced."
)

_IMPORTS = """\
import importlib
from collections.abc import Callable
from typing import Any

import torch"""


def write_comfyui(request: ExportRequest) -> Exported:
    """Writes the file; raises `InvalidSchedule` for what no table in sigmas holds and for guidance
    call by call: ComfyUI's guider has one scale.
    """
    schedule = request.schedule
    patch = schedule.model_patch
    if patch is not None and patch.guidance_scale is not None:
        raise InvalidSchedule(
            "model_patch.guidance_scale: ComfyUI's guider has one scale for all calls; use "
            "--format diffusers or k-diffusion, or search with a fixed guidance_scale in [model]"
        )
    tables = sigma_tables(schedule, "comfyui")
    plain = plain_sampler(schedule, tables[0])
    report = LossReport(
        exact=(exact_part(plain), *drawn_part(schedule)),
        approximated=(
            *_start(schedule),
            *_rounded(schedule),
            *image_to_image_losses(schedule),
        ),
        refused=("guidance call by call", *refused_part(schedule, plain)),
    )
    write_text(request.output, _text(schedule, report, tables, plain))
    return Exported(files=(request.output,), report=report)


def _text(
    schedule: Schedule,
    report: LossReport,
    tables: Sequence[SigmaTable],
    plain: PlainSampler | None,
) -> str:
    data: dict[str, Any]
    code: tuple[Callable[..., Any] | type, ...]
    node: type[S3Node]
    if plain is None:
        data = {"TABLES": [table.to_dict() for table in tables]}
        code, node, n_starts = (
            (sample_s3, table_of, end_of, noise_like, is_near),
            S3Schedule,
            len(tables),
        )
    else:
        data = {"SIGMAS": [*plain.sigmas], "SAMPLER": plain.name}
        code, node, n_starts = (), S3Sigmas, len(plain.sigmas) - 1
    title = f"s3search {schedule.nfe} calls, {schedule.id[:8]}"
    about = _ABOUT.format(calls=schedule.nfe, process=schedule.process.type)
    usage = (*_USAGE, _KNOB) if n_starts > 1 else _USAGE
    key = f"S3Search_{schedule.id[:8]}"
    return python_file(
        schedule,
        report,
        usage="\n".join(usage).format(title=title),
        imports=_IMPORTS,
        data={"ABOUT": about, **data},
        code=(*code, S3Node, node, start_at_step, comfy_samplers),
        end=f"NODE_CLASS_MAPPINGS = {{{key!r}: {node.__name__}}}\n"
        f"NODE_DISPLAY_NAME_MAPPINGS = {{{key!r}: {title!r}}}",
    )


def _start(schedule: Schedule) -> tuple[Approximation, ...]:
    is_below = schedule.times[0] < noisy_time(schedule.process)
    if isinstance(schedule.process, Flow) or is_below:
        return ()
    first = schedule.process.lam(schedule.times[0])
    sigma = math.exp(-first)
    what = (
        "where the first sigma is the model's noisiest, ComfyUI begins at sqrt(1 + sigma^2) noise "
        "and not at sigma noise; by how much the images change"
    )
    return (start_scale(schedule, math.hypot(1.0, sigma) / sigma, what),)


def _rounded(schedule: Schedule) -> tuple[Approximation, ...]:
    if not isinstance(schedule.process, VpDiscrete):
        return ()
    times = compile_plan(schedule).network_times
    return (
        Approximation(
            what="ComfyUI tells the network the nearest whole training step; the largest rounding",
            measured=rounded_times(times),
            unit="training steps",
        ),
    )
