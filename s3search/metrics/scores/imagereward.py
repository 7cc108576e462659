"""ImageReward: BLIP with a head, tuned to people's rankings of images for a text.

    score = (head(first token of the text that has seen the image) - 0.16717) / 1.03334

The head is five linear layers with nothing between them.  Scores of Stable Diffusion lie between
-2 and 2, with mean 0 and deviation 1 over the authors' test set.

Source: arXiv:2304.05977; weights THUDM/ImageReward, file ImageReward.pt.  The authors' package
`image-reward` 1.5 needs timm 0.6.13 and names that transformers 5 no longer has, and its
``score`` gives no gradient, so their file is read here into transformers' Blip classes.  Those
have the numbers of the authors' ``score_gard`` in float32.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.clip import MEAN, STD
from s3search.metrics.extractors.pretrained import tokenizer
from s3search.metrics.extractors.rgb import levels, normalised, weights_digest
from s3search.metrics.scores.aesthetic import regression
from s3search.metrics.scores.blip import TEXT, VISION, Blip, blip, side_of
from s3search.metrics.scores.contract import Direction, captions_for
from s3search.metrics.scores.weights import hub_file
from s3search.models.checkpoints import existing, read_tensors

REPOSITORY = "THUDM/ImageReward"
FILE = "ImageReward.pt"
TOKENIZER = "google-bert/bert-base-uncased"
_ADDED = 2  # tokens that the network has beyond BERT's, [DEC] and [ENC], which no text holds
_LENGTH = 35  # tokens of a caption; what is longer is cut
_MEAN, _STD = 0.16717362830052426, 1.0333394966054072
_FIELD = "metric.path"


class ImageReward(nn.Module):
    """Images (B, 1 or 3, H, W) in [-1, 1] and their captions -> scores (B,)."""

    sees_pictures = True
    needs: tuple[str, ...] = ("captions",)
    direction: Direction = "maximize"

    def __init__(self, network: Blip, head: nn.Module, tokens: Any, side: int) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.name = f"imagereward-{weights_digest(self)}"
        self._tokens = tokens
        self._side = side

    def forward(self, images: Tensor, **given: Any) -> Tensor:
        """Scores (B,); needs ``captions``."""
        captions = captions_for(self.name, images, given)
        pixels = normalised(levels(images), self._side, MEAN, STD, crop=True)
        text = self._tokens(
            captions,
            padding="max_length",
            truncation=True,
            max_length=_LENGTH,
            return_tensors="pt",
        )
        tokens, mask = (text[key].to(pixels.device) for key in ("input_ids", "attention_mask"))
        found: Tensor = self.head(self.network(pixels, tokens, mask)).squeeze(1)
        return (found - _MEAN) / _STD


def load(
    path: str | Path | None = None, *, tokens: str = TOKENIZER, download: bool = False
) -> ImageReward:
    """The score ``imagereward``.

    ``path`` is the authors' file; left out, it is looked for in the hub's cache.  ``tokens`` is a
    folder or a hub id of BERT's tokenizer without capitals.
    """
    if path is None:
        path = hub_file(_FIELD, REPOSITORY, FILE, download=download)
    file = existing(path, field=_FIELD)
    state, _ = read_tensors(file, field=_FIELD)
    inside = {name.removeprefix("blip."): tensor for name, tensor in state.items()}
    _check(inside, str(file))
    n_tokens, width = inside[f"{TEXT}embeddings.word_embeddings.weight"].shape
    known = tokenizer("metric.tokens", tokens, n_tokens - _ADDED, download=download)
    network = blip(inside, field=_FIELD, source=str(file))
    heads = {k.removeprefix("mlp."): v for k, v in inside.items() if k.startswith("mlp.")}
    head = regression(width, heads, source=str(file))
    return ImageReward(network, head, known, side_of(inside))


def _check(state: dict[str, torch.Tensor], source: str) -> None:
    wanted = (
        *(f"{VISION}{name}" for name in ("cls_token", "pos_embed", "patch_embed.proj.weight")),
        f"{VISION}blocks.0.mlp.fc1.weight",
        f"{TEXT}embeddings.word_embeddings.weight",
        f"{TEXT}embeddings.position_embeddings.weight",
        f"{TEXT}encoder.layer.0.intermediate.dense.weight",
    )
    lacking = [name for name in wanted if name not in state]
    if lacking:
        raise InvalidConfig(
            f"{_FIELD}: {source} is no file of ImageReward: {lacking[0]} is missing; take {FILE} "
            f"of {REPOSITORY}"
        )
