"""The baselines that a pipeline brings: what it runs unless told otherwise."""

from collections.abc import Callable

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.diffusers import schedule_of
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import Flow, NoiseProcess
from s3search.schedules.published import flow_2m, flow_euler, flow_heun
from s3search.schedules.schedule import Schedule

_FLOW: dict[str, Callable[..., Schedule]] = {
    "flow Euler": flow_euler,
    "flow AB-2": flow_2m,
    "flow Heun": flow_heun,
}


def own_baselines(sampler: OwnSampler, process: NoiseProcess, nfe: int) -> dict[str, Schedule]:
    """The pipeline's scheduler at exactly ``nfe`` calls, where it is deterministic and known, and
    for flows the usual solvers at the model's own shift; by readable names.
    """
    found: dict[str, Schedule] = {}
    for n in (nfe, (nfe + 1) // 2):  # Heun's steps make two calls
        try:
            schedule = schedule_of(sampler.scheduler, sampler.config, n)
        except (InvalidConfig, InvalidSchedule):
            continue
        if schedule.nfe == nfe and schedule.process.same_levels(process):
            found[f"{sampler.scheduler} of the pipeline"] = schedule
            break
    if sampler.shift is not None and isinstance(process, Flow):
        for name, make in _FLOW.items():
            try:
                found[f"{name}, shift {sampler.shift:.4g}"] = make(
                    process, nfe=nfe, shift=sampler.shift
                )
            except InvalidSchedule:
                continue  # this solver has no such number of calls
    return found
