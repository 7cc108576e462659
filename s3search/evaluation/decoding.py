"""What a denoiser may have beside `process`, `sample_shape` and `condition`.

decode                    samples -> images in [-1, 1], for models of latents; absent or None
                          where the samples are the images
image_shape               that of one image which `decode` makes; absent: it is seen
network_batches(times)    batches that calls at these times send through the network
network_batches_per_call  the same where every call costs alike
with_guidance(scales)     the same denoiser for one trajectory, its call j guided by scales[j]
takes_guidance            whether that is possible
images_of_plan            the images of a whole run, by the model's own loop (`OwnLoop`)
skippable                 the module in it whose blocks may be left out; absent: all of it
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.models.layer_skip import SkippingCalls, blocks_of
from s3search.models.skip_scale import ScaledCalls, checked_links
from s3search.schedules.layers import skipped_by_call, skips_layers
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import Plan
from s3search.solvers.sample import sample
from s3search.solvers.shapes import PICTURE_AXES, Shape
from s3search.solvers.step_noise import Draws, of_seed


@runtime_checkable
class OwnLoop(Protocol):
    """A model that makes the images of a plan itself, such as a pipeline that is called whole."""

    def images_of_plan(
        self, plan: Plan, noise: Tensor, draws: Draws, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """Images (B, ...) in [-1, 1] of ``noise`` (B, ...) and what steps draw."""


def images_by(denoiser: Any, plan: Plan, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    """The images (B, ...) that a plan makes of noise, by the model's own loop if it has one; steps
    draw what is a function of image and row.
    """
    if isinstance(denoiser, OwnLoop):
        return denoiser.images_of_plan(plan, noise, of_seed(0), condition)
    return images_of(denoiser, sample(denoiser, plan, noise, **condition))


def images_of(denoiser: Any, samples: Tensor) -> Tensor:
    """The images in [-1, 1] of what a plan ends with, (B, C, H, W) or of another rank."""
    decode = getattr(denoiser, "decode", None)
    return samples if decode is None else decode(samples)


@torch.inference_mode()
def made_shape(denoiser: Any, device: torch.device) -> Shape:
    """The shape of what metrics see of one sample.

    Latents of three axes are taken for those of pictures, and keep their own shape here: these
    are not decoded only to look at the rank.
    """
    shape, known = tuple(denoiser.sample_shape), getattr(denoiser, "image_shape", None)
    if known is not None:
        return tuple(known)
    if len(shape) == PICTURE_AXES or getattr(denoiser, "decode", None) is None:
        return shape
    return tuple(images_of(denoiser, torch.zeros((1, *shape), device=device)).shape[1:])


def network_batches(denoiser: Any, plan: Plan) -> int:
    """Batches of images that a plan sends through the network."""
    counted = getattr(denoiser, "network_batches", None)
    if counted is not None:
        return int(counted(plan.network_times))
    return plan.nfe * int(getattr(denoiser, "network_batches_per_call", 1))


def patched(denoiser: Any, schedule: Schedule) -> Any:
    """The denoiser, changed as the schedule asks, for one trajectory; raises `EvaluationFailed`
    where it cannot be.  One of a schedule that changes nothing is the denoiser itself.
    """
    patch = schedule.model_patch
    if patch is None:
        return denoiser
    with_guidance = getattr(denoiser, "with_guidance", None)
    is_guided = patch.guidance_scale is not None
    if is_guided and with_guidance is None:
        raise EvaluationFailed("the schedule patches the network; this model takes no patches")
    changed = denoiser
    if is_guided and with_guidance is not None:
        changed = with_guidance(patch.guidance_scale)
    if skips_layers(schedule):
        blocks = blocks_of(denoiser)
        problem = blocks.layers.problem(schedule)
        if problem is not None:
            raise EvaluationFailed(problem)
        changed = SkippingCalls(changed, blocks, skipped_by_call(schedule))
    factors = patch.skip_scale or ()
    if any(factor != 1.0 for factor in factors):
        changed = ScaledCalls(changed, checked_links(denoiser, factors), factors)
    return changed
