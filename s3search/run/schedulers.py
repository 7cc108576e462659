"""diffusers' schedulers at a number of network calls, with the config of a pipeline's own one.

What ``Scheduler.from_config(pipe.scheduler.config)`` would run, as schedules: the pipeline's
betas, spacing and offset, and what its file leaves out as that scheduler has it.  A model without
a pipeline has the table of betas that its process says; a continuous one that of 1000 steps which
diffusers' users give such a model, and its levels are looked up in the process.  On flows the
multistep solvers run with ``use_flow_sigmas``, as their documentation tells.  The schedules are
measured like any other: called at the level itself, on the study's noise.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.diffusers import SCHEDULERS, SDE, schedule_of, without_noise
from s3search.models.diffusers.scheduler_classes import CLASSES
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import Edm, Flow, NoiseProcess, VpCosine, VpDiscrete, VpLinear
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import is_near_its_level, noisy_time

_ON_FLOWS = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
_TAKES_LEVELS = ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler")
_LIKE_DDIM = ("DDIMParallelScheduler", "CogVideoXDDIMScheduler")  # nothing that DDIM does not run
_TABLE = 1000  # training steps of diffusers' schedulers
_COSINE = "squaredcos_cap_v2"  # diffusers' name

Keys = Mapping[str, Any]


def schedulers_of(
    own: OwnSampler | None, process: NoiseProcess, nfe: int, changes: Keys | None = None
) -> dict[str, Schedule | str]:
    """Every known scheduler without noise of this kind of process by its class: its schedule of
    exactly ``nfe`` calls, or why there is none; ``changes`` are keys of the config that are
    another here.
    """
    config = {**_config(own, process), **(changes or {})}
    pipeline = None if own is None else own.pipeline
    return {
        name: _with_calls(name, config, process, nfe, pipeline if _takes(name, process) else None)
        for name in _names(process)
    }


def _takes(name: str, process: NoiseProcess) -> bool:
    """Whether a scheduler takes the levels that a flow's pipeline may pass."""
    return isinstance(process, Flow) and name in _TAKES_LEVELS


def own_scheduler(own: OwnSampler, process: NoiseProcess, nfe: int) -> Schedule | str:
    """What the pipeline runs unless told otherwise, with the noise that it may add; or why there
    is no such schedule.
    """
    return _with_calls(own.scheduler, {**own.config, **_sized(own)}, process, nfe, own.pipeline)


def own_scheduler_without_noise(
    own: OwnSampler, process: NoiseProcess, nfe: int
) -> Schedule | str:
    """What the pipeline runs on its own grid without the noise that it adds; or why there is no
    such schedule.
    """
    quiet = without_noise(own.scheduler, own.config)
    if quiet is None:
        return "adds noise at every step, and there is no such scheduler without it"
    name, config = quiet
    return _with_calls(name, config | _sized(own), process, nfe, own.pipeline)


def _sized(own: OwnSampler) -> dict[str, Any]:
    """A flow's shift for images of the size asked for."""
    if own.shift is None:
        return {}
    return {"use_dynamic_shifting": False, "shift": own.shift, "flow_shift": own.shift}


def _with_calls(
    name: str, config: Keys, process: NoiseProcess, nfe: int, pipeline: str | None = None
) -> Schedule | str:
    """The schedule of as many steps as make ``nfe`` calls, or why there is none."""
    if isinstance(process, Flow) and name in _ON_FLOWS:
        config = {**config, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    reason = f"no number of its steps makes {nfe} calls"
    for n in _numbers_of_steps(nfe):
        try:
            schedule = _on_process(schedule_of(name, config, n, pipeline=pipeline), process)
        except (InvalidConfig, InvalidSchedule) as error:
            reason = str(error) if n == nfe else reason
            continue
        if not schedule.process.same_levels(process):
            return f"its process is {schedule.process!r}, the model's is {process!r}"
        if schedule.nfe == nfe:
            return _begun_plainly(schedule)
    return reason


def _numbers_of_steps(nfe: int) -> list[int]:
    """Those that may make ``nfe`` calls: one each, two each but for the last step, PNDM's one or
    nine more; and one step more where the last one stays where it is.
    """
    likely = (nfe, (nfe + 1) // 2, nfe - 1, nfe - 9)
    return [n for n in dict.fromkeys([*likely, *(n + 1 for n in likely)]) if n > 0]


def _config(own: OwnSampler | None, process: NoiseProcess) -> Keys:
    if own is not None:
        config = {key: value for key, value in own.config.items() if key not in own.left_out}
        config |= _sized(own)
        if str(config.get("algorithm_type")).startswith(SDE):
            config["algorithm_type"] = str(config["algorithm_type"]).removeprefix(SDE)
        return {**config, "stochastic_sampling": False, "eta": 0.0}
    match process:
        case Edm():
            return {"sigma_min": process.sigma_min, "sigma_max": process.sigma_max}
        case Flow():
            return {}
        case VpLinear():
            low, high = process.beta_min / _TABLE, process.beta_max / _TABLE
            return {"beta_schedule": "linear", "beta_start": low, "beta_end": high}
        case VpCosine():
            return {"beta_schedule": _COSINE}
        case VpDiscrete(betas=tuple(betas), n=n):
            return {"trained_betas": betas, "num_train_timesteps": n}
        case VpDiscrete():
            named = _COSINE if process.betas == "cosine" else process.betas
            ends = {"beta_start": process.beta_start, "beta_end": process.beta_end}
            return {"beta_schedule": named, "num_train_timesteps": process.n, **ends}


def _names(process: NoiseProcess) -> Iterator[str]:
    for name in SCHEDULERS:
        if name in _LIKE_DDIM or CLASSES[name].adds_noise:
            continue
        of_edm, of_flows = name.startswith("EDM"), name.startswith("FlowMatch")
        match process:
            case Edm():
                fits = of_edm
            case Flow():
                fits = of_flows or name in _ON_FLOWS
            case _:
                fits = not of_edm and not of_flows
        if fits:
            yield name


def _begun_plainly(schedule: Schedule) -> Schedule:
    """``schedule`` begun with the noise of its first level, where that is the noisiest and the
    scheduler's own within a part in a hundred: no distance tells them apart, and its steps are
    then a plain solver's.
    """
    process, first, scale = schedule.process, schedule.times[0], schedule.start.noise_scale
    if scale is None or first != noisy_time(process):
        return schedule
    if not is_near_its_level(process, first, scale):
        return schedule
    return schedule.changed(start=schedule.start.model_copy(update={"noise_scale": None}))


def _on_process(schedule: Schedule, process: NoiseProcess) -> Schedule:
    """A schedule of a table moved to the continuous process that the table is made of; a start
    that is noisier than its noisy end begins there.
    """
    table = schedule.process
    if not (isinstance(table, VpDiscrete) and isinstance(process, VpLinear | VpCosine)):
        return schedule
    noisiest, times = process.lam(process.time_range[1]), list(schedule.times)
    if table.lam(times[0]) < noisiest:
        times[0] = table.time_of_lam(noisiest)
        schedule = schedule.changed(times=times)
    return retime(schedule, process)
