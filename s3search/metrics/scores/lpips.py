"""LPIPS: how far apart two images are in the activations of a network that has seen many.

    LPIPS = sum over stages k of the mean over pixels of
            sum over c of  w_kc (f_kc / |f_k| - g_kc / |g_k|)^2

    f, g    activations of image and target, (C_k, H_k, W_k); |.| over channels
    w       weights >= 0 that fit people's judgements, "heads", version 0.1
    before  images in [-1, 1] less a mean, over a deviation (the network's, of ImageNet)

Source: arXiv:1801.03924, eq. 1; the authors' package `lpips` 0.1.4, whose numbers these are.

That package divides by ``|f| + 1e-10``, whose gradient is not a number where all channels are
zero, as after ReLU in flat areas of an image; here such a place has the gradient zero.
torchmetrics puts 1e-8 under the root instead: finite, and other numbers where activations are
small.  Both expect images in [-1, 1]; with images in [0, 1] and no ``normalize=True`` they answer
all the same.  ``alex`` is what the authors report, ``vgg`` what they advise as a loss.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.rgb import weights_digest
from s3search.metrics.scores.backbones import (
    CHANNELS,
    LEAST_SIDE,
    Stages,
    checked_side,
    in_colour,
    load_stages,
)
from s3search.metrics.scores.target import TargetScore
from s3search.metrics.scores.weights import packaged
from s3search.models.checkpoints import existing, read_tensors

_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPS = 1e-10


class Lpips(nn.Module):
    """Images and target (B, 1 or 3, H, W) in [-1, 1] -> distances (B,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, stages: Stages, heads: list[Tensor], side: int | None, least: int) -> None:
        super().__init__()
        self.stages = stages
        self.heads = nn.ParameterList(nn.Parameter(w, requires_grad=False) for w in heads)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self._side = side
        self._least = least

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Distances (B,)."""
        n = len(images)
        both = in_colour("lpips", torch.cat([images, target]), self._side, self._least)
        found = self.stages((both.to(self.mean) - self.mean) / self.std)
        distances = []
        for weights, stage in zip(self.heads, found, strict=True):
            f, g = torch.split(_directions(stage), n)
            distances.append(functional.conv2d((f - g).square(), weights).mean(dim=(1, 2, 3)))
        return torch.stack(distances).sum(dim=0)


def _directions(stage: Tensor) -> Tensor:
    """Activations over their length across channels; zero, without a gradient, where that is."""
    squares = stage.square().sum(dim=1, keepdim=True)
    lengths = torch.where(squares > 0, squares, 1.0).sqrt()
    return torch.where(squares > 0, stage / (lengths + _EPS), 0.0)


def load(
    network: str = "alex",
    *,
    weights: str | Path | None = None,
    heads: str | Path | None = None,
    side: int | None = None,
    download: bool = False,
) -> TargetScore:
    """The score ``lpips``.

    ``weights`` is torchvision's file of the ``network``, ``alex`` or ``vgg``; left out, it is
    looked for in torch.hub's cache.  ``heads`` is a file of the package lpips, as torchmetrics
    has it too; ``side`` resizes the shorter side of both images first.
    """
    stages = load_stages(network, weights, download=download)
    checked_side(side, least=LEAST_SIDE[network])
    loaded = Lpips(stages, _heads(network, heads), side, LEAST_SIDE[network])
    size = "" if side is None else f"-{side}"
    name = f"lpips-{network}{size}-{weights_digest(loaded)}"
    return TargetScore(name, "minimize", loaded)


def _heads(network: str, given: str | Path | None) -> list[Tensor]:
    places = (
        ("torchmetrics", f"functional/image/lpips_models/{network}.pth"),
        ("lpips", f"weights/v0.1/{network}.pth"),
    )
    field = "metric.heads"
    path = packaged(field, places) if given is None else existing(given, field=field)
    state, _ = read_tensors(path, field=field)
    names = [f"lin{k}.model.1.weight" for k in range(len(CHANNELS[network]))]
    shapes = [(1, channels, 1, 1) for channels in CHANNELS[network]]
    found = [tuple(state[name].shape) if name in state else None for name in names]
    if found != shapes:
        raise InvalidConfig(
            f"metric.heads: {path} holds other heads than those of {network!r}: {names[0]} and "
            f"so on should be of shapes {shapes}, found {found}"
        )
    return [state[name].float() for name in names]
