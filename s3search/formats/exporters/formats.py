"""The table of formats: what writes each, and which options it takes."""

from collections.abc import Callable
from dataclasses import dataclass

from s3search.errors import InvalidConfig, nearest
from s3search.formats.exporters.comfyui import write_comfyui
from s3search.formats.exporters.diffusers import write_diffusers
from s3search.formats.exporters.k_diffusion import write_k_diffusion
from s3search.formats.exporters.request import Exported, ExportRequest
from s3search.formats.exporters.schedule_json import write_json
from s3search.formats.exporters.sigmas import write_sigmas


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """One format: its writer, whether it writes a folder, and whether it uses --pipeline."""

    write: Callable[[ExportRequest], Exported]
    is_folder: bool = False
    takes_pipeline: bool = False


FORMATS: dict[str, ExportFormat] = {
    "json": ExportFormat(write=write_json),
    "diffusers": ExportFormat(write=write_diffusers, is_folder=True, takes_pipeline=True),
    "k-diffusion": ExportFormat(write=write_k_diffusion),
    "comfyui": ExportFormat(write=write_comfyui),
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
    return form.write(request)
