"""Models of other ranks than pictures: a video flow, packed tokens, sound, vectors."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import s3search
from s3search.models import digits
from s3search.models.gaussian import GaussianDenoiser
from s3search.processes import NoiseProcess, edm, flow
from s3search.run.found import SearchResult
from s3search.solvers.shapes import Shape, over_the_rest


@dataclass(frozen=True, slots=True, kw_only=True)
class OfRank:
    """A model and real samples of it."""

    model: Any
    real: Tensor


class Video(nn.Module):
    """The velocity eps - x_0 of a flow of independent Gaussian numbers (C, T, H, W), each frame
    fainter than the one before.
    """

    process, sample_shape = flow(), (2, 4, 3, 3)

    def __init__(self) -> None:
        super().__init__()
        fainter = torch.linspace(0.3, 0.05, 4).reshape(1, 4, 1, 1)
        self.variances = nn.Parameter(fainter.expand(self.sample_shape).clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The clean video expected behind ``x``."""
        at, v = over_the_rest(t, x), self.variances
        clean: Tensor = x * (1 - at) * v / ((1 - at) ** 2 * v + at**2)
        return clean


class Tokens(nn.Module):
    """A denoiser of packed tokens (N, C), each channel of another spread."""

    process, sample_shape = flow(), (6, 3)

    def __init__(self) -> None:
        super().__init__()
        self.variances = nn.Parameter(torch.tensor([4.0, 1.0, 0.2]))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The clean tokens expected behind ``x``."""
        at, v = over_the_rest(t, x), self.variances
        clean: Tensor = x * (1 - at) * v / ((1 - at) ** 2 * v + at**2)
        return clean


def _gaussian(process: NoiseProcess, shape: Shape) -> GaussianDenoiser:
    """Exact, of a mean that is not 0 and variances that fall."""
    n = torch.zeros(shape).numel()
    mean = 0.2 * torch.sin(torch.arange(n).double()).reshape(shape)
    return GaussianDenoiser(process, mean, torch.logspace(-3, 0, n, dtype=torch.float64))


def sound() -> GaussianDenoiser:
    """Two channels of sixteen samples."""
    return _gaussian(edm(), (2, 16))


def vectors() -> GaussianDenoiser:
    """Points of five dimensions."""
    return _gaussian(edm(), (5,))


def digits_on_film() -> OfRank:
    """Digits that fade over three frames (1, 3, 8, 8), as videos and as the Gaussian of them."""
    fading = torch.tensor([1.0, 0.9, 0.8]).reshape(1, 1, 3, 1, 1)
    real = digits.images()[:300, :, None] * fading
    variances = real.double().flatten(1).var(0) + 1e-3
    return OfRank(model=GaussianDenoiser(edm(), real.double().mean(0), variances), real=real)


def spread(samples: Tensor) -> Tensor:
    """A score of one's own: how far a sample's energy is from one, (B,)."""
    return -(samples.square().flatten(1).mean(1) - 0.3).square()


def flat(samples: Tensor) -> Tensor:
    """An extractor of one's own: all numbers, (B, d)."""
    return samples.flatten(1)


def of_rank(name: str) -> OfRank:
    """The model of that name, new, with three hundred real samples."""
    model: Any = {"video": Video, "tokens": Tokens, "sound": sound, "vectors": vectors}[name]()
    noise = torch.randn((300, *model.sample_shape), generator=torch.Generator().manual_seed(3))
    if isinstance(model, GaussianDenoiser):
        own = model.eigenvalues.sqrt().reshape(model.sample_shape)
        return OfRank(model=model, real=(model.mean.reshape(own.shape) + noise * own).float())
    real = noise * model.variances.detach().sqrt()
    return OfRank(model=model, real=real.clamp(-1, 1) if name == "video" else real)


def model(rank: str) -> Any:
    """A loader of a study file."""
    return of_rank(rank).model


def real(rank: str) -> Tensor:
    """A loader of a study file's real samples."""
    return of_rank(rank).real


def loaded(rank: str) -> tuple[str, ...]:
    """What makes the study of `tests.support.studies` one of this rank."""
    here = "tests.support.any_rank"
    return (
        f"model.loader='{here}:model'",
        f"model.rank='{rank}'",
        f"reference.images='{here}:real'",
        f"reference.rank='{rank}'",
        f"metric.features='{here}:flattening'",
    )


def flattening() -> Any:
    """A loader of an extractor."""
    return flat


def small_search_of(name: str, **changes: Any) -> SearchResult:
    """A search of a few evaluations with a Fréchet distance of the numbers themselves."""
    own = of_rank(name)
    asked: dict[str, Any] = {
        "reference": own.real,
        "features": flat,
        "nfe": 4,
        "evaluations": 6,
        "n_images": 40,
        "search": {"batch": 4},
        "validation": {"n_images": 80, "finalists": 2},
        "progress": False,
    }
    asked.update(changes)
    return s3search.search(own.model, **{k: v for k, v in asked.items() if v is not None})
