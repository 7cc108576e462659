"""Gradient polish: the numbers of a schedule, moved downhill on the metric itself.

A schedule is written as a table over x_0 and its calls (`s3search.solvers.freed`), whose
coefficients, levels, times told and start then follow the gradient of the loss through all
network calls: Adam with a short warm-up and a cosine decay.  The loss is either

    frechet      the Fréchet distance to the reference, on fresh noise at every iteration, with its
                 bias in the number of images removed (`s3search.metrics.frechet_loss`)
    trajectory   the mean squared difference, in features or pixels, from a fine solve of the same
                 noises (LD3 arXiv:2405.15506, S4S arXiv:2502.17423, DC-Solver arXiv:2409.03755)

Memory is that of one batch whatever the number of images: the features of all batches come first,
without derivatives; then each batch runs again and passes on its share of the loss's gradient.
``recompute`` brings it down to one network call, for one forward call more.

Noise seeds are hashes of (noise_seed, iteration): no search or validation that numbers its seeds
shares noise with them, and the same ``noise_seed`` gives the same polish.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule
from s3search.evaluation.noise import NoiseBank
from s3search.metrics.frechet import FrechetReference
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.freed import free_table, schedule_of_table
from s3search.solvers.movable import Freedom, MovableTable, run_rows
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import check_process, sample

Array = np.typing.NDArray[np.float64]
Features = Callable[[Tensor], Tensor]
Batch = tuple[Tensor, dict[str, Tensor]]

_BETAS = (0.9, 0.99)
_WARM_UP = 5  # iterations
_LARGEST_JUMP = 10.0  # of a gradient's norm over the mean of those before; longer ones are cut
_MAX_FAILURES = 5  # iterations in a row without a finite gradient
_SEED_TAG = 0x706F6C697368  # keeps the seeds apart from other hashes of the same numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishSettings:
    """How long, how fast and what."""

    iterations: int = 60
    n_images: int = 500  # per iteration
    learning_rate: float = 0.03
    keep_invariants: bool = False  # every row carries a constant image and noise
    loss: Literal["frechet", "trajectory"] = "frechet"
    free: frozenset[Freedom] = frozenset(Freedom)
    recompute: bool = False  # forget what happens inside a network call until it is needed
    target: Literal["features", "pixels"] = "features"  # of the loss "trajectory"
    target_batches: int = 4  # sets of n_images that take turns with the fine solve's images
    fine_nfe: int = 32  # calls of the fine solve, DPM-Solver++(2M)

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


def polish(
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
    check_process(denoiser, compile_plan(schedule)) if schedule.statistics is None else None
    if schedule.model_patch is not None:
        raise InvalidSchedule("model_patch: a patched network is not polished; remove the patch")
    table = MovableTable(
        free_table(schedule), carries=settings.keep_invariants, free=settings.free
    )
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for module in (denoiser, features):
            stack.enter_context(_frozen(module))
        run = _Run(denoiser, features, table, settings, noise, device, batch_size)
        losses = _descend(run, _objective(run, reference, noise_seed))
    provenance = {**schedule.provenance, "polished_from": schedule.id}
    return Polished(
        schedule=schedule_of_table(table.moved_table(), provenance=provenance),
        losses=tuple(losses),
        network_calls=run.network_calls,
        seconds=time.perf_counter() - began,
    )


class _Run:
    """The network and the extractor around one table, and the calls that they cost."""

    def __init__(
        self,
        denoiser: Any,
        features: Features,
        table: MovableTable,
        settings: PolishSettings,
        noise: NoiseBank,
        device: torch.device,
        batch_size: int,
    ) -> None:
        self.denoiser, self.features, self.table = denoiser, features, table
        self.settings, self._noise, self.device = settings, noise, device
        self.batch_size = batch_size
        self.network_calls = 0
        self._doubled = getattr(denoiser, "network_batches_per_call", 1)

    def batches(self, seed: int) -> list[Batch]:
        """Noise and condition of ``n_images``, as tensors that autograd takes."""
        drawn = self._noise.batches(seed, self.settings.n_images, self.batch_size)
        return [(_usable(n), {key: _usable(c) for key, c in given.items()}) for n, given in drawn]

    def seen(self, images: Tensor, *, in_pixels: bool = False) -> Tensor:
        """Features (B, d) of images, or their pixels, in float64."""
        found = images.flatten(1) if in_pixels else self.features(images)
        if torch.is_grad_enabled() and images.requires_grad and not found.requires_grad:
            raise EvaluationFailed(
                "polish: the extractor's features carry no gradient; it must be torch operations "
                "outside no_grad and inference_mode from images to features"
            )
        return found.to(torch.float64)

    def outputs(self, batch: Batch) -> Tensor:
        """What the loss sees of one batch (b, d) at the table's present moves."""
        noise, condition = batch
        rows = self.table.rows()
        images = run_rows(
            lambda x, t: self._answer(x, t, condition), self.table.table, rows, noise
        )
        settings = self.settings
        in_pixels = settings.loss == "trajectory" and settings.target == "pixels"
        return self.seen(images, in_pixels=in_pixels)

    def fine(self, batches: Sequence[Batch]) -> Tensor:
        """What the loss sees of a fine solve of ``batches`` (n, d)."""
        end = published.End(rule=published.EndRule.DENOISE)
        nfe = self.settings.fine_nfe
        plan = compile_plan(published.dpmpp_2m(self.denoiser.process, nfe=nfe, end=end))
        found = []
        with torch.no_grad():
            for noise, condition in batches:
                images = sample(self.denoiser, plan, noise, **condition)
                self.network_calls += len(noise) * plan.nfe * self._doubled
                found.append(self.seen(images, in_pixels=self.settings.target == "pixels"))
        return torch.cat(found)

    def gradient(
        self, batches: Sequence[Batch], loss_of: Callable[[Tensor], Tensor]
    ) -> tuple[float, list[Tensor]]:
        """The loss and its gradient in the table's moves, batch by batch if there are several."""
        moves = self.table.moves
        if len(batches) == 1:
            loss = loss_of(self.outputs(batches[0]))
            self._count_backward(batches[0])
            return loss.item(), _gradients(loss, moves)
        with torch.no_grad():
            outputs = [self.outputs(batch) for batch in batches]
        whole = torch.cat(outputs).requires_grad_()
        loss = loss_of(whole)
        (share,) = torch.autograd.grad(loss, whole)
        total = [torch.zeros_like(move) for move in moves]
        for batch, part in zip(batches, share.split([len(n) for n, _ in batches]), strict=True):
            self._count_backward(batch)
            for sum_, own in zip(total, _gradients(self.outputs(batch), moves, part), strict=True):
                sum_.add_(own)
        return loss.item(), total

    def _count_backward(self, batch: Batch) -> None:
        self.network_calls += len(batch[0]) * self.table.table.nfe * self._doubled

    def _answer(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        def call(x: Tensor, t: Tensor) -> Tensor:
            self.network_calls += len(x) * self._doubled
            answer: Tensor = self.denoiser(x, t, **condition)
            return answer

        if self.settings.recompute and torch.is_grad_enabled():
            answer = checkpoint(call, x, t, use_reentrant=False)
        else:
            answer = call(x, t)
        if torch.is_grad_enabled() and x.requires_grad and not answer.requires_grad:
            raise EvaluationFailed(
                "polish: the network's answer carries no gradient; the denoiser must be torch "
                "operations outside no_grad and inference_mode from x to D"
            )
        return answer


def _objective(
    run: _Run, reference: FrechetReference, noise_seed: int
) -> Callable[[int], tuple[float, list[Tensor]]]:
    """Loss and gradient of one iteration."""
    settings = run.settings
    if settings.loss == "frechet":
        frechet = FrechetLoss(reference, run.device)
        return lambda i: run.gradient(run.batches(_seed(noise_seed, i)), frechet)
    targets: dict[int, Tensor] = {}

    def squared(i: int) -> tuple[float, list[Tensor]]:
        turn = i % settings.target_batches
        batches = run.batches(_seed(noise_seed, turn))
        if turn not in targets:
            targets[turn] = run.fine(batches)
        return run.gradient(batches, lambda f: ((f - targets[turn]) ** 2).sum(1).mean())

    return squared


def _descend(run: _Run, objective: Callable[[int], tuple[float, list[Tensor]]]) -> list[float]:
    """Adam; leaves the table at its last moves whose images were finite."""
    table, n = run.table, run.settings.iterations
    rate, failures, norms, losses = run.settings.learning_rate, 0, _Mean(), list[float]()
    good = [move.detach().clone() for move in table.moves]
    adam = torch.optim.Adam(table.moves, betas=_BETAS)
    for i in range(n):
        loss, gradient = objective(i)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        losses.append(loss if is_finite else math.nan)
        if not is_finite:
            if i == 0:
                raise EvaluationFailed(
                    f"polish: the schedule's loss is {loss} and its gradient {norm}; only a "
                    "schedule with finite images can be polished"
                )
            failures += 1
            rate *= 0.5
            _restore(table, good)
            adam = torch.optim.Adam(table.moves, betas=_BETAS)
            if failures == _MAX_FAILURES:
                return losses
            continue
        failures = 0
        good = [move.detach().clone() for move in table.moves]
        scale = norms.cut(norm)
        for move, g in zip(table.moves, gradient, strict=True):
            move.grad = g * scale
        decay = 0.5 * (1.0 + math.cos(math.pi * i / n))
        for group in adam.param_groups:
            group["lr"] = rate * min(1.0, (i + 1) / _WARM_UP) * decay
        adam.step()
        table.project()
    with torch.no_grad():
        last = run.outputs(run.batches(_seed(0, n))[0])
    if not torch.isfinite(last).all():
        _restore(table, good)
    return losses


class _Mean:
    """The mean of the norms so far, and the factor that cuts one far above it."""

    def __init__(self) -> None:
        self._total, self._n = 0.0, 0

    def cut(self, norm: float) -> float:
        limit = _LARGEST_JUMP * self._total / self._n if self._n else math.inf
        kept = min(norm, limit)
        self._total, self._n = self._total + kept, self._n + 1
        return kept / norm if norm > 0.0 else 1.0


def _gradients(of: Tensor, moves: list[Tensor], weights: Tensor | None = None) -> list[Tensor]:
    found = torch.autograd.grad(of, moves, weights, allow_unused=True)
    pairs = zip(found, moves, strict=True)
    return [torch.zeros_like(move) if g is None else g for g, move in pairs]


def _restore(table: MovableTable, values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for move, value in zip(table.moves, values, strict=True):
            move.copy_(value)


def _seed(noise_seed: int, iteration: int) -> int:
    entropy = np.random.SeedSequence([_SEED_TAG, noise_seed, iteration])
    return int(entropy.generate_state(1, dtype=np.uint64)[0])


def _usable(tensor: Tensor) -> Tensor:
    """A tensor that was made in inference mode cannot take part in a gradient; its copy can."""
    return tensor.clone() if tensor.is_inference() else tensor


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
