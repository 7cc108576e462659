"""LAION's aesthetic score: how much people would like an image, from 1 to 10.

    score = W5 (W4 (W3 (W2 (W1 x + b1) + b2) + b3) + b4) + b5,   x = CLIP ViT-L/14 features / |.|

There is nothing between the layers (dropout only in training), so the score is linear in x.

Source: christophschuhmann/improved-aesthetic-predictor, `sac+logos+ava1-l14-linearMSE.pth`.  Its
authors ran CLIP in float16 on a GPU, here it is float32, so the last digits differ.  A score
above 6.5 or so is rare among photographs; a search that raises it far beyond finds pictures that
this network likes, not people.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.metrics.extractors.clip import PATH, Clip
from s3search.metrics.extractors.pretrained import pretrained
from s3search.metrics.extractors.rgb import levels, weights_digest
from s3search.metrics.scores.contract import Direction
from s3search.metrics.scores.weights import filled, given_or_cached
from s3search.models.checkpoints import read_tensors

URL = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
    "sac%2Blogos%2Bava1-l14-linearMSE.pth"
)
_WIDTHS = (1024, 128, 64, 16, 1)
_PLACES = (0, 2, 4, 6, 7)  # of the linear layers in the file; dropout had the others


class Aesthetic(nn.Module):
    """Images (B, 1 or 3, H, W) in [-1, 1] -> scores (B,)."""

    sees_pictures = True
    needs: tuple[str, ...] = ()
    direction: Direction = "maximize"

    def __init__(self, model: Any, head: nn.Module) -> None:
        super().__init__()
        self.images = Clip(model.eval().requires_grad_(False))
        self.head = head
        self.name = f"aesthetic-{weights_digest(self)}"

    def forward(self, images: Tensor, **_given: Any) -> Tensor:
        """Scores (B,); needs nothing beside the images."""
        features = functional.normalize(self.images(levels(images)), dim=1)
        found: Tensor = self.head(features).squeeze(1)
        return found


def load(
    path: str = PATH, *, weights: str | Path | None = None, download: bool = False
) -> Aesthetic:
    """The score ``aesthetic``.

    ``path`` is a folder or a hub id of the transformers CLIPModel ViT-L/14, ``weights`` the
    published file; left out, it is looked for in torch.hub's cache.
    """
    file = given_or_cached("metric.weights", weights, URL, download=download)
    state, _ = read_tensors(file, field="metric.weights")
    model = pretrained("CLIPModel", "metric.path", path, download=download)
    head = regression(int(model.config.projection_dim), state, source=str(file))
    return Aesthetic(model, head)


def regression(width: int, state: dict[str, Tensor], *, source: str) -> nn.Module:
    """The linear layers, features (B, width) -> (B, 1), filled from ``layers.K.weight`` and so on
    of a file, as ImageReward's too; raises `InvalidConfig`.
    """
    widths = (width, *_WIDTHS)
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced
        layers = {
            str(place): nn.Linear(widths[k], widths[k + 1]) for k, place in enumerate(_PLACES)
        }
    given = {name.removeprefix("layers."): tensor.float() for name, tensor in state.items()}
    network = nn.Sequential()
    for place, layer in layers.items():
        network.add_module(place, layer)
    return filled(network, given, field="metric.weights", source=source)
