"""diffusers' schedulers at a number of network calls, with the config of a pipeline's own one.

What ``Scheduler.from_config(pipe.scheduler.config)`` would run, as schedules: the pipeline's
betas, spacing and offset, and what its file leaves out as that scheduler has it.  On flows the
multistep solvers run with ``use_flow_sigmas``, as their documentation tells.  The schedules are
measured like any other: called at the level itself, on the study's noise.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.diffusers import SCHEDULERS, schedule_of
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import Edm, Flow, NoiseProcess
from s3search.schedules.schedule import Schedule

_ON_FLOWS = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")


def schedulers_of(
    own: OwnSampler | None, process: NoiseProcess, nfe: int
) -> tuple[dict[str, Schedule], dict[str, str]]:
    """Every known scheduler that makes exactly ``nfe`` calls, by its class, and why the others of
    this kind of process do not.

    Raises `InvalidConfig` for a model without a scheduler's config, unless its process says all
    that is needed.
    """
    config = _config(own, process)
    found: dict[str, Schedule] = {}
    missing: dict[str, str] = {}
    for name in _names(process):
        made = _with_calls(name, config, process, nfe)
        if isinstance(made, Schedule):
            found[name] = made
        else:
            missing[name] = made
    return found, missing


def _config(own: OwnSampler | None, process: NoiseProcess) -> Mapping[str, Any]:
    if own is not None:
        config = {key: value for key, value in own.config.items() if key not in own.left_out}
        if own.shift is not None:  # that of images of the size asked for
            config |= {"use_dynamic_shifting": False, "shift": own.shift}
        if isinstance(process, Flow):
            config.setdefault("flow_shift", config.get("shift", 1.0))
        return config
    match process:
        case Edm():
            return {"sigma_min": process.sigma_min, "sigma_max": process.sigma_max}
        case Flow():
            return {}
    raise InvalidConfig(
        f"--schedulers: a {process.type!r} model without a pipeline has no scheduler config; "
        'load it with `loader = "diffusers"`, or leave the option out'
    )


def _names(process: NoiseProcess) -> Iterator[str]:
    for name in SCHEDULERS:
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


def _with_calls(
    name: str, config: Mapping[str, Any], process: NoiseProcess, nfe: int
) -> Schedule | str:
    """The schedule of as many steps as make ``nfe`` calls, or why there is none."""
    if isinstance(process, Flow) and name in _ON_FLOWS:
        config = {**config, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    reason = f"no number of its steps makes {nfe} calls"
    for n in (nfe, *(n for n in range(1, nfe + 3) if n != nfe)):
        try:
            schedule = schedule_of(name, config, n)
        except (InvalidConfig, InvalidSchedule) as error:
            reason = str(error) if n == nfe else reason
            continue
        if not schedule.process.same_levels(process):
            return f"its process is {schedule.process!r}, the model's is {process!r}"
        if schedule.nfe == nfe:
            return schedule
    return reason
