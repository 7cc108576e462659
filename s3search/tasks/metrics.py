"""One schedule by every metric there is: what `s3search tools metrics` does.

A search ranks by one number; this report shows what that number does not see.  Every value comes
with its whole provenance, so that it can be compared with nothing else than its like.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule
from s3search.evaluation.code_version import CODE_VERSION
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.metric import Metric
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.proxies import ProxyScorer, ProxySettings
from s3search.evaluation.record import statistics_problem
from s3search.evaluation.views import Scorer
from s3search.metrics.clip_score import WEIGHT, clip_score
from s3search.metrics.extractors.clip import load_with_texts
from s3search.metrics.frechet import Estimate
from s3search.metrics.kernel import kernel_distance
from s3search.metrics.paired import Pairing
from s3search.metrics.precision_recall import K_DENSITY, K_PRECISION, manifolds
from s3search.schedules.schedule import Schedule
from s3search.study.file.config import StudyConfig

Array = npt.NDArray[np.float64]

_MANIFOLD_IMAGES = 10_000  # at most so many made ones: distances between all pairs are taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number and all that it depends on."""

    metric: str
    value: float | None  # None: could not be measured, for the reason in `note`
    standard_error: float | None = None
    extractor: str
    n_images: int
    n_real: int | None = None  # images that the metric itself compares with
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All metrics of one schedule on one noise."""

    schedule_id: str
    nfe: int
    noise_seed: int
    reference_digest: str
    reference_n: int | None
    model_fingerprint: str
    code_version: str
    protocol: str | None  # of the Fréchet distance; None without one or of other many images
    metrics: tuple[Measured, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """Which CLIP scores images against the texts that the model was given."""

    path: str
    download: bool = False


def measure_quality(
    config: StudyConfig,
    schedule: Schedule,
    *,
    n_images: int | None,
    n_trajectory: int,
    noise_seed: int,
    clip: ClipOptions | None = None,
) -> Report:
    """The report for ``schedule`` with a study's model, extractor and reference, of as many images
    as its validation has if ``n_images`` is None.

    Costs NFE network calls for each of ``n_images``, and those of the fine solve beside NFE for
    each of ``n_trajectory`` more.
    """
    asked = config.held_out_images
    n_images = n_images or asked
    evaluator = Evaluator(config.evaluator_spec)
    _check(schedule, evaluator)
    texts = None if clip is None else _ClipTally(evaluator, clip)
    parts: list[list[Array]] = [[] for _ in evaluator.metrics]
    batches = evaluator.batches(schedule, n_images, noise_seed, with_targets=True)
    for images, condition in batches:
        for own, metric in zip(parts, evaluator.metrics, strict=True):
            own.append(metric.seen(images, condition))
        if texts is not None:
            texts.add(images, condition)
    seen: list[Array] = [np.concatenate(own) for own in parts]
    found = [_by(*each) for each in zip(evaluator.metrics, seen, _roles(evaluator), strict=True)]
    found += _by_images(evaluator, seen[0])
    found += _trajectory(evaluator, schedule, n_trajectory, noise_seed)
    if texts is not None:
        found.append(texts.measured())
    return Report(
        schedule_id=schedule.id,
        nfe=schedule.nfe,
        noise_seed=noise_seed,
        reference_digest=evaluator.metric.statistic.digest,
        reference_n=evaluator.metric.statistic.n,
        model_fingerprint=evaluator.model_fingerprint,
        code_version=CODE_VERSION,
        protocol=config.metric.protocol if n_images == asked else None,
        metrics=tuple(found),
    )


def _check(schedule: Schedule, evaluator: Evaluator) -> None:
    described = evaluator.describe()
    if not schedule.process.same_levels(described.process):
        raise InvalidSchedule(
            f"process: this is a schedule for {schedule.process!r}, the study's model has "
            f"{described.process!r}"
        )
    problem = statistics_problem(schedule, described.ems)
    if problem is not None:
        raise InvalidSchedule(problem)


def _roles(evaluator: Evaluator) -> list[str]:
    """What each of the study's metrics is there for."""
    guards = [f"guard {i}" for i in range(1, len(evaluator.guards) + 1)]
    return ["decides", *guards, *(["second metric"] if evaluator.second is not None else [])]


def _by(metric: Metric, seen: Array, role: str) -> Measured:
    """What one of the study's own metrics gives."""
    estimate = metric.statistic.estimate(seen)
    return Measured(
        metric=metric.kind,
        value=estimate.value,
        standard_error=estimate.standard_error,
        extractor=metric.view.name,
        n_images=len(seen),
        n_real=metric.statistic.n,
        settings={"role": role},
    )


def _by_images(evaluator: Evaluator, made: Array) -> list[Measured]:
    """The metrics that need features of real images, not statistics alone; nothing where the
    study's metric is a score, which has no features.
    """
    size, view = evaluator.batch_size, evaluator.metric.view
    images = evaluator.reference_images
    names = ("kernel", "precision", "recall", "density", "coverage")
    if isinstance(view, Scorer):
        return []
    if images is None:
        note = "the reference is a file of statistics; images are needed (folder, dataset)"
        return [_missing(name, view.name, len(made), note) for name in names]
    real = view.seen_in_batches(images, size)

    def measured(metric: str, estimate: Estimate, n: int, settings: dict[str, int]) -> Measured:
        return Measured(
            metric=metric,
            value=estimate.value,
            standard_error=estimate.standard_error,
            extractor=view.name,
            n_images=n,
            n_real=len(real),
            settings=settings,
        )

    found = [measured("kernel", kernel_distance(real, made), len(made), {"degree": 3})]
    few = made[:_MANIFOLD_IMAGES]
    try:
        shares = manifolds(real, few)
    except EvaluationFailed as error:
        missing = [_missing(name, view.name, len(few), str(error)) for name in names[1:]]
        return found + missing
    for name in names[1:]:
        k = K_PRECISION if name in ("precision", "recall") else K_DENSITY
        found.append(measured(name, Estimate(getattr(shares, name), None), len(few), {"k": k}))
    return found


def _trajectory(
    evaluator: Evaluator, schedule: Schedule, n_images: int, noise_seed: int
) -> list[Measured]:
    """How far the images are from those of a fine solve of the same noises."""
    settings = ProxySettings(batch_size=evaluator.batch_size)
    view = evaluator.metric.view
    features = None if isinstance(view, Scorer) else view.function
    proxies = ProxyScorer(
        evaluator.denoiser,
        features,
        evaluator.metric.statistic.value,
        None,
        NoiseBank(evaluator.denoiser, evaluator.device),
        settings=settings,
    )
    found = []
    kinds = [("trajectory_pixels", True), ("trajectory_features", False)]
    for metric, in_pixels in kinds[: 1 if features is None else 2]:
        (value,) = proxies.trajectory(
            [schedule], n_images, noise_seed, pairing=Pairing.SQUARE, in_pixels=in_pixels
        )
        finite = bool(np.isfinite(value))
        found.append(
            Measured(
                metric=metric,
                value=float(value) if finite else None,
                extractor="pixels" if in_pixels else view.name,
                n_images=n_images,
                settings={"fine_nfe": settings.fine_nfe, "fine_solver": "dpmpp_2m"},
                note=None if finite else "the schedule needs statistics or a patched network",
            )
        )
    return found


def _missing(metric: str, extractor: str, n_images: int, note: str) -> Measured:
    return Measured(metric=metric, value=None, extractor=extractor, n_images=n_images, note=note)


class _ClipTally:
    """CLIP features of images and of their texts, batch by batch."""

    def __init__(self, evaluator: Evaluator, options: ClipOptions) -> None:
        captions = getattr(evaluator.denoiser, "captions", None)
        if captions is None:
            raise InvalidConfig(
                "--clip: a CLIP score compares images with their texts, and this model tells "
                "none; its denoiser needs a method captions(**condition) -> list of str"
            )
        self._captions: Callable[..., list[str]] = captions
        self._images, self._texts = load_with_texts(
            options.path, device=evaluator.device, download=options.download
        )
        self._pairs: list[tuple[Array, Array]] = []

    def add(self, images: torch.Tensor, condition: Mapping[str, Any]) -> None:
        """Counts a batch of images (b, C, H, W) with what they were made for."""
        with torch.inference_mode():
            seen = self._images(images).double().cpu().numpy()
        self._pairs.append((seen, self._texts(self._captions(**condition)).double().cpu().numpy()))

    def measured(self) -> Measured:
        """The score of all of them."""
        images, texts = (np.concatenate(side) for side in zip(*self._pairs, strict=True))
        estimate = clip_score(images, texts)
        return Measured(
            metric="clip_score",
            value=estimate.value,
            standard_error=estimate.standard_error,
            extractor=self._images.name,
            n_images=len(images),
            settings={"weight": WEIGHT},
        )


def report_lines(report: Report) -> Iterator[tuple[str, ...]]:
    """Rows of a table: metric, value, extractor, images, real images, settings or note."""
    for m in report.metrics:
        spread = "" if m.standard_error is None else f" ± {m.standard_error:.3g}"
        value = "-" if m.value is None else f"{m.value:.5g}{spread}"
        settings = ", ".join(f"{key} {v}" for key, v in m.settings.items())
        real = "-" if m.n_real is None else f"{m.n_real:,}"
        yield m.metric, value, m.extractor, f"{m.n_images:,}", real, m.note or settings
