"""ADM's U-Net and classifier (arXiv:2105.05233, sec. 3 and 4.1), with guided-diffusion's names.

Normalisations compute in float32 whatever the weights' dtype.  Shapes: B images, C channels, H x W
pixels, E numbers in the embedding of time and class.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig

_GROUPS = 32
_HEAD_CHANNELS = 64  # of the classifier


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetShape:
    """How a network is built."""

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]  # channels at each resolution, finest first
    model_channels: int
    n_blocks: int
    attention_strides: tuple[int, ...]  # of the resolutions with attention: 1 is the finest
    n_heads: int
    n_up_heads: int
    head_channels: int | None  # replaces both numbers of heads
    scales: bool
    resamples_in_blocks: bool
    heads_inside: bool  # channels of qkv run (q, k, v), head; else head, (q, k, v)
    n_classes: int | None

    @property
    def emb_channels(self) -> int:
        """The width of the embedding of time and class: E in the shapes below."""
        return 4 * self.model_channels

    def heads(self, width: int, *, up: bool = False) -> int:
        """How many heads an attention over ``width`` channels has; raises `InvalidConfig`."""
        usual = self.n_up_heads if up else self.n_heads
        n = usual if self.head_channels is None else width // self.head_channels
        if n < 1 or width % n or n * (self.head_channels or width // n) != width:
            size = f"heads of {self.head_channels}" if self.head_channels else f"{usual} heads"
            raise InvalidConfig(f"an attention over {width} channels does not divide into {size}")
        return n


class _GroupNorm(nn.GroupNorm):
    def __init__(self, channels: int) -> None:
        super().__init__(_GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        normed = functional.group_norm(x.to(wide), self.num_groups, weight, bias, self.eps)
        return normed.to(x.dtype)


class _Upsample(nn.Module):
    """Twice the resolution, nearest pixel; a convolution after it where it has ``width``."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1) if width else None

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class _Downsample(nn.Module):
    """Half the resolution by means of four, or by a convolution where it has ``width``."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1) if width else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 2) if self.op is None else self.op(x)


class _ResBlock(nn.Module):
    def __init__(
        self, into: int, out: int, shape: UNetShape, resample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self._scales, self._resample = shape.scales, [resample]  # a list hides it from the names
        self.in_layers = nn.Sequential(
            _GroupNorm(into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1)
        )
        n_params = 2 * out if shape.scales else out
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(shape.emb_channels, n_params))
        self.out_layers = nn.Sequential(
            _GroupNorm(out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if into == out else nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, conv = self.in_layers
        h = activation(norm(x))
        (resample,) = self._resample
        if resample is not None:
            h, x = resample(h), resample(x)
        h = conv(h)
        params = self.emb_layers(emb)[:, :, None, None]
        if self._scales:
            scale, shift = params.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + params)
        out: Tensor = self.skip_connection(x) + h
        return out


def _attention(qkv: Tensor, n_heads: int, *, heads_inside: bool) -> Tensor:
    """(B, 3 C, L) -> (B, C, L)."""
    b, triple, n = qkv.shape
    size = triple // (3 * n_heads)
    if heads_inside:
        q, k, v = qkv.reshape(b, 3, n_heads, size, n).permute(1, 0, 2, 4, 3)
    else:
        q, k, v = qkv.reshape(b, n_heads, 3, size, n).permute(2, 0, 1, 4, 3)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    return mixed.transpose(-1, -2).reshape(b, triple // 3, n)


class _AttentionBlock(nn.Module):
    def __init__(self, width: int, n_heads: int, *, heads_inside: bool) -> None:
        super().__init__()
        self._n_heads, self._heads_inside = n_heads, heads_inside
        self.norm = _GroupNorm(width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        mixed = _attention(
            self.qkv(self.norm(flat)), self._n_heads, heads_inside=self._heads_inside
        )
        out: Tensor = flat + self.proj_out(mixed)
        return out.view_as(x)


class _AttentionPool(nn.Module):
    """One vector of a picture: what its mean pixel attends to."""

    def __init__(self, side: int, width: int, out: int) -> None:
        super().__init__()
        self._n_heads = width // _HEAD_CHANNELS
        self.positional_embedding = nn.Parameter(torch.zeros(width, side * side + 1))
        self.qkv_proj = nn.Conv1d(width, 3 * width, 1)
        self.c_proj = nn.Conv1d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, out)
        flat = x.flatten(2)
        flat = torch.cat([flat.mean(-1, keepdim=True), flat], dim=-1) + self.positional_embedding
        mixed = _attention(self.qkv_proj(flat), self._n_heads, heads_inside=True)
        out: Tensor = self.c_proj(mixed)[:, :, 0]
        return out


class _Stage(nn.Sequential):
    """Modules in a row, of which the residual blocks see the embedding too."""

    def forward(self, x: Tensor, *embs: Tensor) -> Tensor:
        for module in self:
            x = module(x, *embs) if isinstance(module, _ResBlock) else module(x)
        return x


class _Encoder(nn.Module):
    """What both networks share: time embedding, the way down and the middle."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape = shape
        e = shape.emb_channels
        first = nn.Linear(shape.model_channels, e)
        self.time_embed = nn.Sequential(first, nn.SiLU(), nn.Linear(e, e))
        stages = list(self._down())
        self.input_blocks = nn.ModuleList(stage for _, stage in stages)
        self.skip_widths = [width for width, _ in stages]
        width = shape.widths[-1]
        self.middle_block = _Stage(
            _ResBlock(width, width, shape), self.attention(width), _ResBlock(width, width, shape)
        )

    def attention(self, width: int, *, up: bool = False) -> _AttentionBlock:
        n_heads = self.shape.heads(width, up=up)
        return _AttentionBlock(width, n_heads, heads_inside=self.shape.heads_inside)

    def _down(self) -> Iterator[tuple[int, _Stage]]:
        shape, width = self.shape, self.shape.widths[0]
        yield width, _Stage(nn.Conv2d(shape.in_channels, width, 3, padding=1))
        for level, out in enumerate(shape.widths):
            for _ in range(shape.n_blocks):
                layers: list[nn.Module] = [_ResBlock(width, out, shape)]
                width = out
                if 2**level in shape.attention_strides:
                    layers.append(self.attention(width))
                yield width, _Stage(*layers)
            if level < len(shape.widths) - 1:
                inside = shape.resamples_in_blocks
                down = _ResBlock(width, width, shape, _Downsample()) if inside else None
                yield width, _Stage(down or _Downsample(width))

    def embedded(self, t: Tensor) -> Tensor:  # (B,) -> (B, E)
        """The embedding of time: cosines, then sines at frequencies from 1 down to 1e-4."""
        half = self.shape.model_channels // 2
        places = torch.arange(half, dtype=torch.float32, device=t.device)
        angle = torch.outer(t.float(), torch.exp(-math.log(1e4) * places / half))
        waves = torch.cat([angle.cos(), angle.sin()], dim=1)
        out: Tensor = self.time_embed(waves.to(next(self.time_embed.parameters()).dtype))
        return out

    def encoded(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What leaves the middle, and every stage's picture on the way."""
        h, skips = x.to(emb.dtype), list[Tensor]()
        for stage in self.input_blocks:
            h = stage(h, emb)
            skips.append(h)
        return self.middle_block(h, emb), skips


class UNet(_Encoder):
    """The noise network: (B, C, H, W), times (B,) and classes (B,) -> (B, C or 2 C, H, W)."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__(shape)
        if shape.n_classes is not None:
            self.label_emb = nn.Embedding(shape.n_classes, shape.emb_channels)
        self.output_blocks = nn.ModuleList(self._up())
        first = shape.widths[0]
        self.out = nn.Sequential(
            _GroupNorm(first), nn.SiLU(), nn.Conv2d(first, shape.out_channels, 3, padding=1)
        )

    def _up(self) -> Iterator[_Stage]:
        shape, widths = self.shape, list(self.skip_widths)
        width = shape.widths[-1]
        for level in reversed(range(len(shape.widths))):
            out = shape.widths[level]
            for i in range(shape.n_blocks + 1):
                layers: list[nn.Module] = [_ResBlock(width + widths.pop(), out, shape)]
                width = out
                if 2**level in shape.attention_strides:
                    layers.append(self.attention(width, up=True))
                if level and i == shape.n_blocks:
                    inside = shape.resamples_in_blocks
                    up = _ResBlock(width, width, shape, _Upsample()) if inside else None
                    layers.append(up or _Upsample(width))
                yield _Stage(*layers)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's answer in the dtype of its weights."""
        emb = self.embedded(t)
        if labels is not None:
            emb = emb + self.label_emb(labels)
        h, skips = self.encoded(x, emb)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb)
        out: Tensor = self.out(h)
        return out


class Classifier(_Encoder):
    """log p(class | noisy image) up to a constant: (B, C, H, W) and times (B,) -> (B, classes)."""

    def __init__(self, shape: UNetShape, image_size: int) -> None:
        super().__init__(shape)
        width, side = shape.widths[-1], image_size >> (len(shape.widths) - 1)
        pool = _AttentionPool(side, width, shape.out_channels)
        self.out = nn.Sequential(_GroupNorm(width), nn.SiLU(), pool)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The logits in the dtype of the weights."""
        h, _ = self.encoded(x, self.embedded(t))
        out: Tensor = self.out(h)
        return out
