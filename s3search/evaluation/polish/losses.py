"""What an iteration of a polish lowers, and on which noise: for its number, batches and a loss.

    metric       the metric's own loss, on fresh noise at every iteration; of a distance with its
                 bias in the number of images removed (`s3search.metrics.frechet_loss`).  Where
                 images are compared with fine solves, some sets of noises take turns instead, so
                 that each is solved finely once.
    trajectory   the mean squared difference, in features or pixels, from a fine solve of the same
                 noises (LD3 arXiv:2405.15506, S4S arXiv:2502.17423, DC-Solver arXiv:2409.03755)

Noise seeds are hashes of (noise_seed, iteration), those of the noise that steps draw too: no
search or validation that numbers its seeds shares noise with them, and the same ``noise_seed``
gives the same polish.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from s3search.evaluation.polish.gradient import DrawnBatch, PlanGradient
from s3search.solvers.plan import Plan

Lowered = Callable[[int, int], tuple[Sequence[DrawnBatch], Callable[[Tensor], Tensor]]]
"""Iteration, images -> its batches, and the loss of their features (n, d)."""

_SEED_TAG = 0x706F6C697368  # keeps the seeds apart from other hashes of the same numbers


def of_metric(
    gradient: PlanGradient,
    loss: Callable[[Tensor], Tensor],
    noise_seed: int,
    n_sets: int | None = None,
) -> Lowered:
    """A loss of fresh images at every iteration, or of ``n_sets`` sets of noises in turn."""

    def lowered(i: int, n: int) -> tuple[Sequence[DrawnBatch], Callable[[Tensor], Tensor]]:
        turn = i if n_sets is None else i % n_sets
        return gradient.batches(iteration_seed(noise_seed, turn), n), loss

    return lowered


def trajectory(gradient: PlanGradient, fine: Plan, noise_seed: int, n_sets: int) -> Lowered:
    """The distance from the images that the plan ``fine`` makes; ``n_sets`` sets of noises take
    turns, so that each is solved finely once.
    """
    targets: dict[tuple[int, int], Tensor] = {}

    def lowered(i: int, n: int) -> tuple[Sequence[DrawnBatch], Callable[[Tensor], Tensor]]:
        turn = i % n_sets
        batches = gradient.batches(iteration_seed(noise_seed, turn), n)
        if (turn, n) not in targets:
            with torch.no_grad():
                solved = [gradient.features_of(batch, fine) for batch in batches]
            targets[turn, n] = torch.cat(solved)
        return batches, lambda f: ((f - targets[turn, n]) ** 2).sum(1).mean()

    return lowered


def iteration_seed(noise_seed: int, iteration: int) -> int:
    """The noise seed of one iteration."""
    entropy = np.random.SeedSequence([_SEED_TAG, noise_seed, iteration])
    return int(entropy.generate_state(1, dtype=np.uint64)[0])
