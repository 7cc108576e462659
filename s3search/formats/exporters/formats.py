"""The table of formats: what writes each, and which options it takes."""

from collections.abc import Callable
from dataclasses import dataclass

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.formats.exporters.comfyui import write_comfyui
from s3search.formats.exporters.diffusers import write_diffusers
from s3search.formats.exporters.k_diffusion import write_k_diffusion
from s3search.formats.exporters.request import Exported, ExportRequest
from s3search.formats.exporters.schedule_json import write_json
from s3search.formats.exporters.sigmas import write_sigmas
from s3search.schedules.schedule import MOST_STEPS

_MOST_WITH_STARTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """One format: its writer, whether it writes a folder, whether it uses --pipeline, and of how
    many steps it is: formats with a table for every step to begin at grow with the square.
    """

    write: Callable[[ExportRequest], Exported]
    is_folder: bool = False
    most_steps: int = MOST_STEPS
    takes_pipeline: bool = False


FORMATS: dict[str, ExportFormat] = {
    "json": ExportFormat(write=write_json),
    "diffusers": ExportFormat(
        write=write_diffusers, is_folder=True, takes_pipeline=True, most_steps=_MOST_WITH_STARTS
    ),
    "k-diffusion": ExportFormat(write=write_k_diffusion, most_steps=_MOST_WITH_STARTS),
    "comfyui": ExportFormat(write=write_comfyui, most_steps=_MOST_WITH_STARTS),
    "sigmas": ExportFormat(write=write_sigmas),
}


def format_named(name: str) -> ExportFormat:
    """The format of this name; raises `InvalidConfig`."""
    if name not in FORMATS:
        raise InvalidConfig(f"--format: {name!r} is not known; {nearest(name, FORMATS)}")
    return FORMATS[name]


def export_schedule(name: str, request: ExportRequest) -> Exported:
    """Writes ``request.schedule`` in the format ``name``.

    Raises `InvalidSchedule` for what the format cannot hold, `InvalidConfig` for a format or an
    option that does not exist.
    """
    form = format_named(name)
    if request.pipeline is not None and not form.takes_pipeline:
        raise InvalidConfig(f"--pipeline: format {name!r} has no use for it; leave it out")
    n_steps = len(request.schedule.steps)
    if n_steps > form.most_steps:
        raise InvalidSchedule(
            f"steps: format {name!r} holds a table for every step that an image may begin at, of "
            f"at most {form.most_steps} steps, found {n_steps}; --format json has no such limit"
        )
    return form.write(request)
