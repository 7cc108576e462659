"""Schedules that carry their guidance, in the pipelines that can follow it.

A scheduler sees the network's answer after guidance.  The scale of each call is the pipeline's
own, which its callback may change between calls: in Stable Diffusion 1.x, 2.x, XL and 3.

>>> images = pipe(prompt, **guided(pipe, "schedule.json")).images

Image-to-image pipelines begin at the call that ``strength`` gives, with the scale of that call:

>>> images = pipe(prompt, image=image, **guided(pipe, "schedule.json", strength=0.6)).images
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3search.errors import InvalidSchedule
from s3search.integrations.diffusers import S3Scheduler
from s3search.models.diffusers.flows import FLOWS
from s3search.schedules.schedule import ModelPatch, Schedule

_BARELY = 1.0 + 1e-6  # pipelines halve their batch at 1, which they cannot do in mid-run


def guided(
    pipe: Any, schedule: str | Path | Schedule, *, strength: float | None = None
) -> dict[str, Any]:
    """The arguments that make ``pipe`` run a schedule with its guidance; replaces its scheduler.

    A call without guidance is made at 1.000001 and costs as much as the others there.  Raises
    `InvalidSchedule` for a schedule without guidance, for a pipeline that cannot change it, and
    for a ``strength`` that is missing, has no use or leaves no call.
    """
    own = schedule if isinstance(schedule, Schedule) else Schedule.load(schedule)
    patch = own.model_patch
    if patch is None or patch.guidance_scale is None:
        raise InvalidSchedule(
            "model_patch.guidance_scale: the schedule has none; give S3Scheduler the schedule and "
            "guidance_scale to the pipeline"
        )
    known = inspect.signature(type(pipe).__call__).parameters
    entry = FLOWS.get(type(pipe).__name__)
    is_read = hasattr(type(pipe), "do_classifier_free_guidance")  # before every call
    is_read = is_read and (entry is None or entry.guides_calls)
    if "callback_on_step_end" not in known or not is_read:
        raise InvalidSchedule(
            f"model_patch.guidance_scale: {type(pipe).__name__} cannot change its guidance from "
            "call to call; search it with a fixed guidance_scale in [model]"
        )
    if ("strength" in known) != (strength is not None):
        need = "needs strength" if strength is None else f"has no use for {strength=}"
        raise InvalidSchedule(
            f"strength: {type(pipe).__name__} {need}; an image-to-image pipeline begins inside "
            "the schedule, and its first scale is that of the call it begins at"
        )
    rest = patch.model_copy(update={"guidance_scale": None})
    plain = own.model_copy(update={"model_patch": None if rest == ModelPatch() else rest})
    pipe.scheduler = S3Scheduler.from_schedule(plain, pipe.scheduler.config)
    n = pipe.scheduler.num_steps
    begin = 0 if strength is None else n - _n_calls(pipe, n, strength)
    scales = patch.guidance_scale[begin:]
    return {
        **({} if strength is None else {"strength": strength}),
        "num_inference_steps": n,
        "guidance_scale": max(scales[0], _BARELY),
        "callback_on_step_end": _Scales(scales),
    }


def _n_calls(pipe: Any, n: int, strength: float) -> int:
    """How many of the ``n`` calls an image-to-image pipeline makes, by its own rounding."""
    try:
        times, _ = pipe.get_timesteps(n, strength, "cpu")
    except TypeError as error:
        raise InvalidSchedule(
            f"strength: {type(pipe).__name__}.get_timesteps takes other arguments than those of "
            f"Stable Diffusion ({error}); use its image-to-image pipeline"
        ) from error
    pipe.scheduler.set_timesteps(n)
    if not 0.0 <= strength <= 1.0 or not len(times):
        raise InvalidSchedule(
            f"strength: {strength} leaves {len(times)} of the schedule's {n} calls; "
            f"it lies between {1 / n:.3g} and 1"
        )
    return len(times)


class _Scales:
    """Sets the scale of the next call."""

    def __init__(self, scales: Sequence[float]) -> None:
        self._scales = scales

    def __call__(self, pipe: Any, step: int, t: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        if step + 1 < len(self._scales):
            pipe._guidance_scale = max(self._scales[step + 1], _BARELY)
        return arguments
