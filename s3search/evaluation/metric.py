"""A metric as a worker has it: what it sees of images, and what it makes of that.

    view        images and what they were made for -> numbers (n, d): features, or a score
    statistic   these numbers -> value, standard error, paired replicates, a loss with a gradient
    direction   whether more is better

All that ranks, stops early, polishes, validates and reports goes by these, and knows no metric by
its name.  A study has one metric that everything is decided by; guards, which may not get worse
while it gets better; and, where ``[validation.metric]`` names one, a second metric, which sees the
images of the validation too and decides nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.evaluation.code_version import CODE_VERSION
from s3search.evaluation.decoding import made_shape
from s3search.evaluation.noise import TARGET
from s3search.evaluation.record import RealImageBaseline
from s3search.evaluation.reference import RealSide
from s3search.evaluation.spec import EvaluatorSpec, MetricSpec
from s3search.evaluation.views import Condition, Extractor, Scorer, load_view
from s3search.metrics.cmmd import CmmdStatistic
from s3search.metrics.frechet import Estimate
from s3search.metrics.kernel import KernelStatistic
from s3search.metrics.mean import MeanStatistic
from s3search.metrics.mind import MindStatistic
from s3search.metrics.samples import Array
from s3search.metrics.statistic import FrechetStatistic, Statistic
from s3search.search.direction import Direction
from s3search.search.questions import RealImages
from s3search.solvers.shapes import Shape

_OF_FEATURES: dict[str, Callable[[Array], Statistic]] = {
    "kernel": KernelStatistic.of,
    "cmmd": CmmdStatistic.of,
    "mind": MindStatistic.of,
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One of a study's metrics, loaded."""

    view: Extractor | Scorer
    statistic: Statistic
    direction: Direction
    fine_targets: bool = False  # images are compared with fine solves of their noises

    @property
    def kind(self) -> str:
        """ "frechet", "kernel", "cmmd", "mind" or "score"."""
        return self.statistic.kind

    @property
    def names(self) -> tuple[str, str]:
        """That of extractor or score, and the digest of what is compared with."""
        return self.view.name, self.statistic.digest

    def seen(self, images: Tensor, condition: Condition) -> Array:
        """What counts of each image (b, d)."""
        return self.view.seen(images, condition)

    def with_stand_in(self, images: Tensor, condition: Condition) -> Condition:
        """Conditions with a grey image in the place of each fine solve that the metric needs, to
        try it by without a solve.
        """
        if not self.fine_targets or TARGET in condition:
            return condition
        return {**condition, TARGET: torch.zeros_like(images)}

    def loss_so_far(self, seen: Array) -> float:
        """The loss of what was seen until now, the lower the better."""
        return self.direction.loss(self.statistic.value(seen))

    def measured(
        self, seen: Array, *, is_reported: bool
    ) -> tuple[Estimate, tuple[float, ...] | None]:
        """The value, with a standard error where it is cheap and, if it ``is_reported``, with
        paired replicates (`s3search.metrics.intervals`).
        """
        if not is_reported:
            return self.statistic.estimate(seen), None
        estimate, found = self.statistic.measured(seen)
        return estimate, None if found is None else tuple(found.tolist())

    def block_mean(self, seen: Array, block_images: int | None) -> float | None:
        """The mean value of the disjoint blocks of ``block_images`` images; None without a whole
        block.

        A distance depends on its number of images, so one of few images on one noise can only be
        checked against those of as few images on other noise.
        """
        if block_images is None or len(seen) < block_images:
            return None
        n_blocks = len(seen) // block_images
        blocks = np.split(seen[: n_blocks * block_images], n_blocks)
        return float(np.mean([self.statistic.value(block) for block in blocks]))

    def real_images(
        self, images: Tensor, batch_size: int, question: RealImages
    ) -> RealImageBaseline | None:
        """What draws of the real images (N, ...) get; None where they have no score, since
        nobody says what they should show.
        """
        if isinstance(self.view, Scorer):
            return None
        seen, asked = self.view.seen_in_batches(images, batch_size), question.n_images
        values = self.statistic.resampled(seen, asked, seed=question.seed)
        return RealImageBaseline(
            metric=self.kind,
            extractor=self.view.name,
            reference_digest=self.statistic.digest,
            reference_n=len(seen),
            n_images=asked,
            seed=question.seed,
            value=float(np.mean(values)),
            values=tuple(values),
            code_version=CODE_VERSION,
        )


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What metrics are loaded with."""

    device: torch.device
    batch_size: int
    real: RealSide | None
    captions: Callable[..., Sequence[str]] | None  # of the model, by its condition
    shape: Shape  # of what the model makes

    @classmethod
    def of(
        cls, denoiser: Any, device: torch.device, batch_size: int, real: RealSide | None
    ) -> "Loading":
        """What the metrics of a model are loaded with."""
        return cls(
            device=device,
            batch_size=batch_size,
            real=real,
            captions=getattr(denoiser, "captions", None),
            shape=made_shape(denoiser, device),
        )

    def metric(self, spec: MetricSpec, live: Any = None, *, is_first: bool = False) -> Metric:
        """The metric that a table of the study names, or of the ``live`` object; raises
        `InvalidConfig`.

        The first sees all real images, or the file of their statistics; others those of a large
        source that are kept.
        """
        view = load_view(spec, self.device, live, self.captions, self.shape)
        statistic: Statistic
        if isinstance(view, Scorer):
            digest = f"{spec.target or 'no'} target"
            statistic = MeanStatistic(digest=digest, direction=spec.direction.value)
        else:
            statistic = self._distance(spec, view, is_first=is_first)
        return Metric(
            view=view,
            statistic=statistic,
            direction=spec.direction,
            fine_targets=spec.target == "fine",
        )

    def _distance(self, spec: MetricSpec, view: Extractor, *, is_first: bool) -> Statistic:
        if self.real is None:
            raise InvalidConfig(
                f"{spec.key}: a distance needs real images or their statistics, and the study has "
                "no [reference]"
            )
        if is_first and spec.kind == "frechet":
            reference = self.real.statistics(view, self.batch_size)
            return FrechetStatistic(replace(reference, device=self.device))
        if self.real.images is None:
            what = "a second extractor" if spec.kind == "frechet" else f"kind = {spec.kind!r}"
            raise InvalidConfig(
                f"{spec.where}: {what} needs real images to compare with, reference.images gave a "
                "file of statistics; name a function that returns images, or leave it out"
            )
        seen = self.real.features(view, self.batch_size, are_all=is_first)
        if spec.kind == "frechet":
            of_seen = FrechetStatistic.of(seen).reference
            return FrechetStatistic(replace(of_seen, device=self.device))
        return _OF_FEATURES[spec.kind](seen)


def needs_fine_targets(spec: EvaluatorSpec) -> bool:
    """Whether any metric of a study compares images with fine solves of their noises."""
    metrics = (spec.metric, spec.second, *spec.guards)
    return any(each is not None and each.target == "fine" for each in metrics)


def compares_finely(*metrics: Metric | None) -> bool:
    """Whether any of some metrics compares images with fine solves of their noises."""
    return any(each is not None and each.fine_targets for each in metrics)
