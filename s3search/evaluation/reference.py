"""The real side of a distance: a file of statistics, a tensor of images, an image source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.evaluation.plugins import REFERENCES, call_plugin
from s3search.evaluation.views import Extractor
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.references import ImageSource, StatisticsFile, evenly_chosen, in_batches
from s3search.metrics.references.source import check_images
from s3search.metrics.samples import Array

IMAGES_KEPT = 4096  # of a source, for what looks at images: proxies, nearest neighbours
NUMBERS_KEPT = 2**28  # in them at most: 1 GiB


@dataclass(frozen=True, eq=False, kw_only=True)
class RealSide:
    """What a study compares with."""

    images: Tensor | None = None  # all of a tensor, some of a source, None of a file
    source: ImageSource | None = None
    file: Path | None = None  # of statistics

    @property
    def digest(self) -> str | None:
        """That of an image source."""
        return None if self.source is None else self.source.digest

    def mean_image(self, shape: tuple[int, ...]) -> list[Any] | None:
        """The mean of the images that are kept, as nested lists; None of any other ``shape``."""
        images = self.images
        if images is None or tuple(images.shape[1:]) != shape:
            return None
        found: list[Any] = images.double().mean(dim=0).tolist()
        return found

    def statistics(self, extractor: Extractor, batch_size: int) -> FrechetReference:
        """Mean and covariance of all images' features: of the file, of the source's own file, or
        taken now; raises `InvalidConfig`.
        """
        if self.file is not None:
            return _stored(self.file, extractor.name).reference
        if self.source is not None and self.source.statistics is not None:
            stored = _stored(self.source.statistics, extractor.name)
            stored.check_source(self.source.statistics, self.source.n, self.source.digest)
            return stored.reference
        if self.source is None:
            features = self.features(extractor, batch_size, are_all=True)
            return FrechetReference.of(FeatureStatistics.of(features))
        total: FeatureStatistics | None = None
        for batch in self._batches(batch_size):
            part = FeatureStatistics.of(extractor.seen(batch))
            total = part if total is None else total.merge(part)
        if total is None or total.n < 2:
            raise InvalidConfig("reference.images: a reference needs at least 2 images")
        return FrechetReference.of(total)

    def features(self, extractor: Extractor, batch_size: int, *, are_all: bool) -> Array:
        """Features (N, d) of the images that are kept, or of ``are_all`` of a source."""
        assert self.images is not None  # the caller looked
        if are_all and self.source is not None:
            return np.concatenate([extractor.seen(each) for each in self._batches(batch_size)])
        return extractor.seen_in_batches(self.images, batch_size)

    def _batches(self, batch_size: int) -> Iterator[Tensor]:
        assert self.source is not None
        for images in in_batches(self.source, batch_size):
            check_images(images)
            yield images


def load_reference(
    name: str | None, options: Mapping[str, Any], live: Any = None
) -> RealSide | None:
    """What a study's ``[reference]`` names, or the ``live`` one; raises `InvalidConfig`."""
    if name is None:
        return None
    found = call_plugin("reference.images", name, options, REFERENCES, live)
    if isinstance(found, str | Path):
        return RealSide(file=Path(found))
    if isinstance(found, ImageSource):
        kept = evenly_chosen(found, _most_kept(found))
        check_images(kept)
        return RealSide(images=kept, source=found)
    if not isinstance(found, Tensor):
        raise InvalidConfig(
            "reference.images: expected a float tensor (N, C, H, W) in [-1, 1] or (N, ...), an "
            f"image source, or the path of a .npz with mu and sigma, found {found}"
        )
    check_images(found)
    if len(found) < 2:
        raise InvalidConfig("reference.images: a reference needs at least 2 images")
    return RealSide(images=found)


def _most_kept(source: ImageSource) -> int:
    return max(2, min(IMAGES_KEPT, NUMBERS_KEPT // source.images([0]).numel()))


def _stored(path: Path, extractor: str) -> StatisticsFile:
    stored = StatisticsFile.load(path)
    stored.check(path, extractor)
    return stored
