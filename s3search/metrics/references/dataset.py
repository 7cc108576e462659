"""Images of a dataset: any map-style one of torch, or one that `datasets` saved to disk.

A study file reaches a torch dataset through a function of your own:

>>> def load() -> DatasetImages:
...     return DatasetImages(torchvision.datasets.CIFAR10("data"), Preparation())
"""

import importlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from s3search.errors import InvalidConfig, nearest
from s3search.metrics.references.pictures import Preparation
from s3search.metrics.references.source import common_shape


class Values(StrEnum):
    """What the numbers of float tensors mean; pictures and uint8 levels need no telling."""

    SIGNED = "signed"  # [-1, 1]
    UNIT = "unit"  # [0, 1]


class MapStyle(Protocol):
    """What torch and `datasets` call a map-style dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


class DatasetImages:
    """An image source over a dataset.

    An item is a picture (PIL), levels (H, W, C) uint8 in an array, (C, H, W) in a tensor, uint8 or
    float with ``values`` told; or a tuple that starts with one, or a mapping with one at
    ``column``.
    """

    def __init__(
        self,
        dataset: MapStyle,
        preparation: Preparation,
        *,
        column: str | None = None,
        values: Values | None = None,
        digest: str | None = None,
        statistics: Path | None = None,
    ) -> None:
        self.n = len(dataset)
        if self.n < 2:
            raise InvalidConfig(
                f"reference.images: the dataset has {self.n} images, a reference needs at least 2"
            )
        self.digest = digest
        self.statistics = statistics
        self._dataset = dataset
        self._preparation = preparation
        self._column = column
        self._values = values

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Those images, (len(numbers), C, H, W) float32 in [-1, 1]."""
        names = [f"item {i}" for i in numbers]
        found = [self._image(self._item(i)) for i in numbers]
        return common_shape(found, names, self._preparation.resize)

    def _item(self, number: int) -> Any:
        try:
            return self._dataset[number]
        except Exception as error:  # what is wrong with a picture shows when it is asked for
            raise InvalidConfig(
                f"reference.images: item {number} of the dataset cannot be read "
                f"({type(error).__name__}: {error})"
            ) from error

    def _image(self, item: Any) -> Tensor:
        match self._picked(item):
            case Image.Image() as picture:
                return self._preparation.of_picture(picture)
            case np.ndarray() as pixels:
                return self._preparation.of_bytes(pixels)
            case Tensor() as tensor if tensor.is_floating_point() and tensor.ndim == 3:
                return self._of_floats(tensor)
            case Tensor() as tensor if tensor.ndim == 3:
                return self._preparation.of_bytes(tensor.permute(1, 2, 0).numpy())
            case other:
                raise InvalidConfig(
                    "reference.images: an item of the dataset is a picture, an array or a tensor "
                    f"(C, H, W), or has one at reference.column; found a {type(other).__name__}"
                )

    def _picked(self, item: Any) -> Any:
        if isinstance(item, dict):
            column = self._column or "image"
            if column not in item:
                raise InvalidConfig(
                    f"reference.column: the dataset has no column {column!r}; "
                    f"{nearest(column, item)}"
                )
            return item[column]
        return item[0] if isinstance(item, tuple | list) and item else item

    def _of_floats(self, image: Tensor) -> Tensor:
        if self._values is None:
            raise InvalidConfig(
                "reference.values: float tensors are in [0, 1] or in [-1, 1]; say which with "
                "'unit' or 'signed'"
            )
        if self._preparation.resize not in (None, *set(image.shape[1:])):
            raise InvalidConfig(
                f"reference.resize: float tensors of {tuple(image.shape[1:])} pixels are taken as "
                "they are; resize them in the dataset's own transform"
            )
        wanted = self._preparation.channels
        if image.shape[0] != wanted:
            raise InvalidConfig(
                f"reference.channels: {wanted} asked, the dataset's tensors have {image.shape[0]}"
            )
        return (image if self._values is Values.SIGNED else 2.0 * image - 1.0).float()


def load(  # one parameter per key of the study file
    path: str,
    *,
    split: str | None = None,
    column: str | None = None,
    resize: int | None = None,
    channels: int = 3,
    statistics: str | None = None,
) -> DatasetImages:
    """The reference ``dataset``: what `datasets.Dataset.save_to_disk` wrote to ``path``."""
    dataset = _from_disk(path)
    splits = dict(dataset) if isinstance(dataset, dict) else {}
    if splits and split not in splits:
        raise InvalidConfig(
            f"reference.split: {path} has the splits {', '.join(sorted(splits))}, "
            f"found {split!r}; name one of them"
        )
    if not splits and split is not None:
        raise InvalidConfig(f"reference.split: {path} is one dataset without splits; leave it out")
    chosen = splits[str(split)] if splits else dataset
    _check_table(path, chosen)
    preparation = Preparation(channels=channels, resize=resize)
    return DatasetImages(
        chosen,
        preparation,
        column=column,
        digest=f"{chosen._fingerprint}-{channels}-{resize}",
        statistics=None if statistics is None else Path(statistics),
    )


def _check_table(path: str, dataset: Any) -> None:
    """Raises `InvalidConfig` for tables whose texts and pictures begin or end outside the file:
    Arrow reads where they say, and the process would end there.
    """
    try:
        dataset.data.validate(full=True)
    except Exception as error:
        raise InvalidConfig(
            f"reference.path: the tables of {path} are damaged ({type(error).__name__}: {error}); "
            "write them again with save_to_disk"
        ) from error


def _from_disk(path: str) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise InvalidConfig(
            f"reference.images: 'dataset' needs the library datasets ({error}); "
            "install it with pip install datasets"
        ) from error
    try:
        return datasets.load_from_disk(path)
    except Exception as error:  # the library raises anything for files that it did not write
        raise InvalidConfig(
            f"reference.path: {path} is no dataset that save_to_disk wrote "
            f"({type(error).__name__}: {error})"
        ) from error
