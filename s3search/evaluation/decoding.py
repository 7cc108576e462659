"""What a denoiser may have beside `process`, `sample_shape` and `condition`.

decode                    samples -> images in [-1, 1], for models of latents; absent or None
                          where the samples are the images
network_batches(times)    batches that calls at these times send through the network
network_batches_per_call  the same where every call costs alike
with_guidance(scales)     the same denoiser for one trajectory, its call j guided by scales[j]
takes_guidance            whether that is possible
"""

from typing import Any

from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import Plan


def images_of(denoiser: Any, samples: Tensor) -> Tensor:
    """The images (B, C, H, W) in [-1, 1] of what a plan ends with."""
    decode = getattr(denoiser, "decode", None)
    return samples if decode is None else decode(samples)


def network_batches(denoiser: Any, plan: Plan) -> int:
    """Batches of images that a plan sends through the network."""
    counted = getattr(denoiser, "network_batches", None)
    if counted is not None:
        return int(counted(plan.network_times))
    return plan.nfe * int(getattr(denoiser, "network_batches_per_call", 1))


def patched(denoiser: Any, schedule: Schedule) -> Any:
    """The denoiser, changed as the schedule asks, for one trajectory; raises `EvaluationFailed`
    where it cannot be.
    """
    patch = schedule.model_patch
    if patch is None:
        return denoiser
    others = [name for name in type(patch).model_fields if name != "guidance_scale"]
    with_guidance = getattr(denoiser, "with_guidance", None)
    if with_guidance is None or any(getattr(patch, name) is not None for name in others):
        raise EvaluationFailed("the schedule patches the network; this model takes no patches")
    return denoiser if patch.guidance_scale is None else with_guidance(patch.guidance_scale)
