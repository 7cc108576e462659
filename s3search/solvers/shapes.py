"""Shapes of samples: (C, H, W) of pictures, (C, T, H, W) of videos, (N, C) of packed tokens,
(C, L) of sound, (D,) of vectors.

A batch has one axis more, in front.  Nothing that samples, searches or polishes asks what the axes
mean; metrics do (`s3search.metrics.frames`).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from s3search.errors import InvalidConfig

Shape = tuple[int, ...]
"""That of one sample, without the batch's axis."""

PICTURE_AXES, VIDEO_AXES = 3, 4

SHAPES = "(C, H, W), (C, T, H, W), (N, C), (C, L) or (D,)"
"""The shapes that people have, as a message lists them."""


def checked_shape(found: Any, keyword: str) -> Shape:
    """``found`` as a shape; raises `InvalidConfig` unless it is one or more whole numbers above
    0.
    """
    sides = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else []
    is_whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if not sides or not is_whole or min(sides) < 1:
        raise InvalidConfig(
            f"{keyword}: needs the shape of one sample, such as {SHAPES}, of whole numbers above "
            f"0, found {found!r}"
        )
    return tuple(sides)


def are_pictures(batch: Tensor) -> bool:
    """Whether samples are pictures (B, C, H, W) or videos (B, C, T, H, W) by their rank: what has
    pixels, channels of colour and, by agreement, values in [-1, 1].
    """
    return batch.ndim in (PICTURE_AXES + 1, VIDEO_AXES + 1)


def over_the_rest(values: Tensor, x: Tensor) -> Tensor:
    """A number for each sample (B,) as a factor (B, 1, ...) of ``x`` (B, ...), in its dtype and on
    its device.
    """
    return values.to(x).reshape(-1, *[1] * (x.ndim - 1))


def without_variance(answer: Tensor, x: Tensor) -> Tensor:
    """A network's answer without the variance that it may have learned: where one axis of a
    sample is twice as long as in ``x``, its first half.  The batches may differ in length.
    """
    if answer.ndim != x.ndim:
        return answer
    axes = [axis for axis in range(1, x.ndim) if answer.shape[axis] != x.shape[axis]]
    if len(axes) != 1 or answer.shape[axes[0]] != 2 * x.shape[axes[0]]:
        return answer
    return answer.narrow(axes[0], 0, x.shape[axes[0]])
