"""A user's own model, extractor and reference; study files name them by import path."""

import math
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from s3search.models import digits
from s3search.models.gaussian import GaussianDenoiser
from s3search.processes import edm

SHAPE = (1, 3, 3)
_MEAN = torch.linspace(-0.3, 0.3, 9, dtype=torch.float64).reshape(SHAPE)
_VARIANCES = torch.linspace(0.02, 0.4, 9, dtype=torch.float64).reshape(SHAPE)


def gaussian(
    seconds: float = 0.0,
    kill_once: str = "",
    kill_at: float = -1.0,
    fail: bool = False,
    hold: str = "",
    hold_at: float = -1.0,
) -> Any:
    """A Gaussian whose calls take ``seconds``; the first call kills its process if a file asks,
    and so does every call at the time ``kill_at``.  A call at ``hold_at`` leaves its process id
    in the folder ``hold`` and waits until "go" is there too.
    """
    denoiser = GaussianDenoiser(edm(), _MEAN, _VARIANCES.flatten())

    class Slow:
        process, sample_shape = denoiser.process, SHAPE

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            time.sleep(seconds)
            if kill_once and Path(kill_once).exists():
                Path(kill_once).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if any(math.isclose(at, kill_at, rel_tol=1e-5) for at in t.detach().unique().tolist()):
                os.kill(os.getpid(), signal.SIGKILL)
            if math.isclose(float(t[0].detach()), hold_at, rel_tol=1e-5):
                Path(hold, str(os.getpid())).touch()
                while not Path(hold, "go").exists():
                    time.sleep(0.05)
            return denoiser(x, t) * (float("nan") if fail else 1.0)

    return Slow()


def pixels() -> Any:
    """The pixels themselves as features."""

    def features(images: Tensor) -> Tensor:
        return images.flatten(1)

    return features


def squares(power: int = 2) -> Any:
    """A second extractor: what it sees is not what `pixels` sees."""

    def features(images: Tensor) -> Tensor:
        return images.flatten(1) ** power

    features.name = f"squares-{power}"  # type: ignore[attr-defined]
    return features


def prompted() -> Any:
    """A Gaussian whose images are as bright as their prompt says; other prompts are held out."""
    denoiser = GaussianDenoiser(edm(), _MEAN, _VARIANCES.flatten())

    class Prompted:
        process, sample_shape = denoiser.process, SHAPE

        def condition(
            self, n: int, generator: torch.Generator, held_out: bool
        ) -> dict[str, Tensor]:
            return {"bright": torch.rand(n, generator=generator) + (5.0 if held_out else 0.0)}

        def __call__(self, x: Tensor, t: Tensor, bright: Tensor) -> Tensor:
            return denoiser(x, t) + bright.reshape(-1, 1, 1, 1)

    return Prompted()


def images(n: int = 500) -> Tensor:
    """Samples of the Gaussian, scaled to fit [-1, 1]."""
    noise = torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(3))
    return (_MEAN + _VARIANCES.sqrt() * noise).clamp(-1, 1).float()


def bytes_images() -> Tensor:
    """What a user forgets to convert."""
    return torch.zeros((10, *SHAPE), dtype=torch.uint8)


def statistics(path: str) -> str:
    """A reference that is a file."""
    return path


def broken() -> None:
    """A loader that fails."""
    raise RuntimeError("no such checkpoint")


def nothing() -> object:
    """A loader that returns no denoiser."""
    return object()


class _Scaled(torch.nn.Module):
    """A Gaussian with one parameter, which its fingerprint shows."""

    process, sample_shape = edm(), SHAPE

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self._denoiser = GaussianDenoiser(edm(), _MEAN, _VARIANCES.flatten())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self._denoiser(x, t) * self.scale


def trained(weights: str) -> Any:
    """A model whose parameter stands in a file, which may change under a study."""
    return _Scaled(float(Path(weights).read_text()))


def guided() -> Any:
    """A Gaussian whose call j is moved by the j-th scale of the schedule; a trajectory uses them
    up.
    """
    denoiser = GaussianDenoiser(edm(), _MEAN, _VARIANCES.flatten())

    class Guided:
        process, sample_shape, takes_guidance = denoiser.process, SHAPE, True

        def __init__(self, scales: Sequence[float]) -> None:
            self._left = list(scales)

        def with_guidance(self, scales: Sequence[float]) -> "Guided":
            return Guided(scales)

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return denoiser(x, t) * self._left.pop(0)

    return Guided(())


def leave_file(path: str) -> Any:
    """A loader that cannot be mistaken for one that did not run."""
    Path(path).touch()
    raise RuntimeError("this is no model")


def raising() -> Any:
    """A model whose calls fail in a way of its own."""

    class Raising:
        process, sample_shape = edm(), SHAPE

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            raise ZeroDivisionError("by nothing")

    return Raising()


def asked_digit(network: Literal["a", "b"] = "b") -> Any:
    """How sure a classifier of digits is of the digit that was asked for: a score."""
    judge = digits.features(network)

    def log_probability(images: Tensor, labels: Tensor) -> Tensor:
        found = judge.logits(images).log_softmax(dim=1)
        return found.gather(1, labels[:, None])[:, 0]

    return log_probability


class _Restoring:
    """A Gaussian denoiser whose condition hands over what its images should be."""

    def __init__(self) -> None:
        self._gaussian = gaussian()
        self.process, self.sample_shape = self._gaussian.process, self._gaussian.sample_shape
        self.target_seen = False

    def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        target = torch.randn((n, *self.sample_shape), generator=generator).clamp(-1, 1)
        return {"target": target, "strength": torch.ones(n)}

    def __call__(self, x: Tensor, t: Tensor, strength: Tensor, **others: Tensor) -> Tensor:
        self.target_seen |= "target" in others
        found: Tensor = self._gaussian(x, t)
        return found


def restoring() -> Any:
    """A model that knows what its images should be, and whose network does not."""
    return _Restoring()
