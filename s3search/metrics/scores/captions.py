"""Scores that compare each image with its caption, in the features of a CLIP network.

score = scale x cos(image features, caption features)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.metrics.extractors.clip import Clip, ClipTexts
from s3search.metrics.extractors.rgb import levels, weights_digest
from s3search.metrics.scores.contract import Direction, captions_for

View = Callable[[Tensor], Tensor]


class CaptionFeatures:
    """Captions as features of length 1, (B, d), each computed once and kept on the CPU."""

    def __init__(self, texts: ClipTexts) -> None:
        self._texts = texts
        self._known: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Features (B, d) on the CPU, without a gradient, fit to be multiplied by what has one."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        if new:
            found = self._texts(new)
            with torch.inference_mode(False), torch.no_grad():  # a copy that autograd may keep
                rows = functional.normalize(found.clone(), dim=1).cpu()
            self._known.update(zip(new, rows, strict=True))
        with torch.inference_mode(False), torch.no_grad():
            return torch.stack([self._known[caption] for caption in captions])


class CaptionScore(nn.Module):
    """``scale`` times the cosine of each image and its caption; with ``positive`` at least 0.

    ``view``, if given, is what is done to the levels (B, 3, H, W) in 0..255 before `Clip` sees
    them.
    """

    sees_pictures = True
    needs: tuple[str, ...] = ("captions",)
    direction: Direction = "maximize"

    def __init__(
        self,
        kind: str,
        model: Any,
        tokens: Any,
        *,
        scale: float,
        positive: bool = False,
        view: View | None = None,
    ) -> None:
        super().__init__()
        model.eval().requires_grad_(False)
        self.name = f"{kind}-{weights_digest(model)}"
        self.images = Clip(model)
        self._captions = CaptionFeatures(ClipTexts(model, tokens))
        self._scale = scale
        self._positive = positive
        self._view = view

    def forward(self, images: Tensor, **given: Any) -> Tensor:
        """Scores (B,) of images (B, 1 or 3, H, W) in [-1, 1]; needs ``captions``."""
        captions = captions_for(self.name, images, given)
        seen = levels(images)
        found = self.images(seen if self._view is None else self._view(seen))
        cosines = (functional.normalize(found, dim=1) * self._captions(captions).to(found)).sum(1)
        return self._scale * (cosines.relu() if self._positive else cosines)
