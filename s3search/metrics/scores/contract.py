"""What a score is, and the questions that every score asks of what it is given.

A score is called with images (B, C, H, W) in [-1, 1] and with what else exists for them, by name:

    captions   list of B texts
    labels     tensor (B,)
    target     images (B, C, H, W) that these should be equal to

It returns one number for each image, (B,), whose gradient goes to the images where the score has
one.  A score looks only at what it needs: ``labels`` beside a caption are no error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.solvers.shapes import are_pictures

Direction = Literal["maximize", "minimize"]


class Score(Protocol):
    """One number for each image; ``direction`` says which way is better."""

    @property
    def name(self) -> str:
        """What the numbers are stored under, with a digest of the weights where there are any."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of what must be given beside the images."""

    @property
    def direction(self) -> Direction:
        """Whether better images have greater or smaller numbers."""

    def __call__(self, images: Tensor, **given: Any) -> Tensor:
        """Numbers (B,) of images (B, C, H, W) in [-1, 1]."""


def captions_for(name: str, images: Tensor, given: Mapping[str, Any]) -> list[str]:
    """The captions, one for each image; raises `InvalidConfig`."""
    captions = given.get("captions")
    if captions is None:
        raise InvalidConfig(
            f"metric.score: {name!r} compares images with their captions, and there are none; "
            "take a model that gives captions, or a score that needs none"
        )
    if isinstance(captions, str) or not isinstance(captions, Sequence):
        raise InvalidConfig(
            f"metric.score: {name!r} needs a list of captions, found {type(captions).__name__}"
        )
    if len(captions) != len(images):
        raise InvalidConfig(
            f"metric.score: {name!r} needs one caption for each image, found {len(captions)} "
            f"captions for {len(images)} images"
        )
    return list(captions)


def target_for(name: str, images: Tensor, given: Mapping[str, Any]) -> Tensor:
    """The images to be reached, on the device of ``images``; raises `InvalidConfig`."""
    target = given.get("target")
    if target is None:
        raise InvalidConfig(
            f"metric.score: {name!r} compares images with a target, and there is none; "
            "say what the images should be equal to, or take a score that needs no target"
        )
    if images.ndim < 2 or not images.is_floating_point():
        raise InvalidConfig(
            f"metric.score: {name!r} sees float images (B, C, H, W) in [-1, 1], found "
            f"{images.dtype} {tuple(images.shape)}"
        )
    if not isinstance(target, Tensor) or not target.is_floating_point():
        kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise InvalidConfig(
            f"metric.score: {name!r} needs a target of floats in [-1, 1], found {kind}"
        )
    if target.shape != images.shape:
        raise InvalidConfig(
            f"metric.score: {name!r} compares images with a target of their own shape "
            f"{tuple(images.shape)}, found {tuple(target.shape)}; resize the target first"
        )
    return target.to(images.device)


def as_shown(images: Tensor) -> Tensor:
    """Images clipped to [-1, 1], as a screen or file clips them, in float32 or what is finer;
    samples that are no pictures or videos as they are.

    They are not rounded to 8 bits: that adds the same small noise to all, and steps to a search.
    """
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    return wide.clamp(-1.0, 1.0) if are_pictures(images) else wide
