"""Network and extractor as a gradient needs them, in the memory that there is.

Network calls keep what their derivatives need as long as memory allows it; where one batch is too
much for that, each of its calls is made once more on the way back (`torch.utils.checkpoint`).
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s3search.errors import EvaluationFailed
from s3search.evaluation.decoding import images_of
from s3search.evaluation.noise import Drawn, for_network
from s3search.evaluation.views import Condition, View

_LEAST_KEPT_BYTES = 2**30  # that calls may keep for their derivatives, on a CPU
_KEPT_SHARE_OF_MACHINE = 1 / 8  # on a larger CPU: of its memory, which workers share
_KEPT_SHARE_OF_GPU = 0.5  # of its free memory


class DifferentiableDenoiser:
    """A denoiser whose calls carry derivatives, and are counted.

    ``recompute`` says whether a call is made again for its derivative; None is settled by the
    first call that has one, from what it keeps and the ``nfe`` calls that there are.
    """

    def __init__(self, denoiser: Any, nfe: int, *, recompute: bool | None) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self.network_calls = 0  # images times network batches, forward and backward
        self._denoiser, self._nfe, self._recompute = denoiser, nfe, recompute
        self._kept_bytes = math.inf  # by one call for one image, once known
        self._batches_per_call = int(getattr(denoiser, "network_batches_per_call", 1))

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """D (B, ...); raises `EvaluationFailed` where it has no derivative in ``x``."""

        def call(x: Tensor, t: Tensor) -> Tensor:
            self.count(len(x))
            prediction: Tensor = self._denoiser(x, t, **condition)
            return prediction

        if not torch.is_grad_enabled():
            return call(x, t)
        if self._recompute is None:
            prediction, kept = measured(call, x, t)
            if prediction.requires_grad:  # the first call may have nothing to keep
                self._kept_bytes = kept / len(x)
                self._recompute = kept * self._nfe > allowed_bytes(x.device)
        elif self._recompute:
            prediction = checkpoint(call, x, t, use_reentrant=False)
        else:
            prediction = call(x, t)
        if x.requires_grad and not prediction.requires_grad:
            raise EvaluationFailed(
                "polish: the network's answer carries no gradient; the denoiser must be torch "
                "operations outside no_grad and inference_mode, from x to D"
            )
        return prediction

    @property
    def kept_bytes(self) -> float:
        """What all calls keep of one image; infinite where it is unknown or calls keep nothing."""
        return math.inf if self._recompute else self._kept_bytes * self._nfe

    def calls_of(self, nfe: int) -> int:
        """Network batches of so many calls."""
        return nfe * self._batches_per_call

    def count(self, n_images: int) -> None:
        """Counts one call of so many images."""
        self.network_calls += n_images * self._batches_per_call


def gradient_problem(
    denoiser: Any,
    view: View,
    batch: Drawn,
    given_to: Callable[[Tensor, Condition], Condition] = lambda _, condition: condition,
) -> str | None:
    """Why no gradient comes from what a metric sees of an image back to the state that it is made
    of, by one call for the noises and conditions of ``batch``; None where one does, or memory
    lacks.  The metric is given what ``given_to`` makes of images and conditions.
    """
    noise, condition = batch
    t = denoiser.process.time_of_lam(0.0)
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            frozen(denoiser),
            frozen(view.function),
        ):
            x = noise.clone().requires_grad_()
            given = {key: usable(value) for key, value in condition.items()}
            own = DifferentiableDenoiser(denoiser, 1, recompute=False)
            prediction = own(x, x.new_full((len(x),), t), **for_network(given))
            images = images_of(denoiser, prediction)
            found = view.differentiable(images, given_to(images, given))
            if found.requires_grad:
                (slope,) = torch.autograd.grad(found.sum(), x, allow_unused=True)
            if not found.requires_grad or slope is None:
                return (
                    f"what {view.where} sees of images carries no gradient (no_grad, "
                    "inference_mode, detach or numpy on the way)"
                )
    except torch.OutOfMemoryError:
        return None
    except Exception as error:  # the user's code may raise anything
        return str(error).removeprefix("polish: ")
    return None


def measured(call: Callable[..., Tensor], *given: Tensor) -> tuple[Tensor, int]:
    """What a call makes, and the bytes that it keeps for its derivative, weights aside."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = call(*given)
    return made, sum(kept.values())


def allowed_bytes(device: torch.device) -> float:
    """How many bytes calls may keep for their derivatives."""
    if device.type != "cuda":
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return max(_LEAST_KEPT_BYTES, machine * _KEPT_SHARE_OF_MACHINE)
    return _KEPT_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]


def usable(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy of one made in inference mode, which has no gradients."""
    return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def frozen(module: Any) -> Iterator[None]:
    """No gradient for the parameters of ``module``, where it has any, and theirs back after."""
    own = list(module.parameters()) if isinstance(module, torch.nn.Module) else []
    if any(parameter.is_inference() for parameter in own):
        raise EvaluationFailed(
            f"polish: the weights of {type(module).__name__} were made in inference mode, which "
            "has no gradients; load it outside"
        )
    moving = [parameter for parameter in own if parameter.requires_grad]
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
