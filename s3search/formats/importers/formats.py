"""The table of formats: what reads each, and which options it takes."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from s3search.errors import InvalidConfig, InvalidSchedule, S3SearchError, nearest
from s3search.formats.importers import autodiffusion, ays, diffusers, ld3, lists, usf
from s3search.formats.importers.request import Request
from s3search.schedules.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFormat:
    """One format: its reader, the options it takes besides the source, and a line about it."""

    read: Callable[[Request], Schedule]
    options: tuple[str, ...]
    summary: str


_AMOUNTS = ("eta", "s_noise")  # of noise, for samplers that add some

FORMATS: dict[str, ImportFormat] = {
    "usf": ImportFormat(
        read=usf.read,
        options=("process", "mean_image", "ems", "compat"),
        summary="a decision file (.pth) of USF / S3",
    ),
    "autodiffusion": ImportFormat(
        read=autodiffusion.read,
        options=("process", "solver", "index"),
        summary="a log.txt of AutoDiffusion's search",
    ),
    "diffusers": ImportFormat(
        read=diffusers.read,
        options=("steps", *_AMOUNTS),
        summary="a scheduler_config.json of diffusers",
    ),
    "sigmas": ImportFormat(
        read=lists.read_sigmas,
        options=("process", "solver", "stop", *_AMOUNTS),
        summary="noise levels sigma / alpha, JSON or text",
    ),
    "timesteps": ImportFormat(
        read=lists.read_timesteps,
        options=("process", "solver", "stop", *_AMOUNTS),
        summary="times in the process's unit, JSON or text",
    ),
    "ays": ImportFormat(
        read=ays.read,
        options=("process", "solver", "steps", "stop", *_AMOUNTS),
        summary="Align Your Steps: sd15, sdxl or svd instead of a file",
    ),
    "gits": ImportFormat(
        read=lists.read_gits,
        options=("process", "solver", "index", *_AMOUNTS),
        summary="sigmas printed by GITS",
    ),
    "ld3": ImportFormat(
        read=ld3.read,
        options=("process", "solver"),
        summary="t_steps.pt or best_v1.pt of LD3",
    ),
    "oss": ImportFormat(
        read=lists.read_oss,
        options=("process", "solver", "steps", "shift", "index"),
        summary="step indices of Optimal Stepsize",
    ),
}


def import_schedule(form: str, request: Request) -> Schedule:
    """The schedule that ``request.source`` holds, its origin in the provenance.

    Raises `InvalidConfig` for what cannot be read and `InvalidSchedule` for what cannot be run.
    """
    if form not in FORMATS:
        raise InvalidConfig(f"format {form!r} is not known; {nearest(form, FORMATS)}")
    found = FORMATS[form]
    for field in fields(Request):
        is_given = field.name != "source" and getattr(request, field.name) is not None
        if is_given and field.name not in found.options:
            takes = ", ".join(f"--{name.replace('_', '-')}" for name in found.options)
            raise InvalidConfig(
                f"--{field.name.replace('_', '-')}: format {form!r} has no use for it; "
                f"it takes {takes}"
            )
    try:
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            schedule = found.read(request)
    except S3SearchError:
        raise
    except (ArithmeticError, ValueError) as error:  # of a logarithm or a quotient
        raise InvalidSchedule(
            f"{request.source}: its numbers make no schedule ({error}); "
            "levels must be positive and within what the process reaches"
        ) from error
    origin = {"format": form, "source": request.source, **schedule.provenance}
    return schedule.model_copy(update={"provenance": {"imported": origin}})
