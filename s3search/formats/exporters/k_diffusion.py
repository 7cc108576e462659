"""A Python file for k-diffusion: sigmas for one of its samplers, or a sampler with its table."""

from s3search.files import write_text
from s3search.formats.exporters.image_to_image import image_to_image_losses
from s3search.formats.exporters.measured import interpolated_times, start_change
from s3search.formats.exporters.plain import PlainSampler, plain_sampler
from s3search.formats.exporters.python_file import python_file
from s3search.formats.exporters.report import Approximation, LossReport
from s3search.formats.exporters.request import Exported, ExportRequest
from s3search.formats.exporters.runtime.k_sampler import (
    end_of,
    is_near,
    noise_like,
    sample_s3,
    table_of,
)
from s3search.formats.exporters.sigma_table import sigma_tables
from s3search.processes import Flow, VpDiscrete
from s3search.schedules.schedule import Schedule
from s3search.schedules.start_noise import with_one_draw
from s3search.solvers.plan import compile_plan

_PLAIN = """\
sigmas for k_diffusion.sampling.sample_{name}, which is this schedule's solver:
x = torch.randn(shape) * sigmas[0]
images = k_diffusion.sampling.sample_{name}(model, x, torch.tensor(sigmas), extra_args=...)"""

_TABLE = """\
A sampler for k-diffusion; it needs nothing but torch tensors:
x = torch.randn(shape) * sigmas[0]
images = sample_s3(model, x, extra_args=...)
model(x, sigma, **extra_args) is k-diffusion's denoiser. For image-to-image pass the sigmas from
one of the next on: sample_s3(model, image + noise * sigmas[k], sigmas[k:])"""

_STOCHASTIC = """\
Its steps draw noise: pass noise_sampler(sigma, sigma_next), as to k-diffusion's samplers, or have
torch.randn of the generator that extra_args["seed"] seeds, else of torch's own."""

_OWN_NOISE = """\
Its steps draw noise: pass noise_sampler=..., or have the program's usual one."""

_IMPORTS = """\
from collections.abc import Callable
from typing import Any

import torch"""

_FLOW = """\
This is a flow model's schedule: x = sigma * noise + (1 - sigma) * image."""


def write_k_diffusion(request: ExportRequest) -> Exported:
    """Writes the file; raises `InvalidSchedule` for what no table in sigmas holds."""
    schedule = request.schedule
    tables = sigma_tables(schedule, "k-diffusion")
    plain = plain_sampler(schedule, tables[0])
    report = LossReport(
        exact=(exact_part(plain), *drawn_part(schedule), *_guidance(schedule)),
        approximated=(*_time_of_sigma(schedule), *image_to_image_losses(schedule)),
        refused=refused_part(schedule, plain),
    )
    usage = _TABLE if plain is None else _PLAIN.format(name=plain.name)
    if schedule.is_stochastic:
        usage = f"{usage}\n{_STOCHASTIC if plain is None else _OWN_NOISE}"
    if isinstance(schedule.process, Flow):
        usage = f"{usage}\n{_FLOW}"
    if plain is None:
        text = python_file(
            schedule,
            report,
            usage=usage,
            imports=_IMPORTS,
            data={"sigmas": [*tables[0].sigmas], "TABLES": [table.to_dict() for table in tables]},
            code=(sample_s3, table_of, end_of, noise_like, is_near),
        )
    else:
        data = {"sigmas": [*plain.sigmas], "sampler": f"sample_{plain.name}"}
        text = python_file(schedule, report, usage=usage, data=data)
    write_text(request.output, text)
    return Exported(files=(request.output,), report=report)


def exact_part(plain: PlainSampler | None) -> str:
    """What the sigmas or the table hold."""
    if plain is None:
        return "the schedule's own table of coefficients, in float64, moved to x / alpha"
    return f"levels and solver: the schedule is sample_{plain.name} on these sigmas"


def drawn_part(schedule: Schedule) -> tuple[str, ...]:
    """Where the noise of steps comes from."""
    if not schedule.is_stochastic:
        return ()
    of_start = "" if schedule.start.noise is None else "; that of the start with the first state"
    return (f"noise of the steps, drawn by the program's noise sampler{of_start}",)


def refused_part(schedule: Schedule, plain: PlainSampler | None) -> tuple[str, ...]:
    """What the file will not do."""
    if plain is not None:
        return ()
    inner = "image-to-image: the network is told other times than the states' (network_time)"
    return (
        "sigmas that are not the schedule's own, from the first or a later one to the last",
        *([inner] if schedule.has_network_times else []),
    )


def start_scale(schedule: Schedule, factor: float, what: str) -> Approximation:
    """How much the images change where a runtime begins at ``factor`` times the right state."""
    change = start_change(compile_plan(with_one_draw(schedule)), factor)
    return Approximation(what=what, measured=100 * change, unit="% of Gaussian images")


def _guidance(schedule: Schedule) -> tuple[str, ...]:
    patch = schedule.model_patch
    if patch is None or patch.guidance_scale is None:
        return ()
    return ("guidance call by call, as cond_scale, for a model that takes it (CFGDenoiser)",)


def _time_of_sigma(schedule: Schedule) -> tuple[Approximation, ...]:
    if not isinstance(schedule.process, VpDiscrete):
        return ()
    times = compile_plan(schedule).network_times
    return (
        Approximation(
            what="k-diffusion interpolates the training step of a sigma in log sigma, we in log "
            "alpha; the largest difference in what the network is told",
            measured=interpolated_times(schedule.process, times),
            unit="training steps",
        ),
    )
