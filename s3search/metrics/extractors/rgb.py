"""What all pretrained extractors share: 8-bit RGB levels in, batches, a name with the weights.

Distances in the literature are those of saved pictures, so images are rounded to 8 bits first, by
the rule of EDM's `generate.py`:  level = floor(127.5 x + 128), clipped to 0..255.  The rounding
passes gradients as if it were not there; the clipping passes none.
"""

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig

BATCH = 64  # images in a network at once, unless a study says otherwise


class RgbFeatures(nn.Module):
    """Features of a network that sees levels (B, 3, H, W) in 0..255, by images in [-1, 1]."""

    sees_pictures = True

    def __init__(self, network: nn.Module, kind: str, batch: int = BATCH) -> None:
        super().__init__()
        if batch < 1:
            raise InvalidConfig(f"batch: needs at least one image, found {batch}")
        self.network = network.eval().requires_grad_(False)
        self.name = f"{kind}-{weights_digest(network)}"
        self._batch = batch

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, d) float32 of images (B, C, H, W), C = 1 (grey) or 3."""
        parts = torch.split(levels(images), self._batch)
        return torch.cat([self.network(part) for part in parts])


def levels(images: Tensor) -> Tensor:
    """Images (B, 1 or 3, H, W) in [-1, 1] as levels (B, 3, H, W), whole float32 in 0..255."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise InvalidConfig(
            "metric.features: the extractor sees float images (B, C, H, W) in [-1, 1] with 1 or 3 "
            f"channels, found {images.dtype} {tuple(images.shape)}"
        )
    exact = (127.5 * images.float() + 128.0).clamp(0.0, 255.0)
    whole = exact + (exact.floor() - exact).detach()
    return whole.expand(-1, 3, -1, -1)


def normalised(
    seen: Tensor, side: int, mean: tuple[float, ...], std: tuple[float, ...], *, crop: bool = False
) -> Tensor:
    """Levels resized to ``side`` x ``side`` (bicubic, antialiased, as Pillow does), per channel
    less ``mean`` over ``std``; with ``crop`` the shorter side is resized and the centre cut out.
    """
    height, width = seen.shape[-2:]
    to = (side, side)
    if crop:
        shorter = min(height, width)
        to = (round(side * height / shorter), round(side * width / shorter))
    x = seen
    if (height, width) != to:
        x = functional.interpolate(x, size=to, mode="bicubic", antialias=True).clamp(0.0, 255.0)
    top, left = (to[0] - side) // 2, (to[1] - side) // 2
    x = x[..., top : top + side, left : left + side] / 255.0
    centre, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return (x - centre) / scale


def weights_digest(network: nn.Module) -> str:
    """Hash of all weights with their names, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()[:12]
