"""The gradient of a loss on images, in the moves of a schedule's table.

Where memory allows it, the calls of all batches keep what their derivatives need, and the loss
goes back through all of them.  A loss of all images together (a Fréchet distance) needs no more
memory than one batch, though: where all are too much, first come the features of all batches
without derivatives, and from them the loss's gradient in each feature; then every batch runs again
and carries its share back to the table.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.evaluation.noise import NoiseBank, for_network
from s3search.evaluation.polish.differentiable import (
    DifferentiableDenoiser,
    allowed_bytes,
    measured,
    usable,
)
from s3search.solvers.sample import AnyPlan, sample
from s3search.solvers.step_noise import Draws, nothing
from s3search.solvers.trainable import TrainableTable
from s3search.solvers.trainable_times import TrainableTimes


class DrawnBatch(NamedTuple):
    """What images are made of: noise (b, ...), conditions (b, ...), and what steps draw."""

    noise: Tensor
    condition: dict[str, Tensor]
    draws: Draws = nothing

    def first(self, n: int) -> "DrawnBatch":
        """The first ``n`` images of it, which draw what they do among all."""
        return DrawnBatch(
            self.noise[:n], {k: c[:n] for k, c in self.condition.items()}, self.draws
        )


Seen = Callable[[Tensor, dict[str, Tensor]], Tensor]
"""Images (b, ...) and their conditions -> what a loss is of (b, d)."""


@dataclass(slots=True, kw_only=True)
class PlanGradient:
    """A table between network and metric; ``seen`` makes of images (b, ...) and their
    conditions what the loss sees (b, d).
    """

    denoiser: DifferentiableDenoiser
    seen: Seen
    table: TrainableTable | TrainableTimes
    noise: NoiseBank
    batch_size: int
    fine_targets: bool = True  # whether the loss needs what must be solved finely
    _feature_bytes: float = math.inf  # that the features of one image keep, once known
    _together: dict[int, bool] = field(default_factory=dict)  # whether so many images fit

    def batches(
        self, seed: int, n_images: int, *, fine_targets: bool | None = None
    ) -> list[DrawnBatch]:
        """Noise and condition, as tensors that autograd takes, and the noise of steps, of this
        seed; ``fine_targets`` as the loss needs them, unless it is said.
        """
        solves = self.fine_targets if fine_targets is None else fine_targets
        drawn = self.noise.batches(
            seed, n_images, self.batch_size, with_targets=True, solves=solves, whole_blocks=False
        )
        made: list[DrawnBatch] = []
        first = 0
        for noise, condition in drawn:
            own = {key: usable(c) for key, c in condition.items()}
            made.append(DrawnBatch(usable(noise), own, self.noise.step_noise(seed, first)))
            first += len(noise)
        return made

    def features_of(self, batch: DrawnBatch, plan: AnyPlan | None = None) -> Tensor:
        """What the loss sees of one batch (b, d), float64: of the images of ``plan``, or else of
        the table at its present moves.
        """
        noise, condition, draws = batch
        given = for_network(condition)
        plan = plan or self.table.plan()
        images = sample(self.denoiser, plan, noise, step_noise=draws, **given)
        if math.isinf(self._feature_bytes) and images.requires_grad:
            found, kept = measured(lambda x: self.seen(x, condition), images)
            self._feature_bytes = kept / len(noise)
        else:
            found = self.seen(images, condition)
        if torch.is_grad_enabled() and images.requires_grad and not found.requires_grad:
            raise EvaluationFailed(
                "polish: what extractor or score makes of images carries no gradient; it must be "
                "torch operations outside no_grad and inference_mode, from images to numbers"
            )
        return found.to(torch.float64)

    def __call__(
        self, batches: Sequence[DrawnBatch], loss_of: Callable[[Tensor], Tensor]
    ) -> tuple[float, list[Tensor]]:
        """The loss of the features (n, d) and its gradient; nan where that is not finite."""
        sizes = [len(noise) for noise, *_ in batches]
        at_once = len(batches) == 1 or self._fit_together(sum(sizes))
        with torch.set_grad_enabled(at_once):
            features = torch.cat([self.features_of(batch) for batch in batches])
        if not torch.isfinite(features).all():
            return math.nan, [torch.full_like(move, math.nan) for move in self.table.moves]
        self.denoiser.count(sum(sizes) * self.table.table.nfe)  # on the way back
        if at_once:
            loss = loss_of(features)
            return loss.item(), self._gradient(loss)
        loss = loss_of(features.requires_grad_())
        (shares,) = torch.autograd.grad(loss, features)
        total = [torch.zeros_like(move) for move in self.table.moves]
        for batch, share in zip(batches, torch.split(shares, sizes), strict=True):
            own = self._gradient(self.features_of(batch), share)
            total = [a + b for a, b in zip(total, own, strict=True)]
        return loss.item(), total

    @torch.no_grad()
    def value(self, batches: Sequence[DrawnBatch], loss_of: Callable[[Tensor], Tensor]) -> float:
        """The loss of the features alone; nan where it is not finite."""
        features = torch.cat([self.features_of(batch) for batch in batches])
        return float(loss_of(features)) if torch.isfinite(features).all() else math.nan

    def _fit_together(self, n_images: int) -> bool:
        """Whether calls may keep what they need for so many images; asked once, since what an
        allocator holds back is not free.
        """
        kept = self.denoiser.kept_bytes + self._feature_bytes
        if math.isinf(kept):
            return False
        if n_images not in self._together:
            allowed = allowed_bytes(self.noise.device)
            self._together[n_images] = kept * n_images <= allowed
        return self._together[n_images]

    def _gradient(self, of: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        """The derivative of ``of``, or of its weighted sum, in every move."""
        moves = self.table.moves
        found = torch.autograd.grad(of, moves, weights, allow_unused=True)
        pairs = zip(found, moves, strict=True)
        return [torch.zeros_like(move) if g is None else g for g, move in pairs]
