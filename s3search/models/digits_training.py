"""Training of the embedded model: the denoiser, the two feature networks, one file.

    train(Path("digits.safetensors"))          # some minutes on two CPU threads

The denoiser's loss is EDM's (arXiv:2206.00364v2, eqs. 2 and 8): log sigma ~ N(P_MEAN, P_STD^2) and
weight 1 / c_out^2, which makes it the squared error of the inner network F.  A batch's noise
levels are quantiles of that normal law, one at random in each of B equal slices: that takes most
of their variance out of the loss.  The weights kept are a running mean.

Same seed, machine, torch and number of threads: the same file to the bit.  Nothing here reads or
moves torch's global generator.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from s3search.models import digits
from s3search.solvers.shapes import over_the_rest

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Progress = Callable[[str, int, int, float], None]
"""Told now and then: the stage, iterations done, iterations in all, the recent mean loss."""

# NOTE: after 10,000 iterations a 100-call solve had a Fréchet distance of 0.12 to the real images,
# against 0.15 with (-0.6, 1.5): what counts is decided at noise as strong as the picture.
P_MEAN, P_STD = 0.0, 1.2
LABEL_DROPOUT = 0.15
BATCH = 512
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
EMA_HALF_LIFE = 0.02  # as a fraction of the iterations

CLASSIFIER_BATCH = 128
HELD_OUT = 360  # images that the feature networks never see, for their accuracy
REPORT_EVERY = 500


def train(
    out: Path,
    *,
    seed: int = 0,
    iterations: int = 10_000,
    classifier_iterations: int = 2_000,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Writes ``out``, whole or not at all; returns the loss, held-out accuracies and seconds."""
    started = time.perf_counter()
    tell = progress or _silent
    images, labels = digits.images(), digits.labels()
    denoiser, loss = _train_denoiser(images, labels, _generator(seed, 0), iterations, tell)
    state = _stored("denoiser", denoiser)
    report = {"denoiser_loss": loss}
    for stream, network in enumerate(("a", "b"), start=1):
        name = f"features_{network}"
        module, accuracy = _train_features(
            name, images, labels, _generator(seed, stream), classifier_iterations, tell
        )
        state |= _stored(name, module)
        report[f"{name}_accuracy"] = accuracy
    _write_whole(out, save(state))
    return report | {"seconds": time.perf_counter() - started}


def _train_denoiser(
    images: Tensor, labels: Tensor, generator: torch.Generator, iterations: int, tell: Progress
) -> tuple[digits.DigitsDenoiser, float]:
    model, mean = _on_cpu(digits.DigitsDenoiser), _on_cpu(digits.DigitsDenoiser)
    _initialise(model, generator)
    mean.load_state_dict(model.state_dict())
    mean.requires_grad_(False)
    optimiser = _optimiser(model, LEARNING_RATE, WEIGHT_DECAY)
    horizon = EMA_HALF_LIFE * iterations / math.log(2)
    losses: list[float] = []
    batches = _batches(len(images), BATCH, generator)
    for done in range(1, iterations + 1):
        _set_learning_rate(optimiser, LEARNING_RATE, done, iterations)
        chosen = next(batches)
        loss = _denoising_loss(model, images[chosen], labels[chosen], generator)
        _descend(optimiser, loss)
        # the running mean starts short, so that it forgets the initial weights
        keep = math.exp(-1 / min(horizon, 1 + done / 10))
        for kept, new in zip(mean.parameters(), model.parameters(), strict=True):
            kept.lerp_(new.detach(), 1 - keep)
        losses.append(loss.detach().item())
        _tell_sometimes(tell, "denoiser", done, iterations, losses)
    return mean, _recent(losses)


def _denoising_loss(
    model: digits.DigitsDenoiser, x0: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    n = len(x0)
    slices = (torch.arange(n) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
    sigma = torch.exp(P_MEAN + P_STD * torch.special.ndtri(slices)).float()
    noise = torch.randn(x0.shape, generator=generator)
    dropped = torch.rand(n, generator=generator) < LABEL_DROPOUT
    predicted = model(
        x0 + over_the_rest(sigma, x0) * noise, sigma, labels.where(~dropped, digits.NULL_LABEL)
    )
    weight = (sigma**2 + digits.SIGMA_DATA**2) / (sigma * digits.SIGMA_DATA) ** 2
    return torch.mean(over_the_rest(weight, x0) * (predicted - x0) ** 2)


def _train_features(
    name: str,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    iterations: int,
    tell: Progress,
) -> tuple[digits.DigitsFeatures, float]:
    order = torch.randperm(len(images), generator=generator)
    held_out, seen = order[:HELD_OUT], order[HELD_OUT:]
    module = _on_cpu(lambda: digits.DigitsFeatures(name))
    _initialise(module, generator)
    optimiser = _optimiser(module, 1e-3, 0.1)
    losses: list[float] = []
    batches = _batches(len(seen), CLASSIFIER_BATCH, generator)
    for done in range(1, iterations + 1):
        _set_learning_rate(optimiser, 1e-3, done, iterations)
        chosen = seen[next(batches)]
        noisy = images[chosen] + 0.1 * torch.randn(images[chosen].shape, generator=generator)
        loss = functional.cross_entropy(module.logits(noisy), labels[chosen], label_smoothing=0.05)
        _descend(optimiser, loss)
        losses.append(loss.detach().item())
        _tell_sometimes(tell, name, done, iterations, losses)
    module.requires_grad_(False)
    activations = module.activations(images)
    module.get_buffer("mean").copy_(activations.mean(0))
    module.get_buffer("scale").copy_(activations.std(0))
    right = module.logits(images[held_out]).argmax(1) == labels[held_out]
    return module, right.float().mean().item()


def _on_cpu(make: Callable[[], ModuleT]) -> ModuleT:
    """A module whose values are still to be written; making it draws no random number."""
    with torch.device("meta"):
        module = make()
    return module.to_empty(device="cpu")


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Fills every parameter; the denoiser starts at F = 0, with blocks that change little."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            gain = 0.1 if name.endswith("outward") else 1.0
            part.weight.data.normal_(0, gain * part.in_features**-0.5, generator=generator)
            if part.bias is not None:
                part.bias.data.zero_()
        elif isinstance(part, nn.Embedding):
            part.weight.data.normal_(generator=generator)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()
    if isinstance(module, digits.DigitsDenoiser):
        module.last.weight.data.zero_()
        # gains and shifts alternate, block by block
        module.modulation.bias.data.view(len(module.blocks), 2, -1)[:, 0] = 1.0


def _optimiser(module: nn.Module, rate: float, decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        module.parameters(), lr=rate, weight_decay=decay, betas=(0.9, 0.99), fused=True
    )


def _set_learning_rate(
    optimiser: torch.optim.Optimizer, peak: float, done: int, total: int
) -> None:
    """A short linear rise, then half a cosine to zero."""
    rise = min(1.0, done / (0.02 * total + 1))
    for group in optimiser.param_groups:
        group["lr"] = peak * rise * 0.5 * (1 + math.cos(math.pi * (done - 1) / total))


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    optimiser.step()


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices, ``size`` at a time, from an endless row of shuffled passes over ``n``."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
        yield waiting[:size]
        waiting = waiting[size:]


def _generator(seed: int, stream: int) -> torch.Generator:
    """One generator per network, so that more iterations of one do not change another."""
    return torch.Generator().manual_seed(1000 * seed + stream)


def _recent(losses: list[float]) -> float:
    last = losses[-REPORT_EVERY:]
    return sum(last) / len(last)


def _tell_sometimes(
    tell: Progress, stage: str, done: int, total: int, losses: list[float]
) -> None:
    if done % REPORT_EVERY == 0 or done == total:
        tell(stage, done, total, _recent(losses))


def _silent(stage: str, done: int, total: int, loss: float) -> None:
    """Nobody asked for progress."""


def _stored(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{prefix}.{key}": value.half().contiguous() for key, value in module.state_dict().items()
    }


def _write_whole(out: Path, content: bytes) -> None:
    """Writes beside ``out`` and renames: a reader sees the old file or the new one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile: its files are private to the user, and the packaged one is for everybody
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
