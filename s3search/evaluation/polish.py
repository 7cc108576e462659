"""Gradient polish: a schedule's times and coefficients, moved down the gradient of the distance.

Every iteration draws fresh noise, makes images through the movable table of the schedule
(`s3search.solvers.movable`), takes the debiased Fréchet distance of their features
(`s3search.metrics.frechet_loss`) and one step of Adam with a warm-up and cosine decay.  No image
is seen twice, so nothing is fitted to one noise set.  The result has free steps, one for each
network call.  As LD3 (arXiv:2405.15506), S4S (arXiv:2502.17423) and DC-Solver (arXiv:2409.03755)
optimise times or coefficients, but for the distance itself instead of a teacher's trajectory,
which may be farther from the data than the student.

Memory is bounded by one batch: where an iteration has more images than that, the features are
made without gradients first, and each batch is run again with the gradient of its features.  The
network's calls are recomputed in the backward pass one by one (`torch.utils.checkpoint`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s3search.errors import EvaluationFailed, InvalidSchedule
from s3search.evaluation.noise import NoiseBank
from s3search.metrics.frechet import FrechetReference
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.schedules.schedule import Schedule
from s3search.solvers.freed import free_table, schedule_of_table
from s3search.solvers.movable import Freedom, MovableTable, run_rows

_WARM_UP = 5
_BETAS = (0.9, 0.99)
_RECOMPUTED_NUMBERS = 2**22  # of one batch of states: above this, calls are recomputed
_MOST_RETREATS = 5

Batch = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishSettings:
    """How far to go, and what may move."""

    iterations: int = 60
    n_images: int = 500
    learning_rate: float = 0.03
    keep_invariants: bool = False  # rows carry a constant image and noise exactly
    free: frozenset[Freedom] = frozenset(Freedom)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishedSchedule:
    """The schedule made, the loss of every iteration, and the image-calls: forward, recomputed and
    backward, each counted as one.
    """

    schedule: Schedule
    losses: tuple[float, ...]
    network_calls: int


def polish(
    denoiser: Any,
    features: Callable[[Tensor], Tensor],
    reference: FrechetReference,
    schedule: Schedule,
    settings: PolishSettings,
    *,
    noise: NoiseBank,
    noise_seed: int,
    batch_size: int,
) -> PolishedSchedule:
    """``schedule`` after ``settings.iterations`` steps down the gradient.

    Seeds of the iterations follow from ``noise_seed`` alone, which must be nobody else's. Raises
    `InvalidSchedule` for schedules that free steps cannot write (v3) and for patched ones, and
    `EvaluationFailed` where there is no gradient or no finite loss.
    """
    if schedule.model_patch is not None:
        raise InvalidSchedule("model_patch: a patched network cannot be polished")
    movable = MovableTable(
        free_table(schedule), carries=settings.keep_invariants, free=settings.free
    )
    run = _Run(denoiser, features, FrechetLoss(reference, noise.device), movable, batch_size)
    adam = torch.optim.Adam(movable.moves, betas=_BETAS)
    losses: list[float] = []
    kept = [move.detach().clone() for move in movable.moves]
    scale, retreats = 1.0, 0
    for i in range(settings.iterations):
        batches = list(noise.batches(_seed(noise_seed, i), settings.n_images, batch_size))
        loss = run.backward(batches)
        if not math.isfinite(loss) or not _is_finite(movable):
            retreats += 1
            if retreats > _MOST_RETREATS:
                raise EvaluationFailed("polish: the loss or its gradient stays not finite")
            scale /= 2
            with torch.no_grad():
                for move, old in zip(movable.moves, kept, strict=True):
                    move.copy_(old)
            adam = torch.optim.Adam(movable.moves, betas=_BETAS)
            continue
        losses.append(loss)
        kept = [move.detach().clone() for move in movable.moves]
        decay = 0.5 * (1.0 + math.cos(math.pi * i / settings.iterations))
        rate = settings.learning_rate * scale * min(1.0, (i + 1) / _WARM_UP) * decay
        for group in adam.param_groups:
            group["lr"] = rate
        adam.step()
        movable.project()
    made = schedule_of_table(
        movable.moved_table(),
        provenance={"polished_from": schedule.id, "images": settings.n_images * len(losses)},
    )
    return PolishedSchedule(schedule=made, losses=tuple(losses), network_calls=run.network_calls)


class _Run:
    """One loss and its gradient at a time."""

    def __init__(
        self,
        denoiser: Any,
        features: Callable[[Tensor], Tensor],
        loss: FrechetLoss,
        movable: MovableTable,
        batch_size: int,
    ) -> None:
        self._denoiser, self._features, self._loss = denoiser, features, loss
        self._movable, self._batch_size = movable, batch_size
        self._doubled = getattr(denoiser, "network_batches_per_call", 1)
        self.network_calls = 0

    def backward(self, batches: list[Batch]) -> float:
        """The loss, with its gradient left in the moves."""
        for move in self._movable.moves:
            move.grad = None
        if len(batches) == 1:
            loss = self._loss(self._made(*batches[0]))
            _differentiable(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())
        with torch.no_grad():
            whole = [self._made(*batch) for batch in batches]
        leaves = torch.cat(whole).requires_grad_()
        loss = self._loss(leaves)
        (slopes,) = torch.autograd.grad(loss, leaves)
        for batch, slope in zip(
            batches, torch.split(slopes, [len(w) for w in whole]), strict=True
        ):
            made = self._made(*batch)
            _differentiable(made)
            made.backward(slope)  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _made(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The features of one batch of images."""
        recomputed = torch.is_grad_enabled() and noise.numel() > _RECOMPUTED_NUMBERS

        def call(x: Tensor, t: Tensor) -> Tensor:
            answer: Tensor = self._denoiser(x, t, **condition)
            return answer

        def network(x: Tensor, t: Tensor) -> Tensor:
            if not recomputed:
                return call(x, t)
            again: Tensor = checkpoint(call, x, t, use_reentrant=False)
            return again

        passes = 1 + torch.is_grad_enabled() + recomputed
        self.network_calls += passes * len(noise) * self._movable.table.nfe * self._doubled
        table = self._movable.table
        return self._features(run_rows(network, table, self._movable.rows(), noise))


def _differentiable(value: Tensor) -> None:
    if not value.requires_grad:
        raise EvaluationFailed(
            "polish: the images' features have no gradient; the model or the extractor detaches "
            'them (torch.no_grad or numpy inside): take "polish" out of search.ladder'
        )


def _is_finite(movable: MovableTable) -> bool:
    grads = [move.grad for move in movable.moves if move.grad is not None]
    return all(bool(torch.isfinite(grad).all()) for grad in grads)


def _seed(noise_seed: int, iteration: int) -> int:
    state = np.random.SeedSequence([noise_seed, iteration]).generate_state(2, dtype=np.uint64)
    return 2**66 + int(state[0])
