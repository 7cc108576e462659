"""What is measured: EDM's DDPM++ with random weights on 32 x 32 colour, features, real images.

Study files name loaders, and so does this: worker processes find them by their import paths.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.models.edm.denoiser import EdmDenoiser
from s3search.models.edm.unets import SongConfig
from s3search.processes import Edm

SHAPE = (3, 32, 32)
_STRIDES = (4, 2)  # of the extractor's convolutions, which leave 4 x 4 of 128 channels
_WIDTHS = (32, 128)


def denoiser(
    channels: int, blocks: int, compiled: str | None = None, most: int | None = None
) -> Any:
    """D of so many channels, the network ``compiled`` in one of torch's modes if one is given;
    more than ``most`` images at once run out of memory, whatever there is.
    """
    config = SongConfig(
        img_resolution=SHAPE[1],
        model_channels=channels,
        channel_mult=(1, 2, 2),
        num_blocks=blocks,
        attn_resolutions=(16,),
    )
    made = _with_random_weights(EdmDenoiser(config)).eval()
    if compiled is not None:
        made.model = torch.compile(made.model, mode=compiled)
    return made if most is None else Narrow(made, most)


class Narrow(nn.Module):
    """A denoiser in whose memory there is room for few images."""

    def __init__(self, inner: EdmDenoiser, most: int) -> None:
        super().__init__()
        self.process: Edm = inner.process
        self.sample_shape = inner.sample_shape
        self.inner, self.most = inner, most

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """D (B, 3, 32, 32); raises what torch raises where a GPU is full."""
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError(f"there is room for {self.most} images")
        found: Tensor = self.inner(x, t)
        return found


class Features(nn.Module):
    """Two random convolutions and a random matrix: as many dimensions as one likes."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        (first, second), (a, b) = _WIDTHS, _STRIDES
        self.first = nn.Conv2d(SHAPE[0], first, a, a)
        self.second = nn.Conv2d(first, second, b, b)
        self.last = nn.Linear(second * (SHAPE[1] // (a * b)) ** 2, dimensions)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, d) of images (B, 3, 32, 32)."""
        inner = functional.silu(self.second(functional.silu(self.first(images))))
        found: Tensor = self.last(inner.flatten(1))
        return found


def features(dimensions: int) -> Any:
    """The extractor."""
    return _with_random_weights(Features(dimensions)).eval()


def images(n: int) -> Tensor:
    """Smooth random pictures (n, 3, 32, 32) in [-1, 1]."""
    coarse = torch.randn((n, SHAPE[0], 8, 8), generator=torch.Generator().manual_seed(1))
    return torch.tanh(functional.interpolate(coarse, SHAPE[1:], mode="bilinear"))


def _with_random_weights(module: nn.Module) -> Any:
    """Weights that keep the size of what they are given, of a seed; no biases."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(drawn / fan_in**0.5)
        elif name.endswith("bias"):
            parameter.data.zero_()
    return module.requires_grad_(False)
