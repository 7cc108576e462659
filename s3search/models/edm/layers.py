r"""Parts of EDM's U-Nets, with the weights' names of NVlabs' checkpoints.

One residual block serves DDPM++, NCSN++ (arXiv:2011.13456, app. H) and ADM (arXiv:2105.05233,
sec. 3), as in arXiv:2206.00364, app. F; `BlockStyle` says which.

Shapes: B images, C channels, H x W pixels, E numbers in the embedding of noise level and class.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUPS = 32
_GROUP_CHANNELS = 4  # a group of the normalisation has at least as many


class Resampling(StrEnum):
    """What a block does to the resolution."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStyle:
    """What all blocks of one network share."""

    emb_channels: int
    eps: float
    skip_scale: float  # after each addition
    scales: bool  # the embedding scales and shifts after the second norm; else shifts before it
    channels_per_head: int | None  # None: one head
    projects_skip: bool  # a 1x1 convolution on the skip of every block that resamples
    resample_filter: tuple[float, ...] = (1.0, 1.0)


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """A normalisation over groups of at least four channels."""
    return nn.GroupNorm(max(1, min(_GROUPS, channels // _GROUP_CHANNELS)), channels, eps)


class ResampledConv(nn.Module):
    """Twice or half the resolution by a separable filter, and a convolution if ``kernel`` > 0."""

    resample_filter: Tensor  # (1, 1, F, F)

    def __init__(
        self,
        channels: tuple[int, int],  # in, out
        kernel: int,
        resampling: Resampling,
        taps: tuple[float, ...],
        *,
        conv_first: bool = False,
    ) -> None:
        super().__init__()
        self._resampling, self._conv_first, self._pad = resampling, conv_first, kernel // 2
        self.weight = self.bias = None
        if kernel:
            into, out = channels
            self.weight = nn.Parameter(torch.zeros(out, into, kernel, kernel))
            self.bias = nn.Parameter(torch.zeros(out))
        line = torch.tensor(taps, dtype=torch.float32)
        square = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("resample_filter", square[None, None])

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        """The resampled, convolved picture."""
        edge = (self.resample_filter.shape[-1] - 1) // 2
        if self._conv_first and self.weight is not None:
            x = functional.conv2d(x, self.weight, self.bias, padding=self._pad + edge)
            return self._resampled(x, 0)
        x = self._resampled(x, edge)
        if self.weight is None:
            return x
        return functional.conv2d(x, self.weight, self.bias, padding=self._pad)

    def _resampled(self, x: Tensor, padding: int) -> Tensor:
        n = x.shape[1]
        taps = self.resample_filter.expand(n, -1, -1, -1)
        if self._resampling is Resampling.UP:
            return functional.conv_transpose2d(x, 4 * taps, groups=n, stride=2, padding=padding)
        return functional.conv2d(x, taps, groups=n, stride=2, padding=padding)


def conv(
    into: int, out: int, kernel: int, style: BlockStyle, resampling: Resampling | None = None
) -> nn.Module:
    """A convolution that keeps, doubles or halves the resolution."""
    if resampling is None:
        return nn.Conv2d(into, out, kernel, padding=kernel // 2)
    return ResampledConv((into, out), kernel, resampling, style.resample_filter)


class Block(nn.Module):
    """Two convolutions around the embedding, added to the input; self-attention if asked."""

    def __init__(
        self,
        into: int,
        out: int,
        style: BlockStyle,
        *,
        resampling: Resampling | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = into, out
        self._style = style
        self.norm0 = group_norm(into, style.eps)
        self.conv0 = conv(into, out, 3, style, resampling)
        self.affine = nn.Linear(style.emb_channels, out * (2 if style.scales else 1))
        self.norm1 = group_norm(out, style.eps)
        self.conv1 = nn.Conv2d(out, out, 3, padding=1)
        self.skip: nn.Module | None = None
        if into != out or resampling is not None:
            kernel = 1 if into != out or style.projects_skip else 0
            self.skip = conv(into, out, kernel, style, resampling)
        self._n_heads = 0  # none, too, where there are fewer channels than one head has
        if attention:
            self._n_heads = out // style.channels_per_head if style.channels_per_head else 1
        if self._n_heads:
            self.norm2 = group_norm(out, style.eps)
            self.qkv = nn.Conv2d(out, 3 * out, 1)
            self.proj = nn.Conv2d(out, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # (B, C, H, W), (B, E)
        """The block's picture."""
        h: Tensor = self.conv0(functional.silu(self.norm0(x)))
        params = self.affine(emb)[:, :, None, None]
        if self._style.scales:
            scale, shift = params.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + params)
        h = self.conv1(functional.silu(h))
        h = (h + (x if self.skip is None else self.skip(x))) * self._style.skip_scale
        if self._n_heads:
            h = (h + self._attended(h)) * self._style.skip_scale
        return h

    def _attended(self, x: Tensor) -> Tensor:
        # channels of qkv run head, channel, (q, k, v)
        shape = (len(x), self._n_heads, x.shape[1] // self._n_heads, 3, -1)
        q, k, v = self.qkv(self.norm2(x)).reshape(shape).permute(3, 0, 1, 4, 2)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(-1, -2).reshape(x.shape))
        return out


class PositionalEmbedding(nn.Module):
    """Cosines, then sines of the noise label at ``n`` / 2 frequencies from 1 down to 1e-4."""

    def __init__(self, n: int, *, endpoint: bool) -> None:
        super().__init__()
        self._n, self._endpoint = n, endpoint  # endpoint: 1e-4 itself is the last frequency

    def forward(self, label: Tensor) -> Tensor:  # (B,) -> (B, n)
        """The cosines and sines of each label."""
        half = self._n // 2
        places = torch.arange(half, dtype=torch.float32, device=label.device)
        angle = torch.outer(label, 1e-4 ** (places / (half - self._endpoint)).to(label.dtype))
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Cosines, then sines at frequencies that were drawn once and are stored."""

    freqs: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(n // 2))

    def forward(self, label: Tensor) -> Tensor:  # (B,) -> (B, n)
        """The cosines and sines of each label."""
        angle = torch.outer(label, 2 * math.pi * self.freqs.to(label.dtype))
        return torch.cat([angle.cos(), angle.sin()], dim=1)
