"""The real side of the distance: a file of statistics, a tensor of images, an image source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.evaluation.plugins import REFERENCES, call_plugin
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.references import ImageSource, StatisticsFile, evenly_chosen, in_batches
from s3search.metrics.references.source import check_images

IMAGES_KEPT = 4096  # of a source, for what looks at images: proxies, nearest neighbours
NUMBERS_KEPT = 2**28  # in them at most: 1 GiB

Extracted = Callable[[Tensor], Any]  # images on the CPU -> features (B, d), float64


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedReference:
    """Statistics, and what is at hand of the images behind them."""

    statistics: FrechetReference
    images: Tensor | None = None  # all of a tensor, some of a source, None of a file
    source: str | None = None  # digest of an image source


def load_reference(
    name: str,
    options: Mapping[str, Any],
    *,
    extractor: str,
    extracted: Extracted,
    batch_size: int,
    live: Any = None,
) -> LoadedReference:
    """What a study's ``[reference]`` names, or the ``live`` one; raises `InvalidConfig`."""
    found = call_plugin("reference.images", name, options, REFERENCES, live)
    if isinstance(found, str | Path):
        return LoadedReference(statistics=_stored(Path(found), extractor).reference)
    if isinstance(found, ImageSource):
        return _of_source(found, extractor, extracted, batch_size)
    if not isinstance(found, Tensor):
        raise InvalidConfig(
            "reference.images: expected a float tensor (N, C, H, W) in [-1, 1], an image source, "
            f"or the path of a .npz with mu and sigma, found {found}"
        )
    check_images(found)
    if len(found) < 2:
        raise InvalidConfig("reference.images: a reference needs at least 2 images")
    parts = [torch.as_tensor(extracted(part)) for part in torch.split(found, batch_size)]
    statistics = FrechetReference.of(FeatureStatistics.of(torch.cat(parts).numpy()))
    return LoadedReference(statistics=statistics, images=found)


def _of_source(
    source: ImageSource, extractor: str, extracted: Extracted, batch_size: int
) -> LoadedReference:
    """The source's own statistics, or those of all its images, never held at once."""
    kept = evenly_chosen(source, _most_kept(source))
    check_images(kept)
    if source.statistics is None:
        statistics = FrechetReference.of(_measured(source, extracted, batch_size))
    else:
        stored = _stored(source.statistics, extractor)
        stored.check_source(source.statistics, source.n, source.digest)
        statistics = stored.reference
    return LoadedReference(statistics=statistics, images=kept, source=source.digest)


def _most_kept(source: ImageSource) -> int:
    return max(2, min(IMAGES_KEPT, NUMBERS_KEPT // source.images([0]).numel()))


def _measured(source: ImageSource, extracted: Extracted, batch_size: int) -> FeatureStatistics:
    total: FeatureStatistics | None = None
    for images in in_batches(source, batch_size):
        check_images(images)
        part = FeatureStatistics.of(extracted(images))
        total = part if total is None else total.merge(part)
    if total is None or total.n < 2:
        raise InvalidConfig("reference.images: a reference needs at least 2 images")
    return total


def _stored(path: Path, extractor: str) -> StatisticsFile:
    stored = StatisticsFile.load(path)
    stored.check(path, extractor)
    return stored
