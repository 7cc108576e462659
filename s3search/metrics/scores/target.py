"""Scores that compare each image with its target."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from s3search.metrics.scores.contract import Direction, as_shown, target_for


class TargetScore(nn.Module):
    """``compare`` of each image and its target, both (B, C, H, W) and clipped to [-1, 1]; one that
    ``sees_pictures`` no more than other samples is given those of any rank, as they are.
    """

    needs: tuple[str, ...] = ("target",)

    def __init__(
        self,
        name: str,
        direction: Direction,
        compare: Callable[[Tensor, Tensor], Tensor],
        *,
        sees_pictures: bool = True,
    ) -> None:
        super().__init__()
        self.sees_pictures = sees_pictures
        self.name = name
        self.direction: Direction = direction
        self.compare = compare  # a network becomes a part of this module, and moves with it

    def forward(self, images: Tensor, **given: Any) -> Tensor:
        """Numbers (B,); needs ``target``, images of the same shape."""
        target = target_for(self.name, images, given)
        return self.compare(as_shown(images), as_shown(target))
