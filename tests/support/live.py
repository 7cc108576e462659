"""What a program may bring to a search: a module that is no copy, an extractor, real images."""

from typing import Any

import torch
from torch import Tensor, nn

import s3search
from s3search.processes import edm
from s3search.run.found import SearchResult

SHAPE = (1, 3, 3)


class Net(nn.Module):
    """The exact denoiser of independent Gaussian pixels, its variances as parameters.

    It remembers who was called, and at which call it is to be interrupted.
    """

    process, sample_shape = edm(), SHAPE

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.variances = nn.Parameter(scale * torch.linspace(0.02, 0.4, 9).reshape(SHAPE))
        self._calls = 0
        self._interrupted_at = -1
        self._pickled = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self._calls += 1
        if self._calls == self._interrupted_at:
            raise KeyboardInterrupt
        if self.training:
            raise RuntimeError("called in training mode")
        v = self.variances
        return x * v / (v + t.reshape(-1, 1, 1, 1) ** 2)

    def __getstate__(self) -> dict[str, Any]:
        self._pickled += 1
        return self.__dict__

    def __deepcopy__(self, memo: object) -> "Net":
        raise AssertionError("a live model is not copied")


def network(x: Tensor, t: Tensor) -> Tensor:
    """A denoiser that says nothing of itself."""
    return x / (1.0 + t.reshape(-1, 1, 1, 1) ** 2)


def pixels(images: Tensor) -> Tensor:
    """The pixels themselves as features."""
    return images.flatten(1)


def squares(images: Tensor) -> Tensor:
    """Another extractor."""
    return images.flatten(1) ** 2


def real_images(n: int = 300) -> Tensor:
    """Samples of `Net`'s Gaussian, as far as they fit."""
    noise = torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(3))
    return (noise * Net().variances.detach().sqrt()).clamp(-1, 1)


def small_search(model: Any, **changes: Any) -> SearchResult:
    """A search of a few evaluations, unless told otherwise."""
    asked: dict[str, Any] = {
        "reference": real_images(),
        "features": pixels,
        "nfe": 5,
        "evaluations": 6,
        "n_images": 40,
        "algorithm": "evolution",
        "search": {"batch": 4},
        "validation": {"n_images": 80, "finalists": 2},
        "progress": False,
    }
    return s3search.search(model, **{**asked, **changes})
