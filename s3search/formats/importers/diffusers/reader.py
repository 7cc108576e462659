"""What a diffusers scheduler would run: its config and a number of steps.

Nothing here imports diffusers: a `scheduler_config.json` is a mapping, and the schedulers are
published solvers on the grids of grids.py, with their own rules for lowering the order.

    DDIM, Euler, FlowMatchEuler, EDMEuler      first order
    DPMSolverMultistep, EDMDPMSolverMultistep  orders 1 to 3; midpoint is the halved derivative,
                                               heun the plain one
    DPMSolverSinglestep                        orders 1, 2, 3 from one start, in turn
    UniPCMultistep                             bh1, bh2, with its corrector
    DEISMultistep                              orders 1 to 3, polynomials in log(sigma / alpha)
    PNDM                                       Runge-Kutta or Heun first, then Adams with the
                                               weights of constant steps
    Heun, KDPM2, LMS                           trapezoid, midpoint at the geometric mean, Adams,
                                               all in sigma / alpha
    FlowMatchHeun                              trapezoid in the flow's own time

Schedulers evaluate the network at a whole timestep near the level they compute with (except
Euler, Heun, FlowMatchHeun and KDPM2); ours is called at the level itself.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.formats.importers.diffusers import solvers
from s3search.formats.importers.diffusers.config import SchedulerConfig
from s3search.formats.importers.diffusers.solvers import Made, SolverRun
from s3search.formats.importers.request import Request, read_json, required
from s3search.models.diffusers.scheduler_config import process_of
from s3search.processes import NoiseProcess
from s3search.schedules.schedule import Schedule, Step


def read(request: Request) -> Schedule:
    """The schedule of a scheduler_config.json, or of the one in a pipeline's folder."""
    path = Path(request.source)
    if path.is_dir():
        inside = (path / "scheduler_config.json", path / "scheduler" / "scheduler_config.json")
        path = next((p for p in inside if p.is_file()), inside[0])
    config = read_json(str(path))
    if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
        raise InvalidConfig(f"{path}: not a scheduler config of diffusers, it has no _class_name")
    try:
        return schedule_of(config["_class_name"], config, required(request, "steps"))
    except (InvalidConfig, InvalidSchedule) as error:
        raise type(error)(f"{path}: {error}") from error


def schedule_of(
    name: str, config: Mapping[str, Any], n: int, timesteps: Sequence[int] | None = None
) -> Schedule:
    """What the scheduler ``name`` runs with this config in n steps (or at these timesteps).

    ``notes`` in the provenance say where it cannot be told exactly.
    """
    if name in _MISSING:
        raise InvalidSchedule(f"{name}: {_MISSING[name]}")
    if name not in _SCHEDULERS:
        raise InvalidConfig(f"_class_name: {name!r} is not known; {nearest(name, _SCHEDULERS)}")
    make, usual = _SCHEDULERS[name]
    merged = {**usual, **config}
    try:
        parsed = SchedulerConfig.model_validate(
            {key: value for key, value in merged.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidConfig(f"{first['loc'][0]}: {first['msg']}") from error
    indices = None if timesteps is None else tuple(timesteps)
    run = SolverRun(config=parsed, process=_process(merged), n=n, indices=indices)
    times, steps = make(run)
    times, steps = _without_standing_still(run, times, steps)
    _note_the_models_part(run)
    return Schedule(
        process=run.process,
        times=times,
        steps=steps,
        provenance={"scheduler": name, "notes": tuple(run.notes)},
    )


def adds_noise(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the scheduler ``name`` is stochastic with this config."""
    is_sde = str(config.get("algorithm_type")).startswith(_SDE)
    return name in _MISSING or is_sde or bool(config.get("stochastic_sampling"))


def without_noise(name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A scheduler that visits the levels of ``name`` and adds no noise, and its config; the same
    ones where it adds none, or where there is no such scheduler.
    """
    quiet = {**config, "stochastic_sampling": False}
    if "algorithm_type" in config:
        quiet["algorithm_type"] = str(config["algorithm_type"]).removeprefix(_SDE)
    if name == "ScoreSdeVeScheduler":
        quiet["sigma_schedule"] = "exponential"
    return _QUIET.get(name, name), quiet


def _process(config: Mapping[str, Any]) -> NoiseProcess:
    try:
        return process_of(config)
    except InvalidSchedule:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidConfig(f"no noise process follows from this config ({error})") from error


def _without_standing_still(run: SolverRun, times: Sequence[float], steps: Sequence[Step]) -> Made:
    """Without a last step of no length, whose call changes nothing."""
    if len(times) < 2 or times[-1] != times[-2]:
        return times, steps
    kept = steps[:-1]
    call = "" if kept and kept[-1].corrector is not None else ", with its call"
    run.notes.append(f"the scheduler's last step stays where it is; it is left out{call}")
    return times[:-1], kept


def _note_the_models_part(run: SolverRun) -> None:
    clips = [name for name in ("thresholding", "clip_sample") if getattr(run.config, name)]
    run.notes.extend(
        f"{name}: changes what the network answers, which is the model's part and not in the "
        "schedule"
        for name in clips
    )
    if run.config.rescale_betas_zero_snr:
        run.notes.append("rescale_betas_zero_snr: the noisiest level is half of diffusers' alpha")


_BETAS = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
_EDM = {"sigma_schedule": "karras", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}

_SCHEDULERS: dict[str, tuple[Callable[[SolverRun], Made], dict[str, Any]]] = {
    "DDIMScheduler": (
        solvers.ddim,
        {**_BETAS, "timestep_spacing": "leading", "clip_sample": True},
    ),
    "DPMSolverMultistepScheduler": (solvers.dpm_multistep, _BETAS),
    "DPMSolverSinglestepScheduler": (
        solvers.dpm_singlestep,
        {**_BETAS, "lower_order_final": False},
    ),
    "EDMDPMSolverMultistepScheduler": (solvers.edm_dpm, _EDM),
    "UniPCMultistepScheduler": (solvers.unipc, {**_BETAS, "solver_type": "bh2"}),
    "DEISMultistepScheduler": (solvers.deis, _BETAS),
    "PNDMScheduler": (
        solvers.pndm,
        {**_BETAS, "timestep_spacing": "leading", "set_alpha_to_one": False},
    ),
    "EulerDiscreteScheduler": (solvers.euler, _BETAS),
    "EDMEulerScheduler": (solvers.edm_euler, _EDM),
    "HeunDiscreteScheduler": (solvers.heun, _BETAS),
    "KDPM2DiscreteScheduler": (solvers.kdpm2, _BETAS),
    "LMSDiscreteScheduler": (solvers.lms, _BETAS),
    "FlowMatchEulerDiscreteScheduler": (solvers.flow_euler, {"shift": 1.0}),
    "FlowMatchHeunDiscreteScheduler": (solvers.flow_heun, {"shift": 1.0}),
}
"""Each scheduler's reader, and what its constructor assumes where a config is silent."""

SCHEDULERS = tuple(_SCHEDULERS)
"""The classes that `schedule_of` knows."""

_SDE = "sde-"  # how the algorithm types that add noise begin

_NOISY = "adds noise at every step; schedules are deterministic"
_MISSING = {
    "DDPMParallelScheduler": _NOISY,
    "DDPMScheduler": _NOISY,
    "DPMSolverSDEScheduler": _NOISY,
    "EulerAncestralDiscreteScheduler": _NOISY,
    "KDPM2AncestralDiscreteScheduler": _NOISY,
    "LCMScheduler": _NOISY,
    "ScoreSdeVeScheduler": _NOISY,
}

_QUIET = {
    "DDIMParallelScheduler": "DDIMScheduler",
    "DDPMParallelScheduler": "DDIMScheduler",
    "DDPMScheduler": "DDIMScheduler",
    "EulerAncestralDiscreteScheduler": "EulerDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler": "KDPM2DiscreteScheduler",
    "ScoreSdeVeScheduler": "EDMEulerScheduler",
}
"""Who visits the same levels without noise."""
