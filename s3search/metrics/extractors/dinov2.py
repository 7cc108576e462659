"""DINOv2 features, for the distance that agrees best with people: FD-DINOv2.

    levels -> bicubic resize to 224 x 224 -> ImageNet's mean and deviation -> the class token
              after the last layer norm (1024 numbers of ViT-L/14)

Source: arXiv:2306.04675, sec. 3 (dgm-eval).  That code resizes with Pillow and rounds to 8 bits
once more; here the resized picture stays in floats, so that it has gradients.
"""

from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.pretrained import pretrained
from s3search.metrics.extractors.rgb import BATCH, RgbFeatures, normalised

PATH = "facebook/dinov2-large"
SIDE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Dinov2(nn.Module):
    """Levels (B, 3, H, W) in 0..255 -> class tokens (B, d)."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model = model
        self._side = side

    def forward(self, seen: Tensor) -> Tensor:
        """Class tokens (B, d)."""
        pixels = normalised(seen, self._side, _MEAN, _STD)
        found: Tensor = self.model(pixel_values=pixels).pooler_output
        return found


def load(
    path: str = PATH, *, side: int = SIDE, download: bool = False, batch: int = BATCH
) -> RgbFeatures:
    """The extractor ``dinov2``: ``path`` is a folder or a hub id of a transformers Dinov2Model."""
    model = pretrained("Dinov2Model", "metric.path", path, download=download)
    patch = model.config.patch_size
    if side < patch or side % patch:
        raise InvalidConfig(
            f"metric.side: {side} is no multiple of the network's patches of {patch} pixels"
        )
    return RgbFeatures(Dinov2(model, side), f"dinov2-{side}", batch)
