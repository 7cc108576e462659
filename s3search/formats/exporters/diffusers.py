"""A folder for diffusers: the schedule, the function that puts it into a pipeline and, where the
pipeline is given, a scheduler config that `S3Scheduler.from_pretrained` loads.
"""

import errno
import importlib
import os
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig
from s3search.files import folder_written_through, write_text
from s3search.formats.exporters.image_to_image import image_to_image_losses
from s3search.formats.exporters.python_file import python_file
from s3search.formats.exporters.report import LossReport
from s3search.formats.exporters.request import Exported, ExportRequest
from s3search.formats.exporters.runtime.pipeline import guided_arguments, with_schedule
from s3search.formats.exporters.schedule_json import save_export
from s3search.formats.exporters.sigma_table import refuse_changed_network
from s3search.models.diffusers.scheduler_file import CONFIG, read_scheduler_file
from s3search.schedules.schedule import Schedule, StartKind

_USAGE = """\
For pipelines of diffusers; it needs s3search and diffusers to be installed:
pipe = with_schedule(StableDiffusionPipeline.from_pretrained(...))
images = pipe(prompt, num_inference_steps=pipe.scheduler.num_steps).images"""

_GUIDED = """\
For pipelines of diffusers; it needs s3search and diffusers to be installed:
pipe = StableDiffusionPipeline.from_pretrained(...)
images = pipe(prompt, **guided_arguments(pipe)).images"""

_FROM_CONFIG = """
Or, without this file: pipe.scheduler = S3Scheduler.from_pretrained(folder)"""


def write_diffusers(request: ExportRequest) -> Exported:
    """Writes the folder; raises `InvalidSchedule` for a changed network and for what the pipeline
    cannot run, `InvalidConfig` for a folder or a pipeline that is not there.
    """
    schedule, folder = request.schedule, request.output
    refuse_changed_network(schedule, "diffusers")
    is_guided = _scales(schedule) is not None
    config = None if request.pipeline is None else scheduler_config(request.pipeline)
    saved = None if config is None or is_guided else _scheduler(request, config)
    report = _report(schedule, is_configured=config is not None)
    usage = _GUIDED if is_guided else _USAGE + (_FROM_CONFIG if saved is not None else "")
    text = python_file(
        schedule,
        report,
        usage=usage,
        imports="from pathlib import Path\nfrom typing import Any",
        code=(guided_arguments,) if is_guided else (with_schedule,),
    )
    names = ["schedule.json", "s3_pipeline.py"]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise InvalidConfig(f"--output: cannot make the folder {folder}: {error}") from error
    with folder_written_through(folder) as part:
        save_export(schedule, part / names[0], request.statistics)
        write_text(part / names[1], text)
        if saved is not None:
            names.append(CONFIG)
            write_text(part / CONFIG, saved.to_json_string())
    return Exported(files=tuple(folder / name for name in names), report=report)


def scheduler_config(pipeline: Path) -> dict[str, Any]:
    """The scheduler config of a pipeline's folder, of its scheduler's, or of the file itself."""
    try:
        file = read_scheduler_file(pipeline)
    except InvalidConfig as error:
        raise InvalidConfig(
            f"--pipeline: {pipeline} holds no scheduler/{CONFIG} that can be used ({error}); name "
            "a folder that save_pretrained wrote, or the config itself"
        ) from error
    config = dict(file.config)
    if "s3_model" not in config and file.class_name is not None:
        config["_class_name"] = file.class_name
    return config


def _scheduler(request: ExportRequest, config: dict[str, Any]) -> Any:
    try:
        integration = importlib.import_module("s3search.integrations.diffusers")
    except ImportError as error:
        raise InvalidConfig(
            f"--pipeline: needs diffusers ({error}); pip install diffusers transformers, or leave "
            "it out"
        ) from error
    return integration.S3Scheduler.from_schedule(
        request.schedule,
        config,
        statistics=None if request.schedule.statistics is None else request.ems,
    )


def _scales(schedule: Schedule) -> tuple[float, ...] | None:
    return None if schedule.model_patch is None else schedule.model_patch.guidance_scale


def _report(schedule: Schedule, *, is_configured: bool) -> LossReport:
    exact = [
        "the schedule, compiled by s3search itself; in a model of another process on the "
        "times of equal signal-to-noise ratio, which is the same trajectory"
    ]
    refused = [f"another num_inference_steps than {schedule.nfe}"]
    if schedule.is_stochastic:
        exact.append(
            "noise of the steps, of the pipeline's generator or of one for each image; of torch's "
            "own where the pipeline passes none (SD 3, Flux)"
        )
    if schedule.start.kind is not StartKind.NETWORK or schedule.start.jump is not None:
        refused.append(
            "pipelines without scale_model_input (DDPM, SD 3, Flux): analytic starts need it"
        )
    if _scales(schedule) is not None:
        exact.append("guidance call by call in Stable Diffusion 1.x, 2.x, XL and 3")
        refused.append("pipelines without a callback between calls (DiT, PixArt, Flux): guidance")
        if is_configured:
            refused.append("a scheduler config: a scheduler cannot set guidance")
    if schedule.has_network_times:
        refused.append("image-to-image: the network is told other times than the states'")
    if schedule.statistics is not None:
        refused.append("to measure image-to-image: weights per pixel fit no Gaussian images")
        return LossReport(exact=tuple(exact), refused=tuple(refused))
    return LossReport(
        exact=tuple(exact),
        approximated=image_to_image_losses(schedule),
        refused=tuple(refused),
    )
