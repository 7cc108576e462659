"""A feature extractor and what it sees: of the real images, of a schedule's, of resampled ones.

A study has one extractor that everything is decided by and, where ``[validation.metric]`` names
one, a second metric: it sees the images of the validation too, and decides nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.evaluation.code_version import CODE_VERSION
from s3search.evaluation.live import LIVE
from s3search.evaluation.memory import BatchSize
from s3search.evaluation.plugins import FEATURES, call_plugin
from s3search.evaluation.record import RealImageBaseline
from s3search.metrics.frechet import (
    Array,
    Estimate,
    FeatureStatistics,
    FrechetReference,
    affordable_blocks,
    frechet_estimate,
    resampled_distances,
)
from s3search.metrics.intervals import replicates
from s3search.search.questions import Measurement, RealImages

_LARGEST_BATCH = 1000  # images; callers bring fewer


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Images (B, C, H, W) in [-1, 1] -> features (B, d)."""

    where: str  # the key of the study file that names it
    name: str
    features: Callable[[Tensor], Tensor]
    device: torch.device
    fits: BatchSize  # of images at once

    def seen(self, images: Tensor) -> Array:
        """Features (B, d) in float64, on the CPU."""
        found: Array = self.fits.over(self._of_portion, images, {}).double().cpu().numpy()
        return found

    @torch.inference_mode()
    def _of_portion(self, images: Tensor, _: Mapping[str, Tensor]) -> Tensor:
        features = self.features(images.to(self.device))
        is_tensor = isinstance(features, Tensor)
        if not is_tensor or features.ndim != 2 or len(features) != len(images):
            shape = f"shape {tuple(features.shape)}" if is_tensor else type(features).__name__
            raise InvalidConfig(
                f"{self.where}: expected (B, d) features for {len(images)} images, and "
                f"{self.name!r} returned {shape}"
            )
        return features

    def seen_in_batches(self, images: Tensor, batch_size: int) -> Array:
        """Features (n, d) float64, on the CPU, of images that do not fit on the device at once."""
        return np.concatenate([self.seen(batch) for batch in torch.split(images, batch_size)])


def load_extractor(
    where: str, name: str, options: Mapping[str, Any], device: torch.device, live: Any = None
) -> Extractor:
    """The extractor that the study file names at ``where``, or the ``live`` one; raises
    `InvalidConfig`.
    """
    features = call_plugin(where, name, options, FEATURES, live)
    if not callable(features):
        raise InvalidConfig(
            f"{where}: {name!r} returned a {type(features).__name__}, "
            "not a callable images -> features"
        )
    if isinstance(features, torch.nn.Module):
        features = features.to(device)
    own = options["object"] if name == LIVE else getattr(features, "name", name)
    fits = BatchSize(_LARGEST_BATCH, "extracting features")
    return Extractor(where=where, name=own, features=features, device=device, fits=fits)


def estimate_of(reference: FrechetReference, features: Array) -> Estimate:
    """The distance of features (n, d), with a standard error where it is cheap."""
    n_blocks = affordable_blocks(features.shape[1])
    return frechet_estimate(reference, features, n_blocks=n_blocks)


def replicates_of(reference: FrechetReference, features: Array) -> tuple[float, ...] | None:
    """`s3search.metrics.intervals.replicates` as an evaluation keeps them."""
    found = replicates(reference, features)
    return None if found is None else tuple(found.tolist())


@dataclass(frozen=True, kw_only=True)
class SecondMetric:
    """A second extractor with its own reference."""

    extractor: Extractor
    reference: FrechetReference

    @property
    def names(self) -> tuple[str, str]:
        """Extractor and reference digest."""
        return self.extractor.name, self.reference.digest

    def says(self, found: Measurement, features: Sequence[Array], seconds: float) -> Measurement:
        """The measurement of the images behind ``found`` by this extractor, which has spent
        ``seconds`` on ``features``; their sampling is not paid for again.
        """
        began = time.perf_counter()
        matrix = np.concatenate(features)
        estimate = estimate_of(self.reference, matrix)
        return replace(
            found,
            of_second=True,
            extractor=self.extractor.name,
            distance=estimate.value,
            standard_error=estimate.standard_error,
            block_value=None,
            reference_digest=self.reference.digest,
            reference_n=self.reference.n,
            replicates=replicates_of(self.reference, matrix),
            sampling_seconds=0.0,
            seconds=seconds + time.perf_counter() - began,
        )


def load_second_metric(
    name: str | None,
    options: Mapping[str, Any],
    device: torch.device,
    real_images: Tensor | None,
    batch_size: int,
    *,
    live: Any = None,
) -> SecondMetric | None:
    """The extractor of ``[validation.metric]``, or the ``live`` one, with its view of the real
    images, None where the study names none; raises `InvalidConfig`.
    """
    if name is None:
        return None
    extractor = load_extractor("validation.metric.features", name, options, device, live)
    if real_images is None:
        raise InvalidConfig(
            "validation.metric: a second extractor needs real images to compare with, "
            "reference.images gave a file of statistics; name a function that returns images, "
            "or leave [validation.metric] out"
        )
    seen = extractor.seen_in_batches(real_images, batch_size)
    return SecondMetric(
        extractor=extractor, reference=FrechetReference.of(FeatureStatistics.of(seen))
    )


def baseline_of(
    extractor: Extractor,
    reference: FrechetReference,
    real_images: Tensor,
    batch_size: int,
    question: RealImages,
) -> RealImageBaseline:
    """The distance of draws of the real images (N, C, H, W), which made ``reference``."""
    features = extractor.seen_in_batches(real_images, batch_size)
    values = resampled_distances(reference, features, question.n_images, seed=question.seed)
    return RealImageBaseline(
        extractor=extractor.name,
        reference_digest=reference.digest,
        reference_n=len(features),
        n_images=question.n_images,
        seed=question.seed,
        value=float(np.mean(values)),
        values=tuple(values),
        code_version=CODE_VERSION,
    )
