"""The baselines that a pipeline brings: what it runs unless told otherwise."""

from collections.abc import Callable

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.diffusers import schedule_of
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import Flow, NoiseProcess
from s3search.schedules.published import flow_2m, flow_euler, flow_heun
from s3search.schedules.schedule import Schedule
from s3search.search.trial import Trial, of_pipeline, published_as

_FLOW: dict[str, Callable[..., Schedule]] = {
    "flow Euler": flow_euler,
    "flow AB-2": flow_2m,
    "flow Heun": flow_heun,
}


def own_baselines(
    sampler: OwnSampler, process: NoiseProcess, nfe: int, said: int | None = None
) -> list[Trial]:
    """The pipeline's scheduler at exactly ``nfe`` calls, where it is deterministic and known, and
    for flows the usual solvers at the model's own shift; ``said``: the number of calls, where
    labels are to say it.
    """
    found: list[Trial] = []
    for n in (nfe, (nfe + 1) // 2):  # Heun's steps make two calls
        try:
            schedule = schedule_of(sampler.scheduler, sampler.config, n)
        except (InvalidConfig, InvalidSchedule):
            continue
        if schedule.nfe == nfe and schedule.process.same_levels(process):
            found.append(Trial.of(schedule, of_pipeline(sampler.scheduler, said)))
            break
    if sampler.shift is not None and isinstance(process, Flow):
        for name, make in _FLOW.items():
            try:
                schedule = make(process, nfe=nfe, shift=sampler.shift)
            except InvalidSchedule:
                continue  # this solver has no such number of calls
            variant = f"shift {sampler.shift:.4g}"
            found.append(Trial.of(schedule, published_as(name, variant, said)))
    return found
