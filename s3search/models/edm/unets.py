"""EDM's two networks F(x; c_noise, class): `SongUNet` (DDPM++, NCSN++) and `DhariwalUNet` (ADM).

arXiv:2206.00364v2, Table 7, names their settings; the names of the weights are those of NVlabs'
checkpoints.  Dropout and augmentation play no part in sampling: settings for them are accepted and
the augmentation's weights are kept, unused.
"""

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from s3search.models.checkpoints import Depth, NetworkConfig
from s3search.models.edm.layers import (
    Block,
    BlockStyle,
    FourierEmbedding,
    PositionalEmbedding,
    ResampledConv,
    Resampling,
    group_norm,
)

Positive = Annotated[int, Field(gt=0)]


class _EdmConfig(NetworkConfig):
    """The arguments of NVlabs' EDMPrecond, and of the network in it, under their names."""

    img_resolution: Positive
    img_channels: Positive = 3
    label_dim: int = Field(default=0, ge=0)
    sigma_min: float = Field(default=0.0, ge=0)
    sigma_max: float = Field(default=math.inf, gt=0)
    sigma_data: float = Field(default=0.5, gt=0)
    augment_dim: int = Field(default=0, ge=0)
    channel_mult_emb: Positive = 4
    use_fp16: bool = False  # as the three below: accepted, without effect here
    dropout: float = 0.0
    label_dropout: float = 0.0

    _may_be_infinite: ClassVar = frozenset({"sigma_max"})


class SongConfig(_EdmConfig):
    """Settings of a `SongUNet`."""

    model_type: Literal["SongUNet"] = "SongUNet"
    model_channels: Positive = 128
    channel_mult: tuple[Positive, ...] = (1, 2, 2, 2)
    num_blocks: Depth = 4
    attn_resolutions: tuple[int, ...] = (16,)
    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: Positive = 1
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: tuple[float, ...] = (1.0, 1.0)


class DhariwalConfig(_EdmConfig):
    """Settings of a `DhariwalUNet`."""

    model_type: Literal["DhariwalUNet"] = "DhariwalUNet"
    model_channels: Positive = 192
    channel_mult: tuple[Positive, ...] = (1, 2, 3, 4)
    num_blocks: Depth = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)


EdmConfig = SongConfig | DhariwalConfig


def network_of(config: EdmConfig) -> "SongUNet | DhariwalUNet":
    """The network that the settings describe, its weights without values worth having."""
    return SongUNet(config) if isinstance(config, SongConfig) else DhariwalUNet(config)


class _Levels:
    """The blocks down the resolutions and up again, which both networks have in common."""

    def __init__(self, config: EdmConfig, style: BlockStyle, *, all_up_attend: bool) -> None:
        self.config, self.style, self.all_up_attend = config, style, all_up_attend
        self.widths = [config.model_channels * mult for mult in config.channel_mult]
        self.names = [f"{config.img_resolution >> i}" for i in range(len(self.widths))]
        self.skips: list[int] = []

    def attends(self, level: int) -> bool:
        return self.config.img_resolution >> level in self.config.attn_resolutions

    def down(self, first: int) -> Iterable[tuple[int, str, nn.Module]]:
        """(level, name, module) of the encoder, whose first convolution makes ``first``
        channels.
        """
        self.skips.append(first)
        yield 0, "conv", nn.Conv2d(self.config.img_channels, first, 3, padding=1)
        width = first
        for level, out in enumerate(self.widths):
            if level:
                self.skips.append(width)
                yield level, "down", Block(width, width, self.style, resampling=Resampling.DOWN)
            for i in range(self.config.num_blocks):
                self.skips.append(out)
                attention = self.attends(level)
                yield level, f"block{i}", Block(width, out, self.style, attention=attention)
                width = out

    def up(self) -> Iterable[tuple[int, str, nn.Module]]:
        """(level, name, module) of the decoder; call it after `down`, whose skips it uses up."""
        width, last = self.widths[-1], self.config.num_blocks
        for level in reversed(range(len(self.widths))):
            if level == len(self.widths) - 1:
                yield level, "in0", Block(width, width, self.style, attention=True)
                yield level, "in1", Block(width, width, self.style)
            else:
                yield level, "up", Block(width, width, self.style, resampling=Resampling.UP)
            out = self.widths[level]
            for i in range(last + 1):
                attention = self.attends(level) and (self.all_up_attend or i == last)
                into = width + self.skips.pop()
                yield level, f"block{i}", Block(into, out, self.style, attention=attention)
                width = out

    def key(self, level: int, name: str) -> str:
        return f"{self.names[level]}x{self.names[level]}_{name}"


class SongUNet(nn.Module):
    """DDPM++ and NCSN++ of arXiv:2011.13456."""

    def __init__(self, config: SongConfig) -> None:
        super().__init__()
        noise_channels = config.model_channels * config.channel_mult_noise
        emb_channels = config.model_channels * config.channel_mult_emb
        style = BlockStyle(
            emb_channels=emb_channels,
            eps=1e-6,
            skip_scale=math.sqrt(0.5),
            scales=False,
            channels_per_head=None,
            projects_skip=True,
            resample_filter=config.resample_filter,
        )
        self.map_noise = (
            PositionalEmbedding(noise_channels, endpoint=True)
            if config.embedding_type == "positional"
            else FourierEmbedding(noise_channels)
        )
        self.map_label = nn.Linear(config.label_dim, noise_channels) if config.label_dim else None
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, noise_channels, bias=False)
        self.map_layer0 = nn.Linear(noise_channels, emb_channels)
        self.map_layer1 = nn.Linear(emb_channels, emb_channels)
        levels = _Levels(config, style, all_up_attend=False)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self._add_encoder(config, levels)
        self._add_decoder(config, levels)

    def _add_encoder(self, config: SongConfig, levels: _Levels) -> None:
        side = config.img_channels  # channels of the side path that carries the picture down
        width = config.model_channels
        taps = config.resample_filter
        for level, name, module in levels.down(width):
            self.enc[levels.key(level, name)] = module
            if name == "down" and config.encoder_type == "skip":
                shrink = ResampledConv((side, side), 0, Resampling.DOWN, taps)
                self.enc[levels.key(level, "aux_down")] = shrink
                self.enc[levels.key(level, "aux_skip")] = nn.Conv2d(side, width, 1)
            elif name == "down" and config.encoder_type == "residual":
                joined = ResampledConv((side, width), 3, Resampling.DOWN, taps, conv_first=True)
                self.enc[levels.key(level, "aux_residual")] = joined
                side = width
            if isinstance(module, Block):
                width = module.out_channels

    def _add_decoder(self, config: SongConfig, levels: _Levels) -> None:
        channels, last = config.img_channels, f"block{config.num_blocks}"
        for level, name, module in levels.up():
            self.dec[levels.key(level, name)] = module
            if name == last and (config.decoder_type == "skip" or level == 0):
                if config.decoder_type == "skip" and level < len(levels.widths) - 1:
                    self.dec[levels.key(level, "aux_up")] = ResampledConv(
                        (channels, channels), 0, Resampling.UP, config.resample_filter
                    )
                width = levels.widths[level]
                self.dec[levels.key(level, "aux_norm")] = group_norm(width, eps=1e-6)
                aux_conv = nn.Conv2d(width, channels, 3, padding=1)
                self.dec[levels.key(level, "aux_conv")] = aux_conv

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        """F (B, C, H, W) of a scaled state, its noise label (B,) and one-hot classes (B, L)."""
        cosines, sines = self.map_noise(label).chunk(2, dim=1)
        emb = torch.cat([sines, cosines], dim=1).to(x.dtype)
        if self.map_label is not None and classes is not None:
            emb = emb + self.map_label(classes.to(x.dtype) * math.sqrt(classes.shape[1]))
        emb = functional.silu(self.map_layer0(emb))
        emb = functional.silu(self.map_layer1(emb))
        x, skips = self._encoded(x, emb)
        return self._decoded(x, emb, skips)

    def _encoded(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        side, skips = x, list[Tensor]()
        for key, module in self.enc.items():
            match key.partition("_")[2]:
                case "conv":
                    x = module(x)
                    skips.append(x)
                case "aux_down":
                    side = module(side)
                case "aux_skip":
                    x = skips[-1] = x + module(side)
                case "aux_residual":
                    x = skips[-1] = side = (x + module(side)) * math.sqrt(0.5)
                case _:
                    x = module(x, emb)
                    skips.append(x)
        return x, skips

    def _decoded(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        picture: Tensor | None = None
        normed = x
        for key, module in self.dec.items():
            match key.partition("_")[2]:
                case "aux_up":
                    picture = module(picture)
                case "aux_norm":
                    normed = functional.silu(module(x))
                case "aux_conv":
                    own = module(normed)
                    picture = own if picture is None else picture + own
                case _:
                    x = _joined(module, x, emb, skips)
        assert picture is not None  # the finest level has an aux_conv
        return picture


class DhariwalUNet(nn.Module):
    """ADM of arXiv:2105.05233."""

    def __init__(self, config: DhariwalConfig) -> None:
        super().__init__()
        emb_channels = config.model_channels * config.channel_mult_emb
        style = BlockStyle(
            emb_channels=emb_channels,
            eps=1e-5,
            skip_scale=1.0,
            scales=True,
            channels_per_head=64,
            projects_skip=False,
        )
        self.map_noise = PositionalEmbedding(config.model_channels, endpoint=False)
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, config.model_channels, bias=False)
        self.map_layer0 = nn.Linear(config.model_channels, emb_channels)
        self.map_layer1 = nn.Linear(emb_channels, emb_channels)
        self.map_label = None
        if config.label_dim:
            self.map_label = nn.Linear(config.label_dim, emb_channels, bias=False)
        levels = _Levels(config, style, all_up_attend=True)
        first = levels.widths[0]
        self.enc = nn.ModuleDict({levels.key(i, name): m for i, name, m in levels.down(first)})
        self.dec = nn.ModuleDict({levels.key(i, name): m for i, name, m in levels.up()})
        self.out_norm = group_norm(first)
        self.out_conv = nn.Conv2d(first, config.img_channels, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        """F (B, C, H, W) of a scaled state, its noise label (B,) and one-hot classes (B, L)."""
        emb = functional.silu(self.map_layer0(self.map_noise(label).to(x.dtype)))
        emb = self.map_layer1(emb)
        if self.map_label is not None and classes is not None:
            emb = emb + self.map_label(classes.to(x.dtype))
        emb = functional.silu(emb)
        skips = list[Tensor]()
        for module in self.enc.values():
            x = module(x, emb) if isinstance(module, Block) else module(x)
            skips.append(x)
        for module in self.dec.values():
            x = _joined(module, x, emb, skips)
        out: Tensor = self.out_conv(functional.silu(self.out_norm(x)))
        return out


def _joined(module: nn.Module, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
    """A decoder block's picture; those that take a skip are told by their channels."""
    if x.shape[1] != module.in_channels:
        x = torch.cat([x, skips.pop()], dim=1)
    out: Tensor = module(x, emb)
    return out
