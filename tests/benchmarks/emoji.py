"""A class-conditional U-Net of 32x32 colour pictures, trained here, for numbers at a real size.

    python -m tests.benchmarks.emoji FOLDER [--minutes 120] [--device cuda]

downloads two sheets of emoji from the npm registry once (``emoji-datasource-google``, pictures
under Apache 2.0, and ``emoji-datasource-twitter``, under CC-BY 4.0), cuts them into pictures of
nine classes on white, each also mirrored, trains a `UNet2DModel` of diffusers (5.6 million
parameters) under EDM's preconditioning and a network of features, and writes both into
``emoji.safetensors``.  Training goes on where a killed one stopped.  `load` gives a member of the
zoo (`tests.benchmarks.zoo`), with 64 or 2,048 features.
"""

import argparse
import io
import itertools
import json
import math
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from s3search.processes import edm
from tests.benchmarks.zoo import Member

SIZE = 32
CLASSES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
_VENDORS = ("google", "twitter")
_REGISTRY = "https://registry.npmjs.org/emoji-datasource-{0}/-/emoji-datasource-{0}-16.0.0.tgz"
_SCALE = 0.6  # about the pictures' standard deviation
_BATCH, _RATE = 64, 4e-4


# -- pictures --------------------------------------------------------------------------------


def pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) in [-1, 1] and classes (N,); what is missing is downloaded."""
    kept = folder / "emoji_pictures.safetensors"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = [_of_vendor(vendor) for vendor in _VENDORS]
        images, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        _save({"images": images, "labels": labels}, kept)
    state = load_file(kept)
    images = state["images"].float() / 127.5 - 1.0
    return torch.cat([images, images.flip(-1)]), state["labels"].repeat(2)


def _of_vendor(vendor: str) -> tuple[Tensor, Tensor]:
    """Bytes (N, 3, 32, 32) and classes (N,)."""
    from PIL import Image  # noqa: PLC0415

    with urllib.request.urlopen(_REGISTRY.format(vendor), timeout=300) as answer:
        packed = io.BytesIO(answer.read())
    with tarfile.open(fileobj=packed) as archive:
        picture = archive.extractfile(f"package/img/{vendor}/sheets-clean/64.png")
        names = archive.extractfile("package/emoji.json")
        assert picture is not None and names is not None
        sheet = np.asarray(Image.open(picture).convert("RGBA"), dtype=np.float64)
        described = json.load(names)
    images, labels = [], []
    for own in described:
        if own[f"has_img_{vendor}"] and own["category"] in CLASSES:
            x, y = (66 * own[axis] + 1 for axis in ("sheet_x", "sheet_y"))
            cut = sheet[y : y + 64, x : x + 64]
            opacity = cut[..., 3:] / 255.0
            on_white = cut[..., :3] * opacity + 255.0 * (1 - opacity)
            images.append(on_white.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3)).transpose(2, 0, 1))
            labels.append(CLASSES.index(own["category"]))
    return torch.tensor(np.stack(images)).round().to(torch.uint8), torch.tensor(labels)


# -- the network -----------------------------------------------------------------------------


class EmojiDenoiser(nn.Module):
    """D(x, sigma) under EDM's preconditioning; classes are drawn as often as pictures are of them,
    by the search.
    """

    def __init__(self, shares: Tensor) -> None:
        super().__init__()
        self.process, self.sample_shape = edm(), (3, SIZE, SIZE)
        self.register_buffer("shares", shares.float())
        self.net = UNet2DModel(
            sample_size=SIZE,
            in_channels=3,
            out_channels=3,
            layers_per_block=1,
            block_out_channels=(24, 48, 96, 192),
            down_block_types=("DownBlock2D",) * 4,
            up_block_types=("UpBlock2D",) * 4,  # attention in the middle alone
            norm_num_groups=8,
            attention_head_dim=32,
            num_class_embeds=len(CLASSES),
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The clean image expected behind ``x`` (B, 3, 32, 32) at noise levels ``t`` (B,)."""
        sigma = t.to(x).reshape(-1, 1, 1, 1)
        norm = sigma**2 + _SCALE**2
        said = self.answer(x, sigma, label)
        return _SCALE**2 / norm * x + sigma * _SCALE / norm.sqrt() * said

    def answer(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        """What the network says, of unit size."""
        # the angle of noise and data says the level; the embedding is made for 0 to 1,000
        angle = torch.atan2(sigma, torch.full_like(sigma, _SCALE)).flatten() * (2000 / math.pi)
        scaled = x * torch.rsqrt(sigma**2 + _SCALE**2)
        found: Tensor = self.net(scaled, angle, class_labels=label).sample
        return found

    def loss(self, images: Tensor, label: Tensor) -> Tensor:
        """The mean squared error of what the network should say at random levels."""
        sigma = _SCALE * torch.exp(-0.4 + 1.3 * torch.randn(len(images), 1, 1, 1).to(images))
        x = images + sigma * torch.randn_like(images)
        norm = sigma**2 + _SCALE**2
        due = (images - _SCALE**2 / norm * x) * norm.sqrt() / (sigma * _SCALE)
        return (self.answer(x, sigma, label) - due).square().mean()

    def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """As many classes as images."""
        shares = self.shares.to(generator.device)
        return {"label": torch.multinomial(shares, n, replacement=True, generator=generator)}


class EmojiFeatures(nn.Module):
    """Images (B, 3, 32, 32) in [-1, 1] to 2,048 features, or 64 made of them; each has mean 0 and
    variance 1 over the pictures.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        if n_features not in (64, 2048):
            raise ValueError(f"{n_features} features; there are 64 and 2048")
        self._n = n_features
        widths = (3, 32, 64, 128, 128)
        self.inward = nn.Sequential(
            *(_halving(i, o) for i, o in itertools.pairwise(widths)),
            nn.Flatten(),
            nn.Linear(512, 2048),
            nn.SiLU(),
        )
        self.few = nn.Sequential(nn.Linear(2048, 64), nn.Tanh())
        self.classes = nn.Linear(64, len(CLASSES))
        self.outward = nn.Sequential(
            nn.Linear(64, 512), nn.SiLU(), nn.Linear(512, 3 * SIZE * SIZE)
        )
        for n in (64, 2048):
            self.register_buffer(f"mean_{n}", torch.zeros(n))
            self.register_buffer(f"scale_{n}", torch.ones(n))

    def forward(self, images: Tensor) -> Tensor:
        many = self.inward(images.float().clamp(-1, 1))
        found = many if self._n == 2048 else self.few(many)
        return (found - self.get_buffer(f"mean_{self._n}")) / self.get_buffer(f"scale_{self._n}")

    def loss(self, images: Tensor, label: Tensor) -> Tensor:
        """Of telling the class of noisy images and painting them without the noise."""
        noise = 0.5 * torch.rand(len(images), 1, 1, 1).to(images) * torch.randn_like(images)
        few = self.few(self.inward((images + noise).clamp(-1, 1)))
        painted = self.outward(few).reshape(images.shape)
        told = functional.cross_entropy(self.classes(few), label)
        return (painted - images).square().mean() + 0.1 * told

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Sets the means and scales by the pictures."""
        many = torch.cat([self.inward(part) for part in images.split(500)])
        for found in (many, self.few(many)):
            n = found.shape[1]
            self.get_buffer(f"mean_{n}").copy_(found.mean(0))
            self.get_buffer(f"scale_{n}").copy_(found.std(0) + 1e-3)


def _halving(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.SiLU())


# -- training --------------------------------------------------------------------------------


def train(folder: Path, minutes: float, device: str) -> None:
    """Trains the features, then the denoiser for so long; writes both."""
    images, labels = (part.to(device) for part in pictures(folder))
    torch.manual_seed(0)
    seen = EmojiFeatures(64).to(device)
    _descend(seen.parameters(), lambda: seen.loss(*_batch(images, labels)), n=4000, rate=1e-3)
    seen.standardise(images)
    shares = torch.bincount(labels, minlength=len(CLASSES)) / len(labels)
    denoiser = EmojiDenoiser(shares).to(device)
    _train_denoiser(denoiser, images, labels, folder / "emoji_training.pt", minutes)
    state = {f"denoiser.{key}": value for key, value in denoiser.state_dict().items()}
    state |= {f"features.{key}": value for key, value in seen.state_dict().items()}
    _save({key: value.cpu() for key, value in state.items()}, _trained(folder))


def _train_denoiser(
    denoiser: EmojiDenoiser, images: Tensor, labels: Tensor, kept: Path, minutes: float
) -> None:
    """The mean of the weights along the way; goes on from ``kept`` if that is there."""
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=_RATE, weight_decay=1e-2)
    mean = {key: value.clone() for key, value in denoiser.state_dict().items()}
    spent, i = 0.0, 0  # seconds and iterations
    if kept.exists():
        was = torch.load(kept, weights_only=True, map_location=images.device)
        denoiser.load_state_dict(was["weights"])
        optimiser.load_state_dict(was["optimiser"])
        mean, spent, i = was["mean"], was["seconds"], was["iterations"]
    began, last, losses = time.monotonic() - spent, time.monotonic(), list[float]()
    while (spent := time.monotonic() - began) < 60 * minutes:
        left = 1 - spent / (60 * minutes)
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (i + 1) / 200, 4 * left)
        loss = denoiser.loss(*_batch(images, labels))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        i += 1
        weight = 1 / min(1 + i / 10, 1000.0)
        for key, value in denoiser.state_dict().items():
            mean[key].lerp_(value, weight)
        losses.append(loss.item())
        if time.monotonic() - last > 60:
            last = time.monotonic()
            state = {"weights": denoiser.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "mean": mean, "seconds": spent, "iterations": i}, f"{kept}.part")
            Path(f"{kept}.part").rename(kept)
            recent = np.mean(losses[-500:])
            print(f"{spent / 60:.0f} min, {i * _BATCH:,} images, loss {recent:.4f}", flush=True)
    denoiser.load_state_dict(mean)


def _descend(parameters: object, loss: Callable[[], Tensor], *, n: int, rate: float) -> None:
    optimiser = torch.optim.AdamW(parameters, lr=rate)  # type: ignore[arg-type]
    for i in range(n):
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * i / n))
        found = loss()
        optimiser.zero_grad(set_to_none=True)
        found.backward()
        optimiser.step()


def _batch(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    chosen = torch.randint(len(images), (_BATCH,), device=images.device)
    return images[chosen], labels[chosen]


def _trained(folder: Path) -> Path:
    return folder / "emoji.safetensors"


def _save(state: dict[str, Tensor], path: Path) -> None:
    part = path.with_suffix(".part")
    save_file({key: value.contiguous() for key, value in state.items()}, part)
    part.rename(path)


def load(folder: Path, n_features: int = 64) -> Member:
    """The model of a folder that `train` wrote, with 64 or 2,048 features."""
    state = load_file(_trained(folder))
    denoiser, seen = EmojiDenoiser(torch.ones(len(CLASSES))), EmojiFeatures(n_features)
    for name, module in (("denoiser.", denoiser), ("features.", seen)):
        own = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
        module.load_state_dict(own)
        module.eval().requires_grad_(False)
    return Member(name="emoji", denoiser=denoiser, features=seen, images=pictures(folder)[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=120, help="of training the denoiser")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    train(asked.folder, asked.minutes, asked.device)
