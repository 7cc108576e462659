"""Golden cases of diffusers: the importer's schedule for the case's config is what is run.

Raises `NoSchedule` where no linear plan can be what the scheduler runs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s3search.formats.importers.diffusers import INEXACT, schedule_of
from s3search.models.diffusers.scheduler_classes import CLASSES, values_of
from s3search.schedules.schedule import Schedule
from s3search.solvers.sample import Denoiser
from tests.support.helpers import NoSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A schedule, what its start state is scaled by, and how many calls the scheduler wastes."""

    schedule: Schedule
    start_scale: float
    unused_calls: int


def replay(case: Mapping[str, Any]) -> Replay:
    """The importer's answer for one case."""
    solver = case["solver"]
    config, arguments = dict(solver["config"]), dict(solver["set_timesteps"])
    read = values_of(solver["name"], config)  # clip_sample is on where a config says nothing
    changed = [key for key in ("clip_sample", "thresholding") if read.get(key)]
    if solver["name"] == "DDIMScheduler" and changed:
        raise NoSchedule(
            f"{changed[0]}: x0 is changed and the noise beside it is not: neither follows from "
            "the other, so the step is linear in no network's answer"
        )
    order = _order_of_lms(case["notes"])
    if order is not None:
        config["lms_order"] = order
    timesteps, sigmas = (arguments.pop(key, None) for key in ("timesteps", "sigmas"))
    if arguments.get("mu") is not None:
        config["mu"] = arguments["mu"]
    arguments.pop("mu", None)
    if arguments:
        raise ValueError(f"unknown arguments {sorted(arguments)}")
    if config.get("stochastic_sampling"):
        raise NoSchedule("noise is added at every step, and the case does not say which")
    n = solver["num_inference_steps"] or len(sigmas or ())
    schedule = schedule_of(solver["name"], config, n, timesteps, sigmas=sigmas)
    notes = schedule.provenance["notes"]
    if any(note.startswith(INEXACT) for note in notes):
        raise NoSchedule(
            "a step ends at the level of t - 1000 // n and the next one reads that state at its "
            "own timestep's level: no constant image or noise is carried"
        )
    # k-diffusion's samplers keep the state at x / alpha
    alpha = schedule.process.alpha(schedule.times[0])
    scale = alpha if solver["state_scaling"] == "ve" else 1.0
    return Replay(
        schedule=schedule,
        start_scale=scale,
        unused_calls=sum(note.endswith("with its call") for note in notes),
    )


def _order_of_lms(notes: Sequence[str]) -> int | None:
    """The order that the case passed to every step of LMS, None where it passed none."""
    found = [re.fullmatch(r"step\(order=(\d+)\)", note) for note in notes]
    return next((int(match[1]) for match in found if match), None)


def thresholds(solver: Mapping[str, Any]) -> bool:
    """Whether the scheduler thresholds: UniPC does so only where it extrapolates x0, and those
    from k-diffusion and the Euler ones of flows never do.
    """
    if solver["name"] == "UniPCMultistepScheduler" and not solver["config"].get(
        "predict_x0", True
    ):
        return False
    has_it = "thresholding" in CLASSES[solver["name"]].defaults
    return has_it and bool(solver["config"].get("thresholding"))


class Thresholded:
    """x0 clamped to [-s, s] and divided by s, the ``ratio`` quantile of |x0| kept within [1,
    ``highest``]: diffusers bounds s from above, the other codes do not.
    """

    def __init__(self, denoiser: Denoiser, config: Mapping[str, Any]) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self._denoiser = denoiser
        self._ratio = config.get("dynamic_thresholding_ratio", 0.995)
        self._highest = config.get("sample_max_value", 1.0)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        x0 = self._denoiser(x, t, **condition)
        s = torch.quantile(x0.abs().flatten(1), self._ratio, dim=1).clamp(1.0, self._highest)
        s = s.reshape(-1, 1, 1, 1)
        return torch.minimum(torch.maximum(x0, -s), s) / s
