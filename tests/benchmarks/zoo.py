"""Small models of different kinds, on which the defaults of the search are chosen.

Seven, each trained here in minutes on one CPU thread and kept outside the repository:

    crops      8x8 colour crops of scikit-learn's two photographs; dense, EDM
    glyphs     12x12 letters of matplotlib's fonts, one of ten drawn per image; dense, EDM, classes
    textures   8x8 grey waves and their sums; convolutional, VP cosine, epsilon
    chirps     8x16 spectrograms of gliding tones; dense, rectified flow, velocity
    shapes     16x16 colour discs, squares and bars; dense, EDM
    waves      8x8 colour gradients with edges; dense, VP linear, v
    poor       grey crops, a small network that was stopped early; dense, EDM

Features are the 64 hidden numbers of a denoising autoencoder of the same images, each with mean 0
and variance 1 over them.  ``python -m tests.benchmarks.zoo FOLDER`` trains all that the folder
lacks; `load` gives one back.  Same seed, machine, torch and threads: the same weights.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from s3search.models import digits
from s3search.processes import NoiseProcess, edm, flow, vp_cosine, vp_linear

Prediction = Literal["edm", "epsilon", "v", "velocity"]
N_IMAGES = 4000
N_FEATURES = 64
_BATCH = 384
_LETTERS = "ABEGKMRSWZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One model: its images, its network and its process."""

    images: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    process: Callable[[], NoiseProcess]
    prediction: Prediction = "edm"
    width: int = 256
    blocks: int = 3
    is_convolutional: bool = False
    n_classes: int = 0
    iterations: int = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What a search needs of one model."""

    name: str
    denoiser: nn.Module  # with process, sample_shape
    features: nn.Module
    images: Tensor  # (N, C, H, W) in [-1, 1]

    def on(self, device: str) -> "Member":
        """With both networks there."""
        self.denoiser.to(device)
        self.features.to(device)
        return self


class ZooDenoiser(nn.Module):
    """D(x, t) of a network that was trained in its own parametrisation; classes are drawn by the
    search, uniformly.
    """

    def __init__(self, kind: Kind, shape: tuple[int, ...], scale: float) -> None:
        super().__init__()
        self.process, self.sample_shape = kind.process(), shape
        self.n_classes, self._prediction, self._scale = kind.n_classes, kind.prediction, scale
        made = _Convolutional if kind.is_convolutional else _Dense
        self.net = made(shape, kind)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The clean image expected behind ``x`` (B, C, H, W) at times ``t`` (B,)."""
        alpha, sigma = (
            of(t.double()).to(x).reshape(-1, 1, 1, 1)
            for of in (self.process.alpha, self.process.sigma)
        )
        return self.clean(self.answer(x, alpha, sigma, label), x, alpha, sigma)

    def answer(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """What the network says, of unit size."""
        scale = torch.rsqrt((alpha * self._scale) ** 2 + sigma**2)
        # the angle of noise and data says the level, finite at both ends
        angle = torch.atan2(sigma, alpha * self._scale).flatten()
        found: Tensor = self.net(x * scale, angle, label)
        return found

    def clean(self, said: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean image of what the network says."""
        if self._prediction == "epsilon":
            return (x - sigma * said) / alpha
        if self._prediction == "v":
            return alpha * x - sigma * said
        if self._prediction == "velocity":
            return x - sigma * said
        s = self._scale
        norm = (alpha * s) ** 2 + sigma**2
        return alpha * s**2 / norm * x + sigma * s / norm.sqrt() * said

    def due(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should say."""
        match self._prediction:
            case "epsilon":
                return noise
            case "v":
                return alpha * noise - sigma * x0
            case "velocity":
                return noise - x0
        s, x = self._scale, alpha * x0 + sigma * noise
        norm = (alpha * s) ** 2 + sigma**2
        return (x0 - alpha * s**2 / norm * x) * norm.sqrt() / (sigma * s)

    def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """As many classes as images."""
        if not self.n_classes:
            return {}
        device = generator.device
        return {"label": torch.randint(self.n_classes, (n,), generator=generator, device=device)}


class _Embedding(nn.Module):
    def __init__(self, kind: Kind, n_out: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, 9) * 1.0)
        self.inward = nn.Linear(16, 64)
        self.outward = nn.Linear(64, n_out)
        self.classes = nn.Embedding(max(1, kind.n_classes), 64)

    def forward(self, angle: Tensor, label: Tensor | None) -> Tensor:
        turns = angle[:, None] * self.frequencies.to(angle)
        h = self.inward(torch.cat([turns.sin(), turns.cos()], dim=1))
        if label is not None:
            h = h + self.classes(label)
        found: Tensor = self.outward(functional.silu(h))
        return found


class _Dense(nn.Module):
    def __init__(self, shape: tuple[int, ...], kind: Kind) -> None:
        super().__init__()
        n, width = math.prod(shape), kind.width
        self._blocks, self._shape = kind.blocks, shape
        self.first, self.last = nn.Linear(n, width), nn.Linear(width, n)
        self.embedding = _Embedding(kind, 2 * kind.blocks * 2 * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(kind.blocks))
        self.inward = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(kind.blocks))
        self.outward = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(kind.blocks))

    def forward(self, x: Tensor, angle: Tensor, label: Tensor | None) -> Tensor:
        h = self.first(x.flatten(1))
        gains = self.embedding(angle, label).chunk(2 * self._blocks, dim=1)
        for i, (norm, inward, outward) in enumerate(
            zip(self.norms, self.inward, self.outward, strict=True)
        ):
            hidden = inward(norm(h)) * (1.0 + gains[2 * i]) + gains[2 * i + 1]
            h = h + outward(functional.silu(hidden))
        found: Tensor = self.last(h)
        return found.reshape(-1, *self._shape)


class _Convolutional(nn.Module):
    def __init__(self, shape: tuple[int, ...], kind: Kind) -> None:
        super().__init__()
        self._blocks, width = kind.blocks, kind.width
        self.first = nn.Conv2d(shape[0], width, 3, padding=1)
        self.last = nn.Conv2d(width, shape[0], 3, padding=1)
        self.embedding = _Embedding(kind, 2 * kind.blocks * width)
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(kind.blocks))
        self.inward = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=2**i, dilation=2**i) for i in range(kind.blocks)
        )
        self.outward = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(kind.blocks))

    def forward(self, x: Tensor, angle: Tensor, label: Tensor | None) -> Tensor:
        h = self.first(x)
        gains = self.embedding(angle, label)[:, :, None, None].chunk(2 * self._blocks, dim=1)
        for i, (norm, inward, outward) in enumerate(
            zip(self.norms, self.inward, self.outward, strict=True)
        ):
            hidden = inward(norm(h)) * (1.0 + gains[2 * i]) + gains[2 * i + 1]
            h = h + outward(functional.silu(hidden))
        found: Tensor = self.last(h)
        return found


# -- images ----------------------------------------------------------------------------------


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_sample_images  # noqa: PLC0415

    return tuple(np.asarray(own, dtype=np.float64) for own in load_sample_images().images)


def _crops(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for _ in range(N_IMAGES):
        photo = _photographs()[rng.integers(2)]
        size = 8 * int(rng.integers(2, 6))
        i, j = (int(rng.integers(0, n - size)) for n in photo.shape[:2])
        crop = photo[i : i + size, j : j + size]
        small = crop.reshape(8, size // 8, 8, size // 8, 3).mean((1, 3))
        found.append(small[:, :: rng.choice([-1, 1])])
    return np.stack(found).transpose(0, 3, 1, 2) / 127.5 - 1.0, np.zeros(N_IMAGES, dtype=int)


def _grey_crops(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    colour, labels = _crops(rng)
    return colour.mean(1, keepdims=True), labels


def _glyphs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    from matplotlib import font_manager  # noqa: PLC0415
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415

    folder = Path(font_manager.__file__).parent / "mpl-data" / "fonts" / "ttf"
    files = [*sorted(folder.glob("DejaVu*.ttf")), *sorted(folder.glob("STIXGeneral*.ttf"))]
    fonts = [ImageFont.truetype(str(path), size) for path in files for size in (34, 40, 46)]
    found, labels = [], rng.integers(len(_LETTERS), size=N_IMAGES)
    for label in labels:
        picture = Image.new("L", (48, 48), 0)
        x, y = rng.uniform(-4, 4, 2) + 24
        font = fonts[int(rng.integers(len(fonts)))]
        ImageDraw.Draw(picture).text((x, y), _LETTERS[label], fill=255, font=font, anchor="mm")
        turned = picture.rotate(float(rng.uniform(-12, 12)), resample=Image.Resampling.BILINEAR)
        found.append(np.asarray(turned, dtype=np.float64).reshape(12, 4, 12, 4).mean((1, 3)))
    return np.stack(found)[:, None] / 127.5 - 1.0, labels


def _textures(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    total = np.zeros((N_IMAGES, 8, 8))
    for k in range(2):
        angle, phase = rng.uniform(0, np.pi, N_IMAGES), rng.uniform(0, 2 * np.pi, N_IMAGES)
        pace = rng.uniform(0.4, 2.2, N_IMAGES)
        size = rng.beta(2, 2, N_IMAGES) if k else np.ones(N_IMAGES)
        along = np.cos(angle)[:, None, None] * i + np.sin(angle)[:, None, None] * j
        wave = np.sin(pace[:, None, None] * along + phase[:, None, None])
        total += size[:, None, None] * wave
    return np.tanh(1.5 * total)[:, None], np.zeros(N_IMAGES, dtype=int)


def _chirps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    frequency, time = np.meshgrid(np.arange(8), np.arange(16), indexing="ij")
    total = np.zeros((N_IMAGES, 8, 16))
    for k in range(2):
        start, end = rng.uniform(0, 7, (2, N_IMAGES, 1, 1))
        bend = rng.uniform(0.5, 2.0, (N_IMAGES, 1, 1))
        at = start + (end - start) * (time / 15) ** bend
        loud = rng.uniform(0.4, 1.0, (N_IMAGES, 1, 1)) * (rng.random((N_IMAGES, 1, 1)) < 1 - k / 2)
        total = np.maximum(total, loud * np.exp(-0.5 * ((frequency - at) / 0.7) ** 2))
    fade = np.exp(-time / rng.uniform(8, 60, (N_IMAGES, 1, 1)))
    return (2 * total * fade - 1)[:, None], np.zeros(N_IMAGES, dtype=int)


def _shapes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 16), indexing="ij")
    kinds = rng.integers(3, size=N_IMAGES)
    y, x = rng.uniform(-0.4, 0.4, (2, N_IMAGES, 1, 1))
    size = rng.uniform(0.3, 0.7, (N_IMAGES, 1, 1))
    turn = rng.uniform(0, np.pi, (N_IMAGES, 1, 1))
    a = (i - y) * np.cos(turn) + (j - x) * np.sin(turn)
    b = -(i - y) * np.sin(turn) + (j - x) * np.cos(turn)
    far = [np.hypot(a, b) / size, np.maximum(abs(a), abs(b)) / size * 1.2]
    far.append(np.maximum(abs(a) * 3, abs(b)) / size)
    inside = 1 / (1 + np.exp(10 * (np.stack(far)[kinds, np.arange(N_IMAGES)] - 1)))
    front, back = rng.uniform(-1, 1, (2, N_IMAGES, 3, 1, 1))
    mixed = back + (front - back) * inside[:, None]
    return np.clip(mixed, -1, 1), np.zeros(N_IMAGES, dtype=int)


def _waves(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8), indexing="ij")
    turn, shift = rng.uniform(0, 2 * np.pi, (N_IMAGES, 1, 1)), rng.normal(0, 0.5, (N_IMAGES, 1, 1))
    along = i * np.cos(turn) + j * np.sin(turn) - shift
    sharp = np.exp(rng.uniform(0, 3, (N_IMAGES, 1, 1)))
    edge = np.tanh(sharp * along)[:, None]
    hue = rng.normal(0, 0.6, (2, N_IMAGES, 3, 1, 1))
    return np.tanh(hue[0] + hue[1] * edge), np.zeros(N_IMAGES, dtype=int)


ZOO: Mapping[str, Kind] = {
    "crops": Kind(images=_crops, process=edm, iterations=5000),
    "glyphs": Kind(images=_glyphs, process=edm, n_classes=len(_LETTERS)),
    "textures": Kind(
        images=_textures,
        process=vp_cosine,
        prediction="epsilon",
        is_convolutional=True,
        width=24,
        blocks=3,
        iterations=1500,
    ),
    "chirps": Kind(images=_chirps, process=flow, prediction="velocity"),
    "shapes": Kind(images=_shapes, process=edm, width=320, iterations=2500),
    "waves": Kind(images=_waves, process=vp_linear, prediction="v"),
    "poor": Kind(images=_grey_crops, process=edm, width=64, blocks=2, iterations=700),
}


def load(folder: Path, name: str, n_features: int = N_FEATURES) -> Member:
    """One model of a folder that `train` wrote, the embedded "digits", or the larger "emoji" of
    `tests.benchmarks.emoji`, which alone has more than 64 features.
    """
    if name == "emoji":
        from tests.benchmarks import emoji  # noqa: PLC0415  # needs diffusers

        return emoji.load(folder, n_features)
    if name == "digits":
        return Member(
            name=name,
            denoiser=digits.load(),
            features=digits.features("a"),
            images=digits.images(),
        )
    state = load_file(folder / f"{name}.safetensors")
    images, seen = state.pop("images"), _features(state.pop("images_shape").tolist())
    denoiser = ZooDenoiser(ZOO[name], tuple(images.shape[1:]), float(images.std()))
    own = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    seen.load_state_dict(own)
    rest = {k: v for k, v in state.items() if not k.startswith("features.")}
    denoiser.load_state_dict(rest)
    return Member(
        name=name,
        denoiser=denoiser.eval().requires_grad_(False),
        features=seen.eval().requires_grad_(False),
        images=images,
    )


def train(folder: Path, name: str, seed: int = 0) -> None:
    """Trains one model and its features, and writes both."""
    kind = ZOO[name]
    pixels, labels = kind.images(np.random.default_rng(seed))
    images, classes = torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(seed)
    denoiser = ZooDenoiser(kind, tuple(images.shape[1:]), float(images.std()))
    loss = _train_denoiser(denoiser, images, classes, kind)
    seen = _features(list(images.shape[1:]))
    _train_features(seen, images)
    state = {**denoiser.state_dict(), "images": images}
    state |= {f"features.{key}": value for key, value in seen.state_dict().items()}
    state["images_shape"] = torch.tensor(images.shape[1:])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{name}.part")
    (folder / f"{name}.part").rename(folder / f"{name}.safetensors")
    print(f"{name}: {tuple(images.shape)}, loss {loss:.4f}", flush=True)


def _train_denoiser(denoiser: ZooDenoiser, images: Tensor, classes: Tensor, kind: Kind) -> float:
    scale = float(images.std())
    mean = {key: value.clone() for key, value in denoiser.state_dict().items()}
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=2e-3, weight_decay=1e-3, fused=True)
    losses = []
    for i in range(kind.iterations):
        for group in optimiser.param_groups:
            rise = min(1.0, (i + 1) / 100)
            group["lr"] = 2e-3 * rise * 0.5 * (1 + math.cos(math.pi * i / kind.iterations))
        chosen = torch.randint(len(images), (_BATCH,))
        x0, noise = images[chosen], torch.randn((_BATCH, *images.shape[1:]))
        level = scale * torch.exp(1.4 * torch.randn((_BATCH, 1, 1, 1)))
        alpha, sigma = _scaled(denoiser.process, level)
        label = classes[chosen] if kind.n_classes else None
        said = denoiser.answer(alpha * x0 + sigma * noise, alpha, sigma, label)
        loss = (said - denoiser.due(x0, noise, alpha, sigma)).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        keep = 1 - 1 / min(1 + i / 10, 0.03 * kind.iterations)
        for key, value in denoiser.state_dict().items():
            mean[key].lerp_(value, 1 - keep)
    denoiser.load_state_dict(mean)
    return float(np.mean(losses[-200:]))


def _scaled(process: NoiseProcess, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) at sigma / alpha = ``ratio``."""
    match process.type:
        case "edm":
            return torch.ones_like(ratio), ratio
        case "flow":
            return 1 / (1 + ratio), ratio / (1 + ratio)
    return torch.rsqrt(1 + ratio**2), ratio * torch.rsqrt(1 + ratio**2)


class _Features(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.inward = nn.Sequential(
            nn.Flatten(), nn.Linear(n, 256), nn.SiLU(), nn.Linear(256, N_FEATURES), nn.Tanh()
        )
        self.outward = nn.Sequential(nn.Linear(N_FEATURES, 256), nn.SiLU(), nn.Linear(256, n))
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        self.register_buffer("scale", torch.ones(N_FEATURES))

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = (self.inward(images.float().clamp(-1, 1)) - self.mean) / self.scale
        return found


def _features(shape: list[int]) -> _Features:
    return _Features(math.prod(shape))


def _train_features(seen: _Features, images: Tensor) -> None:
    optimiser = torch.optim.AdamW(seen.parameters(), lr=1e-3)
    for _ in range(2000):
        x0 = images[torch.randint(len(images), (256,))]
        made = seen.outward(seen.inward(x0 + 0.2 * torch.randn(x0.shape)))
        loss = (made - x0.flatten(1)).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = seen.inward(images)
        seen.mean.copy_(found.mean(0))
        seen.scale.copy_(found.std(0).clamp(min=1e-3))


def main() -> None:
    """Trains what a folder lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(ZOO))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.names:
        if not (asked.folder / f"{name}.safetensors").exists():
            train(asked.folder, name)


if __name__ == "__main__":
    main()
