"""The embedded model: 8x8 handwritten digits, so that a search on a laptop takes minutes.

A class-conditional denoiser of scikit-learn's 1,797 digits, two feature networks to measure what
it makes, and the real images.  Everything learned comes from one packaged file, which
`s3search.models.digits_training.train` makes again.

The denoiser is preconditioned as in EDM (arXiv:2206.00364v2, Table 1), with x = x0 + sigma eps and
s = SIGMA_DATA:

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)
    c_skip = s^2 / (sigma^2 + s^2)            c_in    = 1 / sqrt(sigma^2 + s^2)
    c_out  = sigma s / sqrt(sigma^2 + s^2)    c_noise = log(sigma) / 4

F sees the picture as 64 numbers and is dense: on a CPU a convolution of the same quality costs ten
times as much.  The noise level and the class reach every block through one small embedding, so a
call is a handful of large matrix products.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig, nearest
from s3search.processes import edm

WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"
"""The packaged weights: half precision, read into single precision."""

SIGMA_DATA = 0.85  # root mean square of a pixel of the real images in [-1, 1]
N_CLASSES = 10
NULL_LABEL = 10  # "no class given": what label dropout trains, and what guidance subtracts

Labels = Literal["uniform", "none"]
Network = Literal["a", "b"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)

_N_PIXELS = 64
_WIDTH = 256
_HIDDEN = 512
_N_BLOCKS = 3
_EMBEDDING = 64
_N_FREQUENCIES = 8
_N_FEATURES = 64
_CLASSIFIER_WIDTH = 256


class _Block(nn.Module):
    """h plus a two-layer correction of it, whose hidden layer the embedding scales and shifts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.inward = nn.Linear(_WIDTH, _HIDDEN, bias=False)
        self.outward = nn.Linear(_HIDDEN, _WIDTH)

    def forward(self, h: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        """The next h (B, _WIDTH), from h, a gain and a shift (B, _HIDDEN)."""
        hidden = functional.silu(torch.addcmul(shift, self.inward(self.norm(h)), gain))
        return torch.add(h, self.outward(hidden))


class DigitsDenoiser(nn.Module):
    """D(x, t, labels) -> x0 on (B, 1, 8, 8); ``labels`` in 0..9, or 10 or None for no class.

    With a ``guidance_scale`` w other than 1, a call with labels runs the network on a doubled
    batch and returns D_null + w (D_label - D_null): classifier-free guidance,
    arXiv:2207.12598v1, eq. 6, whose w is our w - 1.
    """

    sample_shape = (1, 8, 8)

    def __init__(self, *, labels: Labels = "uniform", guidance_scale: float = 1.0) -> None:
        super().__init__()
        self.process = edm(0.002, 80.0)
        self.labels = labels
        self.guidance_scale = guidance_scale
        self.noise_in = nn.Linear(2 * _N_FREQUENCIES + 1, _EMBEDDING)
        self.label_table = nn.Embedding(N_CLASSES + 1, _EMBEDDING)
        self.mix = nn.Linear(_EMBEDDING, _EMBEDDING)
        self.modulation = nn.Linear(_EMBEDDING, 2 * _N_BLOCKS * _HIDDEN)
        self.first = nn.Linear(_N_PIXELS, _WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(_N_BLOCKS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.last = nn.Linear(_WIDTH, _N_PIXELS)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The clean image expected behind ``x``, in the dtype of ``x``."""
        if labels is None:
            labels = torch.full((len(x),), NULL_LABEL, dtype=torch.int64, device=x.device)
        elif self.guidance_scale != 1.0:
            null = torch.full_like(labels, NULL_LABEL)
            both = self._denoise(torch.cat([x, x]), torch.cat([t, t]), torch.cat([null, labels]))
            without, given = both.chunk(2)
            return without + self.guidance_scale * (given - without)
        return self._denoise(x, t, labels)

    def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """What ``n`` images are conditioned on: every class equally often, or nothing.

        Counts of classes that vary by chance would show as differences between noise seeds.
        """
        if self.labels == "none":
            return {}
        order = torch.randperm(n, generator=generator, device=generator.device)
        return {"labels": (order % N_CLASSES).to(self.last.weight.device)}

    def _denoise(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        inner = self.last.weight.dtype
        # the skip is added in the wider of the two dtypes: a float64 state keeps its digits
        sigma = t.to(torch.promote_types(x.dtype, inner))[:, None]
        total = torch.sqrt(sigma * sigma + SIGMA_DATA**2)
        c_skip, c_out, c_in = (SIGMA_DATA / total) ** 2, sigma * SIGMA_DATA / total, 1 / total
        # outside the process's range (and at sigma = 0) F is told the nearest level it knows
        c_noise = sigma.clamp(self.process.sigma_min, self.process.sigma_max).log() / 4
        pixels = x.flatten(1)
        f = self._network((c_in * pixels).to(inner), c_noise.to(inner), labels)
        return (c_skip * pixels + c_out * f).to(x.dtype).view_as(x)

    def _network(self, pixels: Tensor, c_noise: Tensor, labels: Tensor) -> Tensor:
        """F of the equation above: (B, 64), (B, 1) and (B,) -> (B, 64)."""
        octaves = torch.arange(1, _N_FREQUENCIES + 1, dtype=c_noise.dtype, device=c_noise.device)
        angle = c_noise * octaves * (math.pi / 4)
        noise = self.noise_in(torch.cat([c_noise, angle.sin(), angle.cos()], dim=1))
        embedding = functional.silu(self.mix(functional.silu(noise + self.label_table(labels))))
        modulation = self.modulation(embedding).chunk(2 * _N_BLOCKS, dim=1)
        h = self.first(pixels)
        for block, gain, shift in zip(self.blocks, modulation[::2], modulation[1::2], strict=True):
            h = block(h, gain, shift)
        out: Tensor = self.last(functional.silu(self.norm(h)))
        return out


class DigitsFeatures(nn.Module):
    """What a digit classifier sees: images (B, 1, 8, 8) in [-1, 1] -> (B, 64) float32.

    These are the 64 numbers before its last layer, standardised by constants of the file to mean 0
    and variance 1 over the real images, so that a Fréchet distance in them counts every feature
    alike.  Images are clamped to [-1, 1] first.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.first = nn.Linear(_N_PIXELS, _CLASSIFIER_WIDTH)
        self.second = nn.Linear(_CLASSIFIER_WIDTH, _N_FEATURES)
        self.last = nn.Linear(_N_FEATURES, N_CLASSES)
        self.register_buffer("mean", torch.zeros(_N_FEATURES))
        self.register_buffer("scale", torch.ones(_N_FEATURES))

    sees_pictures = True

    def forward(self, images: Tensor) -> Tensor:
        """Standardised features (B, d) of images (B, 1, 8, 8)."""
        standardised = (self.activations(images) - self.get_buffer("mean")) / self.get_buffer(
            "scale"
        )
        return standardised.float()

    def activations(self, images: Tensor) -> Tensor:
        """The features as the classifier uses them."""
        pixels = images.to(self.first.weight.dtype).clamp(-1.0, 1.0).flatten(1)
        return functional.silu(self.second(functional.silu(self.first(pixels))))

    def logits(self, images: Tensor) -> Tensor:
        """Unnormalised log probabilities of the ten classes, (B, 10)."""
        out: Tensor = self.last(self.activations(images))
        return out


def load(
    labels: Labels = "uniform", guidance_scale: float = 1.0, *, weights: str | Path = WEIGHTS
) -> DigitsDenoiser:
    """The trained denoiser, frozen; ``labels`` says what `DigitsDenoiser.condition` draws."""
    _check_choice("labels", labels, get_args(Labels))
    if not isinstance(guidance_scale, int | float) or not math.isfinite(guidance_scale):
        raise InvalidConfig(f"guidance_scale: needs a finite number, found {guidance_scale!r}")
    if labels == "none" and guidance_scale != 1.0:
        raise InvalidConfig(
            f"guidance_scale: {guidance_scale} needs classes to guide towards, found {labels=}; "
            "set labels to 'uniform' or leave guidance_scale out"
        )
    with torch.device("meta"):  # neither time nor random numbers for values that the file replaces
        denoiser = DigitsDenoiser(labels=labels, guidance_scale=float(guidance_scale))
    return _filled(denoiser, "denoiser", weights)


def features(network: Network = "a", *, weights: str | Path = WEIGHTS) -> DigitsFeatures:
    """One of two feature networks, alike but for their seeds, so that one can check the other."""
    _check_choice("network", network, get_args(Network))
    with torch.device("meta"):
        module = DigitsFeatures(f"digits-{network}")
    return _filled(module, f"features_{network}", weights)


def images() -> Tensor:
    """The 1,797 real images, (1797, 1, 8, 8) float32 in [-1, 1] (grey levels 0..16)."""
    return (
        torch.tensor(_bunch()[0], dtype=torch.float32).view(-1, *DigitsDenoiser.sample_shape) / 8
        - 1
    )


def labels() -> Tensor:
    """The digit that each real image shows, (1797,) int64."""
    return torch.tensor(_bunch()[1], dtype=torch.int64)


@cache  # a megabyte, which takes a tenth of a second to read
def _bunch() -> tuple[Any, Any]:
    # a second of import, spent only where the real images are needed
    from sklearn.datasets import (  # type: ignore[import-untyped] # noqa: PLC0415
        load_digits,
    )

    data, target = load_digits(return_X_y=True)
    return data, target


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidConfig(f"{field}: {value!r} is not a choice; {nearest(str(value), choices)}")


def _filled(module: ModuleT, prefix: str, weights: str | Path) -> ModuleT:
    """``module`` with its share of the file in single precision, evaluation mode, frozen."""
    try:
        stored = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InvalidConfig(
            f"weights: cannot read {str(weights)!r} ({error}); `s3search tools train-digits` "
            "writes one"
        ) from error
    start = f"{prefix}."
    state = {k.removeprefix(start): v.float() for k, v in stored.items() if k.startswith(start)}
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InvalidConfig(
            f"weights: {str(weights)!r} does not hold this version's {prefix!r} ({error}); "
            "`s3search tools train-digits` writes a file that does"
        ) from error
    return module.eval().requires_grad_(False)
