"""Schedules that carry their guidance, in the pipelines that can follow it.

A scheduler sees the network's answer after guidance.  The scale of each call is the pipeline's
own, which its callback may change between calls: in Stable Diffusion 1.x, 2.x, XL and 3.

>>> images = pipe(prompt, **guided(pipe, "schedule.json")).images
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3search.errors import InvalidSchedule
from s3search.integrations.diffusers import S3Scheduler
from s3search.schedules.schedule import ModelPatch, Schedule

_BARELY = 1.0 + 1e-6  # pipelines halve their batch at 1, which they cannot do in mid-run


def guided(pipe: Any, schedule: str | Path | Schedule) -> dict[str, Any]:
    """The arguments that make ``pipe`` run a schedule with its guidance; replaces its scheduler.

    A call without guidance is made at 1.000001 and costs as much as the others there.  Raises
    `InvalidSchedule` for a schedule without guidance and for a pipeline that cannot change it.
    """
    own = schedule if isinstance(schedule, Schedule) else Schedule.load(schedule)
    patch = own.model_patch
    if patch is None or patch.guidance_scale is None:
        raise InvalidSchedule(
            "model_patch.guidance_scale: the schedule has none; give S3Scheduler the schedule and "
            "guidance_scale to the pipeline"
        )
    known = inspect.signature(type(pipe).__call__).parameters
    is_read = hasattr(type(pipe), "do_classifier_free_guidance")  # before every call
    if "callback_on_step_end" not in known or not is_read:
        raise InvalidSchedule(
            f"model_patch.guidance_scale: {type(pipe).__name__} cannot change its guidance from "
            "call to call; search it with a fixed guidance_scale in [model]"
        )
    rest = patch.model_copy(update={"guidance_scale": None})
    plain = own.model_copy(update={"model_patch": None if rest == ModelPatch() else rest})
    pipe.scheduler = S3Scheduler.from_schedule(plain, pipe.scheduler.config)
    return {
        "num_inference_steps": pipe.scheduler.num_steps,
        "guidance_scale": max(patch.guidance_scale[0], _BARELY),
        "callback_on_step_end": _Scales(patch.guidance_scale),
    }


class _Scales:
    """Sets the scale of the next call."""

    def __init__(self, scales: Sequence[float]) -> None:
        self._scales = scales

    def __call__(self, pipe: Any, step: int, t: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        if step + 1 < len(self._scales):
            pipe._guidance_scale = max(self._scales[step + 1], _BARELY)
        return arguments
