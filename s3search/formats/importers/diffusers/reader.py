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
    DDPM, EulerAncestral, KDPM2Ancestral, DPMSolverSDE, SASolver, LCM, TCD, FlowMatchLCM,
    LTXEulerAncestralRF; sde- types, eta of DDIM, stochastic_sampling: noise in their steps

Schedulers evaluate the network at a whole timestep near the level they compute with (except
Euler, Heun, FlowMatchHeun and KDPM2); ours is called at the level itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.diffusers import noisy, solvers
from s3search.formats.importers.diffusers.config import SDE, SchedulerConfig
from s3search.formats.importers.diffusers.run import Made, SolverRun
from s3search.formats.importers.diffusers.starts import network_times_off, noise_scale_of
from s3search.formats.importers.request import Request, required
from s3search.formats.importers.solvers import amounts_of
from s3search.models.diffusers.pipeline_sigmas import (
    PASSES_ANOTHER,
    Passed,
    passed_by,
    sigmas_passed,
)
from s3search.models.diffusers.scheduler_classes import (
    CLASSES,
    Fate,
    class_named,
    names_of,
    values_of,
)
from s3search.models.diffusers.scheduler_config import process_of
from s3search.models.diffusers.scheduler_file import read_scheduler_file
from s3search.processes import Flow, NoiseProcess
from s3search.schedules.schedule import Schedule, Start, Step


def read(request: Request) -> Schedule:
    """The schedule of a scheduler_config.json, or of the one in a pipeline's folder."""
    file = read_scheduler_file(request.source)
    if file.class_name is None:
        raise InvalidConfig(
            f"{file.path}: not a scheduler config of diffusers, it has no _class_name"
        )
    try:
        config = {**file.config, **amounts_of(request)}
        made = schedule_of(
            file.class_name, config, required(request, "steps"), pipeline=file.pipeline
        )
    except (InvalidConfig, InvalidSchedule) as error:
        raise type(error)(f"{file.path}: {error}") from error
    notes = (*file.notes, *made.provenance["notes"], *_notes_of_the_pipeline(made))
    return made.model_copy(update={"provenance": {**made.provenance, "notes": notes}})


def _notes_of_the_pipeline(made: Schedule) -> list[str]:
    """Where the pipeline's images are not the schedule's, and by how much."""
    notes, origin = [], made.provenance
    if "network_times_off" in origin:
        notes.append(
            "network: the scheduler tells it whole timesteps, up to "
            f"{origin['network_times_off']:.2g} of a training step from those of its levels; the "
            "schedule tells it the levels' own"
        )
    return notes


def schedule_of(
    name: str,
    config: Mapping[str, Any],
    n: int,
    timesteps: Sequence[int] | None = None,
    pipeline: str | None = None,
    sigmas: Sequence[float] | None = None,
) -> Schedule:
    """What the scheduler ``name`` runs with this config in n steps (or at these timesteps), alone
    or in a pipeline of the class ``pipeline``, which may pass levels by itself; ``sigmas`` are
    those that a program hands to a flow's scheduler.

    ``notes`` in the provenance say where it cannot be told exactly.
    """
    known = class_named(name)
    if known.fate is not Fate.IMPORTED:
        raise InvalidSchedule(f"{name}: {known.reason}")
    values = values_of(name, config)
    parsed = _parsed(values)
    indices = None if timesteps is None else tuple(timesteps)
    process = process_of(config, name)
    passed = _passed(pipeline, values, process)
    if sigmas is None and passed is not None:
        sigmas = sigmas_passed(passed, n)
    run = SolverRun(
        config=parsed, process=process, n=n, indices=indices, sigmas=_handed(sigmas, process)
    )
    times, steps = _MADE_BY[name](run)
    times, steps = _without_standing_still(run, times, steps)
    if passed is Passed.WHOLE_TIMES:
        steps = _with_network_times(steps, sigmas_passed(passed, n))
    _note_the_models_part(run)
    scale, own = noise_scale_of(name, parsed, process, times[0]), process.sigma(times[0])
    start = Start(noise_scale=scale if abs(scale / own - 1.0) > _SAME_SCALE else None)
    off = network_times_off(name, parsed, process, times)
    facts = {} if passed is None else {"sigmas_of": f"{pipeline}: {passed.value}"}
    return Schedule(
        process=process,
        times=times,
        start=start,
        steps=steps,
        provenance={
            "scheduler": name,
            "notes": tuple(run.notes),
            **({"network_times_off": off} if off > _SAME_TIME else {}),
            **facts,
        },
    )


def _parsed(values: Mapping[str, Any]) -> SchedulerConfig:
    try:
        return SchedulerConfig.model_validate(
            {key: value for key, value in values.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidConfig(f"{first['loc'][0]}: {first['msg']}") from error


def _handed(sigmas: Sequence[float] | None, process: NoiseProcess) -> tuple[float, ...] | None:
    """The levels that are handed to the scheduler."""
    if sigmas is not None and not isinstance(process, Flow):
        raise InvalidSchedule("sigmas are taken by flows alone; import them as a list")
    return None if sigmas is None else tuple(sigmas)


def _passed(
    pipeline: str | None, values: Mapping[str, Any], process: NoiseProcess
) -> Passed | None:
    """What the pipeline hands to a flow's scheduler."""
    if not isinstance(process, Flow):
        return None
    if pipeline in PASSES_ANOTHER:
        raise InvalidSchedule(
            f"{pipeline} passes {PASSES_ANOTHER[pipeline]} to its scheduler, which nothing here "
            "computes; import those levels as a list: s3search import sigmas"
        )
    return passed_by(pipeline, has_flow_sigmas=bool(values.get("use_flow_sigmas")))


def _with_network_times(steps: Sequence[Step], network_times: Sequence[float]) -> list[Step]:
    """The steps, whose network is told these times and not those of their levels."""
    own = [*network_times[1:], None]
    return [
        step.model_copy(update={"network_time": t}) for step, t in zip(steps, own, strict=True)
    ]


def adds_noise(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the scheduler ``name`` is stochastic with this config."""
    is_sde = str(config.get("algorithm_type")).startswith(SDE)
    is_noisy = name in CLASSES and CLASSES[name].adds_noise
    has_eta = name in _WITH_ETA and bool(config.get("eta"))
    return is_noisy or has_eta or is_sde or bool(config.get("stochastic_sampling"))


def without_noise(name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """A scheduler that visits the levels of ``name`` and adds no noise, and its config; the same
    ones where it adds none, None where there is no such scheduler.
    """
    quiet = {**config, "stochastic_sampling": False}
    quiet.pop("eta", None)
    if "algorithm_type" in config:
        quiet["algorithm_type"] = str(config["algorithm_type"]).removeprefix(SDE)
    if name == "ScoreSdeVeScheduler":
        quiet["sigma_schedule"] = "exponential"
    found = _QUIET.get(name, name)
    return None if found in CLASSES and CLASSES[found].adds_noise else (found, quiet)


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


_MADE_BY: dict[str, Callable[[SolverRun], Made]] = {
    "DDIMScheduler": solvers.ddim,
    "DDIMParallelScheduler": solvers.ddim,
    "CogVideoXDDIMScheduler": solvers.ddim,
    "DPMSolverMultistepScheduler": solvers.dpm_multistep,
    "DPMSolverSinglestepScheduler": solvers.dpm_singlestep,
    "EDMDPMSolverMultistepScheduler": solvers.edm_dpm,
    "UniPCMultistepScheduler": solvers.unipc,
    "DEISMultistepScheduler": solvers.deis,
    "PNDMScheduler": solvers.pndm,
    "EulerDiscreteScheduler": solvers.euler,
    "EDMEulerScheduler": solvers.edm_euler,
    "HeunDiscreteScheduler": solvers.heun,
    "KDPM2DiscreteScheduler": solvers.kdpm2,
    "LMSDiscreteScheduler": solvers.lms,
    "FlowMatchEulerDiscreteScheduler": solvers.flow_euler,
    "FlowMatchHeunDiscreteScheduler": solvers.flow_heun,
    "DDPMScheduler": noisy.ddpm,
    "DDPMParallelScheduler": noisy.ddpm,
    "EulerAncestralDiscreteScheduler": noisy.euler_ancestral,
    "KDPM2AncestralDiscreteScheduler": noisy.kdpm2_ancestral,
    "DPMSolverSDEScheduler": noisy.dpm_sde,
    "SASolverScheduler": noisy.sa_solver,
    "LCMScheduler": noisy.lcm,
    "TCDScheduler": noisy.tcd,
    "FlowMatchLCMScheduler": noisy.flow_lcm,
    "LTXEulerAncestralRFScheduler": noisy.flow_ancestral,
}
"""The reader of each class that is imported."""

SCHEDULERS = names_of([Fate.IMPORTED])
"""The classes that `schedule_of` knows."""

_SAME_SCALE = 1e-5  # float32 hides a difference in scale below this
_SAME_TIME = 1e-6  # indices this near are one: they came through a logarithm

_WITH_ETA = ("DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler")
"""Those whose steps add noise where an eta asks for it."""

_QUIET = {
    "DDPMParallelScheduler": "DDIMScheduler",
    "DDPMScheduler": "DDIMScheduler",
    "EulerAncestralDiscreteScheduler": "EulerDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler": "KDPM2DiscreteScheduler",
    "LTXEulerAncestralRFScheduler": "FlowMatchEulerDiscreteScheduler",
    "ScoreSdeVeScheduler": "EDMEulerScheduler",
}
"""Who visits the same levels without noise."""
