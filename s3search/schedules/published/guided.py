"""Classifier-free guidance call by call, as a part of the schedule.

A limited interval is arXiv:2404.07724: no guidance at high noise, where it narrows what is made,
nor at low noise, where it changes nothing.
"""

from collections.abc import Sequence

from s3search.schedules.schedule import ModelPatch, Schedule


def with_guidance(schedule: Schedule, scales: Sequence[float]) -> Schedule:
    """``schedule`` whose network call j is guided with ``scales[j]``; 1 is no guidance, and half
    the cost.
    """
    own = schedule.model_patch or ModelPatch()
    patch = {**dict(own), "guidance_scale": [float(scale) for scale in scales]}
    return schedule.changed(model_patch=patch)


def guided_in_interval(
    schedule: Schedule, times: Sequence[float], scale: float, interval: tuple[float, float]
) -> Schedule:
    """``schedule`` guided with ``scale`` at those calls whose time lies in ``interval``.

    ``times`` are those of its calls, `Plan.network_times`.
    """
    low, high = interval
    return with_guidance(schedule, [scale if low <= t <= high else 1.0 for t in times])
