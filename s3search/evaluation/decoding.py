"""What a denoiser may have beside `process`, `sample_shape` and `condition`.

decode                    samples -> images in [-1, 1], for models of latents; absent or None
                          where the samples are the images
network_batches(times)    batches that calls at these times send through the network
network_batches_per_call  the same where every call costs alike
"""

from typing import Any

from torch import Tensor

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
