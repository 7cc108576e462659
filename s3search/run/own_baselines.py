"""The baselines that a pipeline brings: solvers of a flow at the model's own shift, and what
studies of before there were stock solvers began with.
"""

from collections.abc import Callable

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.diffusers import schedule_of
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import Flow, NoiseProcess
from s3search.schedules.published import flow_2m, flow_euler, flow_heun
from s3search.schedules.schedule import Schedule, Start
from s3search.search.trial import Trial, of_pipeline, published_as

_FLOW: dict[str, Callable[..., Schedule]] = {
    "flow Euler": flow_euler,
    "flow AB-2": flow_2m,
    "flow Heun": flow_heun,
}


def own_flow_solvers(
    sampler: OwnSampler, process: NoiseProcess, nfe: int, said: int | None = None
) -> list[Trial]:
    """For flows the usual solvers at the model's own shift; ``said``: the number of calls, where
    labels are to say it.
    """
    if sampler.shift is None or not isinstance(process, Flow):
        return []
    found: list[Trial] = []
    for name, make in _FLOW.items():
        try:
            schedule = make(process, nfe=nfe, shift=sampler.shift)
        except InvalidSchedule:
            continue  # this solver has no such number of calls
        variant = f"shift {sampler.shift:.4g}"
        found.append(Trial.of(schedule, published_as(name, variant, said)))
    return found


def own_scheduler_of_before(
    sampler: OwnSampler, process: NoiseProcess, nfe: int, said: int | None = None
) -> list[Trial]:
    """The pipeline's scheduler, where it is deterministic and known, as studies have it that were
    begun before there were stock solvers.
    """
    for n in (nfe, (nfe + 1) // 2):  # Heun's steps make two calls
        try:
            schedule = schedule_of(sampler.scheduler, sampler.config, n).changed(start=Start())
        except (InvalidConfig, InvalidSchedule):
            continue
        if schedule.is_stochastic:
            return []
        if schedule.nfe == nfe and schedule.process.same_levels(process):
            return [Trial.of(schedule, of_pipeline(sampler.scheduler, nfe=said))]
    return []
