"""What the golden numbers were measured on: images and weights, drawn by numpy from seeds."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

Shapes = Mapping[str, Sequence[int]]


def images(n: int = 3, channels: int = 3, side: int = 48, seed: int = 0) -> Tensor:
    """Smooth images with noise on them, float64 in [-1, 1]."""
    generator = np.random.default_rng(seed)
    rough = generator.uniform(-1.0, 1.0, (n, channels, side, side))
    waves = np.sin(np.linspace(0, 6, side)[:, None] + np.arange(side) / (5 + seed))
    return torch.from_numpy(0.5 * rough + 0.5 * waves)


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Weights of variance 1 / inputs, factors about 1, offsets about 0, in the order of names; in
    float64, as float32 holds them.
    """
    generator = np.random.default_rng(seed)
    found = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        values = generator.standard_normal(shape)
        if len(shape) > 1:
            values = values / prod(shape[1:]) ** 0.5
        else:
            values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
        found[name] = torch.as_tensor(values).float().double()
    return found


def convolutions(network: str) -> Shapes:
    """Shapes of the convolutions of ``vgg`` or ``alex`` in torchvision's files."""
    vgg = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 256, *(6 * (512,)))
    sizes = dict.fromkeys(vgg, 3)
    if network == "alex":
        widths = (64, 192, 384, 256, 256)
        sizes = {0: 11, 3: 5, 6: 3, 8: 3, 10: 3}
    found: dict[str, Sequence[int]] = {}
    before = 3
    for (place, size), width in zip(sizes.items(), widths, strict=True):
        found[f"features.{place}.weight"] = (width, before, size, size)
        found[f"features.{place}.bias"] = (width,)
        before = width
    return found
