"""The Inception-v3 of the Fréchet Inception distance, through torch-fidelity.

    levels -> TensorFlow 1's bilinear resize to 299 x 299 -> (x - 128) / 128 -> 2048 means

torch-fidelity holds the network as TensorFlow ran it in 2015 and weights converted from the
original ones.  Its own `forward` takes bytes, which have no gradient; the stages are called here
one after the other instead, on the same numbers.

Source: arXiv:1706.08500; torch-fidelity, feature_extractor_inceptionv3.py.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.rgb import BATCH, RgbFeatures

_MODULE = "torch_fidelity.feature_extractor_inceptionv3"
_SIDE = 299
_STAGES = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


class Inception(nn.Module):
    """Levels (B, 3, H, W) in 0..255 -> the 2048 features before the last layer."""

    def __init__(self, extractor: nn.Module, resize: Any) -> None:
        super().__init__()
        self.extractor = extractor
        self._resize = resize

    def forward(self, seen: Tensor) -> Tensor:
        """Features (B, 2048)."""
        x: Tensor = self._resize(seen, size=(_SIDE, _SIDE), align_corners=False)
        x = (x - 128.0) / 128.0
        for stage in _STAGES:
            x = self.extractor.get_submodule(stage)(x)
        return x.flatten(1)


def load(
    weights: str | Path | None = None, *, download: bool = False, batch: int = BATCH
) -> RgbFeatures:
    """The extractor ``inception``.

    ``weights`` is the file that torch-fidelity publishes; left out, it is looked for where
    torch.hub keeps it, and fetched there only with ``download``.
    """
    fidelity = _torch_fidelity()
    path = Path(weights) if weights is not None else cached_weights(fidelity.URL_INCEPTION_V3)
    if weights is None and download and not path.exists():
        extractor = fidelity.FeatureExtractorInceptionV3("inception-v3", ["2048"])
    else:
        _check_weights(path, fidelity.URL_INCEPTION_V3)
        extractor = _filled(fidelity, path)
    network = Inception(extractor, fidelity.interpolate_bilinear_2d_like_tensorflow1x)
    return RgbFeatures(network, "inception-v3", batch)


def cached_weights(url: str) -> Path:
    """Where torch.hub keeps the file behind ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _torch_fidelity() -> Any:
    try:
        return importlib.import_module(_MODULE)
    except (ImportError, RuntimeError) as error:  # torchvision of another torch: RuntimeError
        raise InvalidConfig(
            f"metric.features: 'inception' needs torch-fidelity ({error}); "
            "install it with pip install torch-fidelity"
        ) from error


def _check_weights(path: Path, url: str) -> None:
    if not path.is_file():
        raise InvalidConfig(
            f"metric.features: 'inception' finds no weights at {path}; put {url} there, name "
            "another place with metric.weights, or set metric.download = true"
        )
    # torch-fidelity unpickles without a guard: only what also loads under guard reaches it
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler may raise anything
        reason = str(error).partition("\n")[0]
        raise InvalidConfig(
            f"metric.weights: {path} is not a file of weights ({reason}); put {url} there"
        ) from error


def _filled(fidelity: Any, path: Path) -> Any:
    try:
        return fidelity.FeatureExtractorInceptionV3(
            "inception-v3", ["2048"], feature_extractor_weights_path=str(path)
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidConfig(
            f"metric.weights: {path} holds other weights than torch-fidelity's Inception-v3 "
            f"({reason}); take {fidelity.URL_INCEPTION_V3}"
        ) from error
