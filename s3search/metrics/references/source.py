"""Real images that are too many to hold: counted, named by a digest, read by their numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.solvers.shapes import are_pictures

_RANGE_SLACK = 0.1


@runtime_checkable
class ImageSource(Protocol):
    """What a reference plug-in may return instead of a tensor of all images."""

    @property
    def n(self) -> int:
        """How many images there are."""

    @property
    def digest(self) -> str | None:
        """Names the images and how they are prepared; None where nothing can be said."""

    @property
    def statistics(self) -> Path | None:
        """A file that `s3search tools reference` wrote for these images; None: measure them."""

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Those images, (len(numbers), C, H, W) float32 in [-1, 1]."""


def in_batches(source: ImageSource, size: int) -> Iterator[Tensor]:
    """All images in order, ``size`` at once."""
    for start in range(0, source.n, size):
        yield source.images(range(start, min(start + size, source.n)))


def evenly_chosen(source: ImageSource, most: int) -> Tensor:
    """At most ``most`` images, spread over all: folders are often sorted by class."""
    n = min(most, source.n)
    return source.images([i * source.n // n for i in range(n)])


def check_images(images: Tensor) -> None:
    """Raises `InvalidConfig` unless ``images`` are finite floats (N, ...), those of pictures and
    videos in [-1, 1].
    """
    if images.ndim < 2 or not images.is_floating_point():
        raise InvalidConfig(
            "reference.images: expected a float tensor (N, C, H, W) in [-1, 1], or real samples "
            "of the rank that the model makes, (N, ...), or the path of a .npz with mu and "
            f"sigma, found {images.dtype} {tuple(images.shape)}"
        )
    if not are_pictures(images):
        if not torch.isfinite(images).all():
            raise InvalidConfig("reference.images: values must be finite, found NaN or infinity")
        return
    if not images.abs().max() <= 1.0 + _RANGE_SLACK:
        raise InvalidConfig(
            f"reference.images: values must lie in [-1, 1], found {images.min().item():g} to "
            f"{images.max().item():g}"
        )


def common_shape(images: Sequence[Tensor], names: Sequence[str], resize: int | None) -> Tensor:
    """The images as one tensor; raises `InvalidConfig` naming the one of another size."""
    for image, name in zip(images, names, strict=True):
        if image.shape != images[0].shape:
            found, first = ("x".join(map(str, t.shape[1:])) for t in (image, images[0]))
            hint = "" if resize is not None else "; set reference.resize to a side in pixels"
            raise InvalidConfig(f"reference.images: {name} is {found}, {names[0]} {first}{hint}")
    return torch.stack(list(images))
