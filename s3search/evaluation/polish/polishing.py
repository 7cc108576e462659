"""Gradient polish: the numbers of a schedule, moved downhill on the metric itself.

A schedule is written as a table over x_0 and its calls (`s3search.solvers.coefficients`), whose
coefficients, levels, times told and start then follow the gradient of the loss through all
network calls: Adam with a short warm-up and a cosine decay.  The loss is either

    frechet      the Fréchet distance to the reference, on fresh noise at every iteration, with its
                 bias in the number of images removed (`s3search.metrics.frechet_loss`)
    trajectory   the mean squared difference, in features or pixels, from a fine solve of the same
                 noises (LD3 arXiv:2405.15506, S4S arXiv:2502.17423, DC-Solver arXiv:2409.03755)

Memory is that of one batch whatever the number of images, and of one network call if asked
(`s3search.evaluation.polish.gradient`).

Noise seeds are hashes of (noise_seed, iteration): no search or validation that numbers its seeds
shares noise with them, and the same ``noise_seed`` gives the same polish.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule
from s3search.evaluation.decoding import images_of
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish.adam import Descent, Objective
from s3search.evaluation.polish.gradient import TableGradient
from s3search.metrics.frechet import FrechetReference
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.questions import FINE_NFE, TRAJECTORY_TARGETS, PolishLoss
from s3search.solvers.coefficients import free_table, schedule_of_table
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import check_process
from s3search.solvers.trainable import Freedom, MovableTable, trained_range

Features = Callable[[Tensor], Tensor]

_SEED_TAG = 0x706F6C697368  # keeps the seeds apart from other hashes of the same numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishSettings:
    """How long, how fast and what."""

    iterations: int = 60
    n_images: int = 500  # per iteration
    learning_rate: float = 0.012
    keep_invariants: bool = False  # every row carries a constant image and noise
    loss: PolishLoss = "frechet"
    free: frozenset[Freedom] = frozenset(Freedom)
    recompute: bool | None = None  # what happens inside a call, when needed; None: as memory asks
    target: Literal["features", "pixels"] = "features"  # of the loss "trajectory"
    target_batches: int = (
        TRAJECTORY_TARGETS  # sets of n_images that take turns with the fine solve's images
    )
    fine_nfe: int = FINE_NFE  # calls of the fine solve, DPM-Solver++(2M)

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("n_images", 4), ("target_batches", 1)):
            if getattr(self, name) < least:
                raise InvalidConfig(f"{name}: needs at least {least}, found {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0.0):
            raise InvalidConfig(f"learning_rate: needs to be > 0, found {self.learning_rate}")
        if not self.free:
            raise InvalidConfig("free: nothing may move; name at least one of the freedoms")
        for name, choices in (
            ("loss", ("frechet", "trajectory")),
            ("target", ("features", "pixels")),
        ):
            if getattr(self, name) not in choices:
                raise InvalidConfig(f"{name}: {getattr(self, name)!r} is none of {choices}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Polished:
    """A schedule of free steps, and what it took."""

    schedule: Schedule
    losses: tuple[float, ...]  # one per iteration, nan where it was not finite
    network_calls: int  # images times network batches, forward and backward
    seconds: float


def polish(  # noqa: PLR0913  # what a worker has loaded comes one by one, as it does there
    denoiser: Any,
    features: Features,
    reference: FrechetReference,
    schedule: Schedule,
    settings: PolishSettings,
    *,
    noise: NoiseBank,
    noise_seed: int,
    device: torch.device,
    batch_size: int,
) -> Polished:
    """``schedule`` after ``settings.iterations`` steps of Adam: as many calls, free steps.

    Raises `InvalidSchedule` for what has no table of numbers (DPM-Solver-v3's steps, patches of
    the network), `EvaluationFailed` where network or extractor cannot be differentiated or give
    no finite number from the start.
    """
    began = time.perf_counter()
    if schedule.model_patch is not None:
        raise InvalidSchedule("model_patch: a patched network is not polished; remove the patch")
    numbers = free_table(schedule)
    check_process(denoiser, compile_plan(schedule))
    in_pixels = settings.loss == "trajectory" and settings.target == "pixels"
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for module in (denoiser, features):
            stack.enter_context(_frozen(module))
        table = MovableTable(
            numbers,
            carries=settings.keep_invariants,
            free=settings.free,
            trained=trained_range(denoiser.process),
        )
        gradient = TableGradient(
            denoiser=denoiser,
            seen=_pixels if in_pixels else lambda x: features(images_of(denoiser, x)),
            table=table,
            noise=noise,
            device=device,
            batch_size=batch_size,
            recompute=settings.recompute,
        )
        objective = _objective(gradient, reference, settings, noise_seed)
        descent = Descent(table.moves, table.project, settings.learning_rate)
        losses = descent.run(objective, settings.iterations)
        unseen = gradient.batches(_seed(noise_seed, settings.iterations), settings.n_images)
        if not gradient.is_finite(unseen[0]):
            descent.restore()
        moved = table.moved_table()
    provenance = {**schedule.provenance, "polished_from": schedule.id}
    return Polished(
        schedule=schedule_of_table(moved, provenance=provenance),
        losses=tuple(losses),
        network_calls=gradient.network_calls,
        seconds=time.perf_counter() - began,
    )


def _objective(
    gradient: TableGradient, reference: FrechetReference, settings: PolishSettings, noise_seed: int
) -> Objective:
    """Loss and gradient of one iteration."""
    n = settings.n_images
    if settings.loss == "frechet":
        frechet = FrechetLoss(reference, gradient.device)
        return lambda i: gradient(gradient.batches(_seed(noise_seed, i), n), frechet)
    process = gradient.denoiser.process
    end = published.End(rule=published.EndRule.DENOISE)
    fine = compile_plan(published.dpmpp_2m(process, nfe=settings.fine_nfe, end=end))
    targets: dict[int, Tensor] = {}

    def squared(i: int) -> tuple[float, list[Tensor]]:
        turn = i % settings.target_batches
        batches = gradient.batches(_seed(noise_seed, turn), n)
        if turn not in targets:
            targets[turn] = gradient.outputs_of(fine, batches)
        return gradient(batches, lambda f: ((f - targets[turn]) ** 2).sum(1).mean())

    return squared


def _seed(noise_seed: int, iteration: int) -> int:
    entropy = np.random.SeedSequence([_SEED_TAG, noise_seed, iteration])
    return int(entropy.generate_state(1, dtype=np.uint64)[0])


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


@contextmanager
def _frozen(module: Any) -> Iterator[None]:
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
