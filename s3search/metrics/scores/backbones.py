"""The convolutions of VGG-16 and AlexNet, whose activations LPIPS and DISTS compare.

The layers have the places of torchvision's ``features``, so its files of weights fill them; the
classifier in those files is left out, and torchvision itself is not needed.

Source: arXiv:1409.1556, table 1, column D; arXiv:1404.5997 (the AlexNet of one column).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig, nearest
from s3search.metrics.scores.weights import filled, given_or_cached
from s3search.models.checkpoints import read_tensors

_VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: pooling
_URLS = {
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
}
_TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}  # the last ReLU of each stage
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
LEAST_SIDE = {"vgg": 16, "alex": 31}  # pixels; of less, a pooling leaves nothing

Pooling = Callable[[int], nn.Module]  # of so many channels


class Stages(nn.Module):
    """Images (B, 3, H, W) -> the activations at each tap, (B, C_k, H_k, W_k)."""

    def __init__(self, layers: list[nn.Module], taps: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self._taps = frozenset(taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """One tensor for each tap."""
        found = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self._taps:
                found.append(x)
        return found


def load_stages(
    network: str, weights: str | Path | None, *, download: bool, pooling: Pooling | None = None
) -> Stages:
    """The stages of ``vgg`` or ``alex``; raises `InvalidConfig`.

    ``weights`` is a file of torchvision, looked for in torch.hub's cache where it is left out;
    ``pooling`` stands in the place of VGG's maxima.
    """
    if network not in _URLS:
        raise InvalidConfig(
            f"metric.network: {network!r} is no network of this score; {nearest(network, _URLS)}"
        )
    url = _URLS[network]
    digest = url.rpartition("-")[2].removesuffix(".pth")
    path = given_or_cached("metric.weights", weights, url, download=download, digest=digest)
    state, _ = read_tensors(path, field="metric.weights")
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced
        layers = list(_vgg(pooling or _maxima)) if network == "vgg" else _alexnet()
        stages = Stages(layers, _TAPS[network])
    filled(stages, state, field="metric.weights", source=str(path))
    return stages


def checked_side(side: int | None, *, least: int) -> None:
    """Raises `InvalidConfig` for a side to which no image can be resized."""
    if side is not None and side < least:
        raise InvalidConfig(
            f"metric.side: the network needs images of {least} pixels a side or more, found {side}"
        )


def in_colour(name: str, images: Tensor, side: int | None, least: int) -> Tensor:
    """Images (B, 3, H, W), grey ones repeated, with their shorter side resized (bilinear,
    antialiased) to ``side`` if there is one; raises `InvalidConfig` for less than ``least``.
    """
    if images.shape[1] not in (1, 3):
        raise InvalidConfig(
            f"metric.score: {name!r} sees images of 1 or 3 channels, found {images.shape[1]}"
        )
    height, width = images.shape[-2:]
    if side is not None and side != min(height, width):
        to = tuple(round(side * own / min(height, width)) for own in (height, width))
        images = functional.interpolate(images, size=to, mode="bilinear", antialias=True)
    if min(images.shape[-2:]) < least:
        raise InvalidConfig(
            f"metric.score: {name!r} needs images of {least} pixels a side for its network, "
            f"found {tuple(images.shape[-2:])}; set metric.side = 64 to have them enlarged"
        )
    return images.expand(-1, 3, -1, -1)


def _maxima(_channels: int) -> nn.Module:
    return nn.MaxPool2d(2, 2)


def _vgg(pooling: Pooling) -> Iterator[nn.Module]:
    before = 3
    for channels in _VGG:
        if channels:
            yield nn.Conv2d(before, channels, 3, padding=1)
            yield nn.ReLU()
            before = channels
        else:
            yield pooling(before)


def _alexnet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]
