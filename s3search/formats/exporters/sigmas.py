"""A plain list of noise levels, with the lines that give it to diffusers' own scheduler and to the
own function of k-diffusion or ComfyUI.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3search.errors import InvalidSchedule
from s3search.files import write_text
from s3search.formats.exporters.k_diffusion import start_scale
from s3search.formats.exporters.measured import rounded_times
from s3search.formats.exporters.python_file import python_file
from s3search.formats.exporters.report import Approximation, LossReport
from s3search.formats.exporters.request import Exported, ExportRequest
from s3search.formats.exporters.sigma_table import sigma_of
from s3search.processes import Flow, VpDiscrete
from s3search.schedules.published.listed import LISTED_SOLVERS, ListedSolver, listed_solver_of
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan

_CLOSE = 1e-4  # of 1, the scale of a first state


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusersScheduler:
    """One of diffusers' own: what its config must say for the list to be all, and how it takes
    the list.
    """

    name: str
    config: Mapping[str, Any]
    takes: str  # an argument of set_timesteps, and of most pipelines


_NO_GRID = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False)

_DIFFUSERS: dict[tuple[str, bool], DiffusersScheduler] = {  # by solver, and if it is for flows
    ("euler", False): DiffusersScheduler(
        name="EulerDiscreteScheduler",
        config={"timestep_spacing": "trailing", **_NO_GRID},
        takes="sigmas=sigmas",
    ),
    ("dpmpp_2m", False): DiffusersScheduler(
        name="DPMSolverMultistepScheduler",
        config={
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "solver_order": 2,
            "final_sigmas_type": "zero",
            "use_lu_lambdas": False,
            **_NO_GRID,
        },
        takes="timesteps=timesteps",
    ),
    ("euler", True): DiffusersScheduler(
        name="FlowMatchEulerDiscreteScheduler",
        config={
            "shift": 1.0,
            "use_dynamic_shifting": False,
            "shift_terminal": None,
            **_NO_GRID,
        },
        takes="sigmas=sigmas[:-1]",
    ),
}

_WITH_DIFFUSERS = """\
diffusers: pipe.scheduler = {name}.from_config(pipe.scheduler.config, **config)
images = pipe(..., {takes}).images  # a pipeline that takes no list: scheduler.set_timesteps"""

_WITH_K_DIFFUSION = """\
{program}: x = torch.randn(shape) * sigmas[0]
images = {function}(model, x, torch.tensor(sigmas))"""
_FUNCTIONS = {  # by solver: the programs that have it, and its name there
    "euler": ("k-diffusion, ComfyUI", "k_diffusion.sampling.sample_euler"),
    "dpmpp_2m": ("k-diffusion, ComfyUI", "k_diffusion.sampling.sample_dpmpp_2m"),
    "ipndm": ("ComfyUI", "comfy.k_diffusion.sampling.sample_ipndm"),
    "uni_pc": ("ComfyUI", "comfy.extra_samplers.uni_pc.sample_unipc"),
    "uni_pc_bh2": ("ComfyUI", "comfy.extra_samplers.uni_pc.sample_unipc_bh2"),
}


def sigmas_file(schedule: Schedule) -> tuple[str, LossReport]:
    """The text of the file, which is Python, and what is lost there; raises `InvalidSchedule` for
    a schedule that is no solver's on a list.
    """
    solver = listed_solver_of(schedule)
    if solver is None:
        known = ", ".join(own.title for own in LISTED_SOLVERS.values())
        raise InvalidSchedule(
            f"steps: --format sigmas is for {known} down to their own ends, and this schedule has "
            "other steps or another end; use --format diffusers or k-diffusion, or search with "
            "target = 'sigmas'"
        )
    process = schedule.process
    data: dict[str, Any] = {"sigmas": sigmas_of(schedule)}
    if isinstance(process, VpDiscrete):
        data["timesteps"] = [round(t) for t in schedule.times[:-1]]
    own = _in_diffusers(schedule, solver)
    if own is not None:
        data["config"] = dict(own.config)
    report = LossReport(
        exact=(f"levels and solver: {solver.title}, and its own end",),
        approximated=_approximated(schedule, solver),
    )
    return python_file(schedule, report, usage=_usage(schedule, solver), data=data), report


def write_sigmas(request: ExportRequest) -> Exported:
    """Writes the file; raises `InvalidSchedule` for what is no solver's on a list."""
    text, report = sigmas_file(request.schedule)
    write_text(request.output, text)
    return Exported(files=(request.output,), report=report)


def sigmas_of(schedule: Schedule) -> list[float]:
    """The levels as the programs name them, to the solver's own end."""
    plan = compile_plan(schedule)
    levels = dict.fromkeys(sigma_of(plan, at) for at in plan.levels)
    return [*levels]


def _usage(schedule: Schedule, solver: ListedSolver) -> str:
    lines = [f"{schedule.describe()}"]
    source = schedule.provenance
    held_out = source.get("held_out")
    if held_out is not None:
        is_score = source["metric"] == "score"
        named = "score" if is_score else f"{source['metric']} distance"
        lines.append(
            f"study {source['study']}: {named} {held_out['value']:.4f} of "
            f"{held_out['n_images']} held-out images, "
            f"{'score' if is_score else 'extractor'} {source['extractor']}"
        )
    own = _in_diffusers(schedule, solver)
    if own is not None:
        lines += ["", _WITH_DIFFUSERS.format(name=own.name, takes=own.takes)]
    program, function = _FUNCTIONS[solver.name]
    lines += ["", _WITH_K_DIFFUSION.format(program=program, function=function)]
    return "\n".join(lines)


def _in_diffusers(schedule: Schedule, solver: ListedSolver) -> DiffusersScheduler | None:
    """The scheduler that runs the list; DPM-Solver++ takes whole training steps alone."""
    process = schedule.process
    if solver.name == "dpmpp_2m" and not isinstance(process, VpDiscrete):
        return None
    return _DIFFUSERS.get((solver.name, isinstance(process, Flow)))


def _approximated(schedule: Schedule, solver: ListedSolver) -> tuple[Approximation, ...]:
    found = []
    process = schedule.process
    if isinstance(process, VpDiscrete):
        off = rounded_times(compile_plan(schedule).network_times)
        if off:
            what = "diffusers' timesteps are whole training steps; the largest rounding"
            found.append(Approximation(what=what, measured=off, unit="training steps"))
    scale = compile_plan(schedule).noise_scale
    if solver.name == "dpmpp_2m" and isinstance(process, VpDiscrete) and abs(scale - 1) > _CLOSE:
        what = "diffusers begins with unit noise; by how much the images change"
        found.append(start_scale(schedule, 1.0 / scale, what))
    return tuple(found)
