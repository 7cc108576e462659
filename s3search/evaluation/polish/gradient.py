"""The gradient of a loss on images, in the moves of a schedule's table.

All network calls keep what their derivatives need, of all batches, as long as memory allows it.  A
loss of all images together (a Fréchet distance) needs no more memory than one batch: where all are
too much, first come the features of all batches without derivatives, and from them the loss's
gradient in each feature; then every batch runs again and carries its share back to the table.
Where one batch is too much, each of its calls is made once more on the way back
(`torch.utils.checkpoint`).
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s3search.errors import EvaluationFailed
from s3search.evaluation.noise import NoiseBank
from s3search.solvers.plan import Plan
from s3search.solvers.sample import sample
from s3search.solvers.trainable import MovableTable, run_rows

Batch = tuple[Tensor, dict[str, Tensor]]  # noise (b, C, H, W), condition

_LEAST_KEPT_BYTES = 2**30  # that calls may keep for their derivatives, on a CPU
_KEPT_SHARE_OF_MACHINE = 1 / 8  # the same, where more: of its memory, which workers share
_KEPT_SHARE = 0.5  # the same on a GPU, of its free memory


@dataclass(slots=True, kw_only=True)
class TableGradient:
    """The network and the extractor around one table, and the calls that they cost.

    ``seen`` makes of images (b, C, H, W) what the loss sees (b, d).  ``recompute`` None: as the
    first call shows that memory asks for.
    """

    denoiser: Any
    seen: Callable[[Tensor], Tensor]
    table: MovableTable
    noise: NoiseBank
    device: torch.device
    batch_size: int
    recompute: bool | None = None
    network_calls: int = 0  # images times network batches, forward and backward
    _kept_bytes: float = math.inf  # by one call for one image, once known
    _seen_bytes: float = math.inf  # by what the loss sees of one image, once known
    _together: dict[int, bool] = field(default_factory=dict)  # whether so many images fit

    def batches(self, seed: int, n_images: int) -> list[Batch]:
        """Noise and condition, as tensors that autograd takes."""
        drawn = self.noise.batches(seed, n_images, self.batch_size)
        return [(_usable(n), {key: _usable(c) for key, c in given.items()}) for n, given in drawn]

    def outputs(self, batch: Batch) -> Tensor:
        """What the loss sees of one batch (b, d) at the table's present moves; float64."""
        noise, condition = batch
        images = run_rows(
            lambda x, t: self._answer(x, t, condition), self.table.table, self.table.rows(), noise
        )
        if math.isinf(self._seen_bytes) and images.requires_grad:
            found, kept = _measured(self.seen, images)
            self._seen_bytes = kept / len(noise)
        else:
            found = self.seen(images)
        if torch.is_grad_enabled() and images.requires_grad and not found.requires_grad:
            raise EvaluationFailed(
                "polish: the extractor's features carry no gradient; it must be torch operations "
                "outside no_grad and inference_mode, from images to features"
            )
        return found.to(torch.float64)

    def outputs_of(self, plan: Plan, batches: Sequence[Batch]) -> Tensor:
        """What the loss sees of another plan's images (n, d), without derivatives."""
        found = []
        with torch.no_grad():
            for noise, condition in batches:
                self._count(len(noise) * plan.nfe)
                found.append(self.seen(sample(self.denoiser, plan, noise, **condition)))
        return torch.cat(found).to(torch.float64)

    def __call__(
        self, batches: Sequence[Batch], loss_of: Callable[[Tensor], Tensor]
    ) -> tuple[float, list[Tensor]]:
        """The loss of what is seen (n, d) and its gradient; nan where that is not finite."""
        moves = self.table.moves
        n_images = sum(len(noise) for noise, _ in batches)
        if len(batches) == 1 or self._fit_together(n_images):
            whole = torch.cat([self.outputs(batch) for batch in batches])
            if not torch.isfinite(whole).all():
                return _no_number(moves)
            loss = loss_of(whole)
            self._count(len(whole) * self.table.table.nfe)
            return loss.item(), _gradients(loss, moves)
        with torch.no_grad():
            outputs = [self.outputs(batch) for batch in batches]
        whole = torch.cat(outputs).requires_grad_()
        if not torch.isfinite(whole).all():
            return _no_number(moves)
        loss = loss_of(whole)
        (share,) = torch.autograd.grad(loss, whole)
        total = [torch.zeros_like(move) for move in moves]
        sizes = [len(noise) for noise, _ in batches]
        for batch, part in zip(batches, torch.split(share, sizes), strict=True):
            own = _gradients(self.outputs(batch), moves, part)
            self._count(len(part) * self.table.table.nfe)
            total = [a + b for a, b in zip(total, own, strict=True)]
        return loss.item(), total

    def _fit_together(self, n_images: int) -> bool:
        """Whether calls may keep what they need for so many images; asked once, since what an
        allocator holds back is not free.
        """
        kept = self._kept_bytes * self.table.table.nfe + self._seen_bytes
        if self.recompute or math.isinf(kept):
            return False
        if n_images not in self._together:
            self._together[n_images] = kept * n_images <= _allowed(self.device)
        return self._together[n_images]

    def is_finite(self, batch: Batch) -> bool:
        """Whether the loss sees finite numbers of one batch at the present moves."""
        with torch.no_grad():
            return bool(torch.isfinite(self.outputs(batch)).all())

    def _count(self, n_images: int) -> None:
        self.network_calls += n_images * getattr(self.denoiser, "network_batches_per_call", 1)

    def _answer(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        def call(x: Tensor, t: Tensor) -> Tensor:
            self._count(len(x))
            answer: Tensor = self.denoiser(x, t, **condition)
            return answer

        if not torch.is_grad_enabled():
            return call(x, t)
        if self.recompute is None:
            answer, kept = _measured(call, x, t)
            if answer.requires_grad:  # the first call may have nothing to keep
                self._kept_bytes = kept / len(x)
                self.recompute = kept * self.table.table.nfe > _allowed(self.device)
        elif self.recompute:
            answer = checkpoint(call, x, t, use_reentrant=False)
        else:
            answer = call(x, t)
        if x.requires_grad and not answer.requires_grad:
            raise EvaluationFailed(
                "polish: the network's answer carries no gradient; the denoiser must be torch "
                "operations outside no_grad and inference_mode, from x to D"
            )
        return answer


def _measured(call: Callable[..., Tensor], *given: Tensor) -> tuple[Tensor, int]:
    """The answer of a call, and the bytes that it keeps for its derivative, weights aside."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answer = call(*given)
    return answer, sum(kept.values())


def _allowed(device: torch.device) -> float:
    """How many bytes calls may keep for their derivatives."""
    if device.type != "cuda":
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return max(_LEAST_KEPT_BYTES, machine * _KEPT_SHARE_OF_MACHINE)
    return _KEPT_SHARE * torch.cuda.mem_get_info(device)[0]


def _gradients(of: Tensor, moves: list[Tensor], weights: Tensor | None = None) -> list[Tensor]:
    found = torch.autograd.grad(of, moves, weights, allow_unused=True)
    pairs = zip(found, moves, strict=True)
    return [torch.zeros_like(move) if g is None else g for g, move in pairs]


def _no_number(moves: list[Tensor]) -> tuple[float, list[Tensor]]:
    return float("nan"), [torch.full_like(move, float("nan")) for move in moves]


def _usable(tensor: Tensor) -> Tensor:
    """A tensor that was made in inference mode cannot take part in a gradient; its copy can."""
    return tensor.clone() if tensor.is_inference() else tensor
