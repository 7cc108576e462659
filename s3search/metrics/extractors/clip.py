"""CLIP features of images, and of the texts that they should show.

    levels -> bicubic resize of the shorter side -> centre crop -> CLIP's mean and deviation
           -> projected image features

Source: arXiv:2103.00020; the preprocessing is that of the published `clip.load`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s3search.metrics.extractors.pretrained import pretrained, tokenizer
from s3search.metrics.extractors.rgb import BATCH, RgbFeatures, normalised

PATH = "openai/clip-vit-large-patch14"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Clip(nn.Module):
    """Levels (B, 3, H, W) in 0..255 -> projected image features (B, d)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._side = int(model.config.vision_config.image_size)

    def forward(self, seen: Tensor) -> Tensor:
        """Image features (B, d), not normalised."""
        pixels = normalised(seen, self._side, MEAN, STD, crop=True)
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        found: Tensor = self.model.visual_projection(pooled)
        return found


class ClipTexts:
    """Texts as features (B, d), to compare with those of images by the same weights."""

    def __init__(self, model: Any, tokens: Any) -> None:
        self._model = model
        self._tokens = tokens
        self._longest = int(model.config.text_config.max_position_embeddings)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Text features (B, d), not normalised; texts are cut at the network's length."""
        given = self._tokens(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        )
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            pooled = self._model.text_model(
                input_ids=given["input_ids"].to(device),
                attention_mask=given["attention_mask"].to(device),
            ).pooler_output
            found: Tensor = self._model.text_projection(pooled)
        return found


def load(path: str = PATH, *, download: bool = False, batch: int = BATCH) -> RgbFeatures:
    """The extractor ``clip``: ``path`` is a folder or a hub id of a transformers CLIPModel."""
    model = pretrained("CLIPModel", "metric.path", path, download=download)
    return RgbFeatures(Clip(model), "clip", batch)


def load_with_texts(
    path: str = PATH, *, device: torch.device, download: bool = False, batch: int = BATCH
) -> tuple[RgbFeatures, ClipTexts]:
    """The extractor and its counterpart for texts, sharing one network."""
    features = load(path, download=download, batch=batch).to(device)
    model: Any = features.network.model
    n_tokens = int(model.config.text_config.vocab_size)
    return features, ClipTexts(model, tokenizer("--clip", path, n_tokens, download=download))
