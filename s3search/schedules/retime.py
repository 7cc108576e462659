"""Moving a schedule to another process.

Every rule is a function of lam = log(alpha / sigma) or of sigma / alpha, so a schedule moved to
the times of equal lam makes the same trajectory of x / alpha: nothing is approximated.  A free
step holds numbers for the scale of its states; they are multiplied by the ratios of the scales.
"""

import math
from collections.abc import Callable

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import NoiseKind, StepNoise
from s3search.rules.compensation import Interpolation
from s3search.schedules.schedule import Schedule, Start


def retime(schedule: Schedule, process: NoiseProcess) -> Schedule:
    """``schedule`` on the times of equal lam of ``process``; itself if the levels are the same.

    Raises `InvalidSchedule` where ``process`` has no such level.
    """
    if schedule.process.same_levels(process):
        return schedule

    def moved(t: float, field: str) -> float:
        return _time_of_equal_lam(schedule.process, process, t, field)

    times = [moved(t, f"times[{i}]") for i, t in enumerate(schedule.times)]
    scales = [
        _scale(process, new) / _scale(schedule.process, old)
        for old, new in zip(schedule.times, times, strict=True)
    ]
    steps = []
    for i, step in enumerate(schedule.steps):
        if isinstance(step.compensation, Interpolation):
            raise InvalidSchedule(
                f"steps[{i}].compensation: it interpolates in the time of "
                f"{schedule.process.type!r}, which another process does not have; fit the ratios "
                "on this model"
            )
        network_time = step.network_time
        if network_time is not None:
            network_time = moved(network_time, f"steps[{i}].network_time")
        corrector, past, to = step.corrector, scales[: i + 1], scales[i + 1]
        if corrector is not None:
            rule = corrector.rule.scaled([*past, to], to)
            corrector = corrector.model_copy(update={"rule": rule})
        predictor = step.predictor.scaled(past, to)
        noise = _moved_noise(step.noise, moved, f"steps[{i}].noise.amount")
        update = {
            "network_time": network_time,
            "predictor": predictor,
            "corrector": corrector,
            "noise": noise,
        }
        steps.append(step.model_copy(update=update))
    start = _moved_start(schedule.start, moved, scales[0])
    return schedule.changed(process=process, times=times, start=start, steps=steps, provenance={})


def _scale(process: NoiseProcess, t: float) -> float:
    """The size of the states; alpha and sigma go with it at equal lam, whichever is 0."""
    return math.hypot(process.alpha(t), process.sigma(t))


def _moved_start(start: Start, moved: Callable[[float, str], float], scale: float) -> Start:
    network_time, jump, noise_scale = start.network_time, start.jump, start.noise_scale
    if network_time is not None:
        network_time = moved(network_time, "start.network_time")
    if jump is not None:
        t = moved(jump.from_time, "start.jump.from_time")
        jump = jump.model_copy(update={"from_time": t})
    if noise_scale is not None:
        noise_scale *= scale
    update = {
        "network_time": network_time,
        "jump": jump,
        "noise_scale": noise_scale,
        "noise": _moved_noise(start.noise, moved, "start.noise.amount"),
    }
    return start.model_copy(update=update)


def _moved_noise(
    noise: StepNoise | None, moved: Callable[[float, str], float], field: str
) -> StepNoise | None:
    """Noise whose amount is a time has that of equal lam; the other amounts are ratios."""
    if noise is None or noise.kind is not NoiseKind.TIME:
        return noise
    return noise.model_copy(update={"amount": moved(noise.amount, field)})


def _time_of_equal_lam(source: NoiseProcess, target: NoiseProcess, t: float, field: str) -> float:
    lam = source.lam(t)
    if lam == math.inf:
        return target.clean_time
    reason = "pure noise has no finite lam"
    if lam > -math.inf:
        found = target.time_of_lam(lam)
        reason = target.check_time(found) or ""
        if not reason:
            return found
    highest = math.exp(-target.lam(target.time_range[1]))
    raise InvalidSchedule(
        f"{field}: t = {t} of {source.type!r} has sigma / alpha = {math.exp(-lam):.6g}, outside "
        f"what a {target.type!r} model was trained for (at most {highest:.6g}): {reason}; "
        "use a schedule made for this model"
    )
