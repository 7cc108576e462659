"""DISTS: likeness of means and of covariances of activations, which forgives moved texture.

    DISTS = 1 - sum over stages k, channels c of  a_kc l_kc + b_kc s_kc
    l = (2 m_f m_g + c1) / (m_f^2 + m_g^2 + c1),   s = (2 s_fg + c2) / (s_f^2 + s_g^2 + c2)

which, because a and b sum to 1, is the sum of  a_kc (1 - l_kc) + b_kc (1 - s_kc)  with

    1 - l = (m_f - m_g)^2 / (m_f^2 + m_g^2 + c1)
    1 - s = mean of ((f - m_f) - (g - m_g))^2 / (s_f^2 + s_g^2 + c2)

    m, s    mean, variances and covariance over the pixels of one channel's activations
    k       0 is the picture itself in [0, 1], 1 to 5 the stages of VGG-16, whose pooling is
            replaced by L2 pooling: sqrt(hann(3 x 3) * f^2), stride 2
    a, b    weights >= 0 fitted to people's judgements, whose sum is 1; c1 = c2 = 1e-6

Source: arXiv:2004.07728; the authors' package `DISTS_pytorch`.

The second form is computed: nothing cancels in it, and equal images are at 0 exactly.  The
authors, piq and torchmetrics subtract from 1, and for the covariance the product of means from a
mean product, which leaves rounding errors in float32; piq also leaves out that a and b sum
to 1, which they do but for the last digits.  The paper resizes pictures to 256 pixels on the
shorter side.  piq does so where they are greater; the authors' package and torchmetrics do not,
nor does this without ``side``.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.rgb import weights_digest
from s3search.metrics.scores.backbones import (
    CHANNELS,
    Stages,
    checked_side,
    in_colour,
    load_stages,
)
from s3search.metrics.scores.target import TargetScore
from s3search.metrics.scores.weights import packaged
from s3search.models.checkpoints import existing, read_tensors

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_C1 = _C2 = 1e-6
_CHANNELS = (3, *CHANNELS["vgg"])


class L2Pooling(nn.Module):
    """Roots of means of squares, weighted by Hann's window, at every second pixel."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])  # Hann's window of three
        kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Half the pixels a side, rounded up."""
        means = functional.conv2d(
            x.square(), self.kernel, stride=2, padding=1, groups=len(self.kernel)
        )
        return (means + 1e-12).sqrt()


class Dists(nn.Module):
    """Images and target (B, 1 or 3, H, W) in [-1, 1] -> distances (B,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, stages: Stages, a: Tensor, b: Tensor, side: int | None) -> None:
        super().__init__()
        self.stages = stages
        self.a = nn.Parameter(a.flatten(), requires_grad=False)
        self.b = nn.Parameter(b.flatten(), requires_grad=False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self._side = side

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Distances (B,)."""
        n = len(images)
        both = in_colour("dists", torch.cat([images, target]), self._side, least=1)
        seen = (both.to(self.mean) + 1) / 2
        found = [seen, *self.stages((seen - self.mean) / self.std)]
        in_means, in_structure = [], []
        for stage in found:
            f, g = torch.split(stage.flatten(2), n)  # (B, C_k, pixels)
            m_f, m_g = f.mean(dim=2), g.mean(dim=2)
            f, g = f - m_f.unsqueeze(2), g - m_g.unsqueeze(2)
            in_means.append((m_f - m_g).square() / (m_f.square() + m_g.square() + _C1))
            spread = f.square().mean(dim=2) + g.square().mean(dim=2)
            in_structure.append((f - g).square().mean(dim=2) / (spread + _C2))
        whole = torch.cat(in_means, dim=1) @ self.a + torch.cat(in_structure, dim=1) @ self.b
        return whole / (self.a.sum() + self.b.sum())


def load(
    *,
    weights: str | Path | None = None,
    heads: str | Path | None = None,
    side: int | None = None,
    download: bool = False,
) -> TargetScore:
    """The score ``dists``.

    ``weights`` is torchvision's file of VGG-16; left out, it is looked for in torch.hub's cache.
    ``heads`` is the authors' file ``weights.pt`` with ``alpha`` and ``beta``, as torchmetrics has
    it too; ``side`` resizes the shorter side of both images first.
    """
    checked_side(side, least=1)
    a, b = _heads(heads)
    stages = load_stages("vgg", weights, download=download, pooling=L2Pooling)
    loaded = Dists(stages, a, b, side)
    size = "" if side is None else f"-{side}"
    return TargetScore(f"dists{size}-{weights_digest(loaded)}", "minimize", loaded)


def _heads(given: str | Path | None) -> tuple[Tensor, Tensor]:
    places = (
        ("torchmetrics", "functional/image/dists_models/weights.pt"),
        ("DISTS_pytorch", "weights.pt"),
    )
    field = "metric.heads"
    path = packaged(field, places) if given is None else existing(given, field=field)
    state, _ = read_tensors(path, field=field)
    n = sum(_CHANNELS)
    sizes = {name: state[name].numel() if name in state else 0 for name in ("alpha", "beta")}
    if set(sizes.values()) != {n}:
        raise InvalidConfig(
            f"metric.heads: {path} should hold alpha and beta of {n} numbers each, found {sizes}; "
            "give the file weights.pt of the package DISTS_pytorch"
        )
    return state["alpha"].float(), state["beta"].float()
