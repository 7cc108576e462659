"""Scores of schedules without the network, or with few of its calls.

    gaussian     the closed-form Fréchet distance in pixels if the data were one Gaussian
    mixture      the metric's own distance to the real images from what the schedule makes of a
                 mixture of Gaussians with its exact denoiser
    trajectory   the distance, in the metric's own features, between the schedule's images and
                 those of a fine solve from the same noises

Noise in steps adds to the variances of the first, and is common to all schedules in the second,
row by row; the third has no score for them, since noise leads away from a fine solve.

Where the metric is a score of single images, which has no features, the mixture has nothing to
say, and the trajectory's error is taken in pixels.  The first two make no network call.  Each
ranks schedules on a scale of its own, and how far to trust one differs between models and must be
measured (its proxy correlation).  Schedules are run one by one, which on a mixture costs no more
than running them together, so that no score depends on its batch; the mixture's answers to calls
that schedules have in common are kept.  Fewer components, directions or noises of it were tried:
on the digits each ranks the good ones worse.

For the mixture, the images that a fine solve of it makes of the same noises were tried as the
other side of the distance instead of the real ones: that ranks the good schedules worse.
`python -m tests.benchmarks.bench_proxies` prints how well each proxy ranks on the digits model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import (
    EvaluationFailed,
    IncompatibleStatistics,
    InvalidConfig,
    InvalidSchedule,
)
from s3search.evaluation.decoding import OwnLoop, images_by, network_batches
from s3search.evaluation.denoiser_cache import DenoiserCache
from s3search.evaluation.fine import fine_plan
from s3search.evaluation.memory import BatchSize
from s3search.evaluation.metric import Metric
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.record import ProxyScores
from s3search.metrics.paired import Pairing, paired_distance
from s3search.models.mixture import MixtureSampler, fit_mixture
from s3search.models.principal import PrincipalAxes, principal_axes, principal_distance
from s3search.schedules.schedule import Schedule
from s3search.search.questions import FINE_NFE, Score
from s3search.solvers.plan import Plan, PlanBatch, compile_plan
from s3search.solvers.sample import check_process, sample
from s3search.solvers.step_noise import block_generator

Array = npt.NDArray[np.float64]

_CHUNK_NUMBERS = 2**22  # of closed-form states at a time
_FIT_IMAGES = 10_000  # at most so many of the reference's images are fitted
_FIT_NUMBERS = 2**26  # and at most so many pixels
_FIT_SIDE = 4096  # and at most so many images where they have more pixels than this
_MIXTURE_SEED = 0x6D6978  # of the mixture's noises; no rung draws from it
_CACHE_BYTES = 2**25  # of the mixture's answers
_FINE_SOLVES_KEPT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """How fine the proxies are."""

    n_components: int = 20
    n_directions: int = 256  # of the Gaussian and the mixture; the others share one variance
    mixture_images: int = 128
    fine_nfe: int = FINE_NFE  # calls of the fine solve, DPM-Solver++(2M); 64 rank no better
    batch_size: int = 100  # of network and extractor


class ProxyScorer:
    """Scores schedules for one denoiser and metric; lower is better.

    A score is nan where there is none: for a schedule that needs statistics (DPM-Solver-v3),
    patches the network or makes numbers that are not finite; in the first two proxies also for a
    Gaussian jump, in the third for noise in steps, and always if the reference has no images of
    the denoiser's shape, as for models of latents.

    >>> proxies = ProxyScorer(denoiser, features, distance, images, noise)
    >>> proxies.mixture(schedules), proxies.trajectory(schedules, n_images=64, noise_seed=5)
    """

    def __init__(
        self,
        denoiser: Any,
        features: Callable[[Tensor], Tensor] | None,  # None: a score has none
        distance: Callable[[Array], float],  # of features (n, d) to the real images'
        images: Tensor | None,  # (N, ...) real ones; None: statistics alone
        noise: NoiseBank,
        *,
        labels: Tensor | None = None,  # (N,): one component for each label, not for each cluster
        settings: ProxySettings | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._features = features
        self._distance = distance
        self._images = images
        self._labels = labels
        self._noise = noise
        self._settings = settings or ProxySettings()
        self._fine: dict[tuple[int, int, bool], Array] = {}
        self._batches = BatchSize(self._settings.batch_size, "sampling for a proxy")
        self.network_calls = 0  # image-calls spent so far, the fine solves' included

    @classmethod
    def of(
        cls, denoiser: Any, metric: Metric, images: Tensor | None, noise: NoiseBank
    ) -> "ProxyScorer":
        """The proxies of a metric; ``images`` are real ones (N, ...), where there are any."""
        is_score = metric.kind == "score"
        features = None if is_score else metric.view.function
        return cls(denoiser, features, metric.statistic.value, images, noise)

    def scores(self, question: Score) -> ProxyScores:
        """How good many schedules are by one proxy."""
        before = self.network_calls
        match question.proxy:
            case "gaussian":
                found = self.gaussian(question.schedules)
            case "mixture":
                found = self.mixture(question.schedules)
            case "trajectory":
                images, seed = question.n_images, question.noise_seed
                in_pixels = self._features is None
                found = self.trajectory(question.schedules, images, seed, in_pixels=in_pixels)
            case other:
                raise InvalidConfig(f"there is no proxy {other!r}")
        calls = self.network_calls - before
        return ProxyScores(scores=tuple(found.tolist()), network_calls=calls)

    def gaussian(self, schedules: Sequence[Schedule]) -> Array:  # (B,)
        """The closed-form distance; thousands of schedules a second."""
        scores = np.full(len(schedules), np.nan)
        plans = {b: plan for b, plan in self._plans(schedules).items() if _is_plain(plan)}
        if self._axes is None or not plans:
            return scores
        rows = max(plan.n_rows for plan in plans.values())
        for noisy in (False, True):  # apart: draws are further columns
            own = {b: plan for b, plan in plans.items() if bool(plan.noisy_rows) is noisy}
            n_parts = 3 + max((len(plan.noisy_rows) for plan in own.values()), default=0)
            size = max(1, _CHUNK_NUMBERS // (n_parts * rows * len(self._axes.modes)))
            numbers = list(own)
            for first in range(0, len(numbers), size):
                chunk = numbers[first : first + size]
                batch = PlanBatch([own[b] for b in chunk])
                with np.errstate(over="ignore", invalid="ignore"):
                    scores[chunk] = principal_distance(batch, self._axes)
        scores[~np.isfinite(scores)] = np.nan
        return scores

    def mixture(self, schedules: Sequence[Schedule]) -> Array:  # (B,)
        """The distance of what the mixture's samples become; some milliseconds per schedule."""
        scores = np.full(len(schedules), np.nan)
        if self._axes is None or self._features is None:
            return scores
        for b, plan in self._plans(schedules).items():
            if not _is_plain(plan):
                continue
            with torch.inference_mode():
                images = self._sampler.images(plan)
            features = self._extracted(images)
            if features is not None:
                scores[b] = self._distance(features)
        return scores

    def trajectory(
        self,
        schedules: Sequence[Schedule],
        n_images: int,
        noise_seed: int,
        *,
        pairing: Pairing = Pairing.FULL,
        in_pixels: bool = False,
    ) -> Array:  # (B,)
        """The distance to the fine solve; NFE network calls for each of the images.

        The fine solve's features are kept for the latest noises. Raises `EvaluationFailed` where
        the fine solve itself is not finite.
        """
        scores = np.full(len(schedules), np.nan)
        plans = {
            b: p for b, p in self._plans(schedules).items() if not (p.pixel_rows or p.noisy_rows)
        }
        if not plans:
            return scores
        fine = self._fine_solve(n_images, noise_seed, in_pixels)
        for b, plan in plans.items():
            found = self._network_features(plan, n_images, noise_seed, in_pixels)
            if found is not None:
                scores[b] = paired_distance(found, fine, pairing)
        return scores

    @cached_property
    def _axes(self) -> PrincipalAxes | None:
        images = self._fitted_images
        if images is None:
            return None
        try:
            return principal_axes(images, self._settings.n_directions)
        except IncompatibleStatistics:
            return None  # too few images, or all alike

    @cached_property
    def _sampler(self) -> MixtureSampler:
        axes, images = self._axes, self._fitted_images
        assert axes is not None and images is not None  # the callers looked
        k = self._settings.n_components
        denoiser = fit_mixture(axes, images, n_components=k, labels=self._fitted(self._labels))
        n = self._settings.mixture_images
        shape = (-(-n // 2), *self._denoiser.sample_shape)

        def drawn(row: int | None = None) -> Tensor:
            half = torch.randn(shape, generator=block_generator(_MIXTURE_SEED, 0, row))
            return torch.cat([half, -half])[:n]  # antithetic: ranks as well as twice as many

        cache, device = DenoiserCache(_CACHE_BYTES), self._noise.device
        return MixtureSampler(axes, denoiser, drawn().to(device), cache, step_noise=drawn)

    @property
    def _fitted_images(self) -> Tensor | None:
        images = self._images
        if images is None or tuple(images.shape[1:]) != tuple(self._denoiser.sample_shape):
            return None
        return self._fitted(images)

    def _fitted(self, values: Tensor | None) -> Tensor | None:
        """Those of the reference's images, or of their labels, that are fitted: evenly chosen."""
        if values is None or self._images is None:
            return None
        n, n_pixels = len(self._images), self._images[0].numel()
        most = _FIT_IMAGES if n_pixels <= _FIT_SIDE else _FIT_SIDE
        most = max(2, min(most, _FIT_NUMBERS // n_pixels, n))
        return values[torch.arange(most) * n // most]

    def _plans(self, schedules: Sequence[Schedule]) -> dict[int, Plan]:
        """The plans of those schedules that run without statistics and patches."""
        plans = {}
        for b, schedule in enumerate(schedules):
            if schedule.model_patch is not None:
                continue
            try:
                plan = compile_plan(schedule)
            except (InvalidSchedule, IncompatibleStatistics):
                continue
            check_process(self._denoiser, plan)
            plans[b] = plan
        return plans

    def _fine_solve(self, n_images: int, noise_seed: int, in_pixels: bool) -> Array:
        key = (n_images, noise_seed, in_pixels)
        if key not in self._fine:
            plan = fine_plan(self._denoiser.process, self._settings.fine_nfe)
            found = self._network_features(plan, n_images, noise_seed, in_pixels)
            if found is None:
                raise EvaluationFailed("the images of the fine solve are not finite")
            if len(self._fine) == _FINE_SOLVES_KEPT:
                del self._fine[next(iter(self._fine))]
            self._fine[key] = found
        return self._fine[key]

    def _network_features(
        self, plan: Plan, n_images: int, noise_seed: int, in_pixels: bool
    ) -> Array | None:  # (n, d)
        """Features, or pixels, of the images of a plan; None if they are not finite."""
        found = []

        @torch.inference_mode()
        def made(noise: Tensor, condition: dict[str, Tensor]) -> Tensor:
            if in_pixels and not isinstance(self._denoiser, OwnLoop):
                return sample(self._denoiser, plan, noise, **condition)
            return images_by(self._denoiser, plan, noise, condition)

        for noise, condition in self._noise.batches(noise_seed, n_images, self._batches.size):
            images = self._batches.over(made, noise, condition)
            self.network_calls += len(images) * network_batches(self._denoiser, plan)
            features = _finite(images.flatten(1)) if in_pixels else self._extracted(images)
            if features is None:
                return None
            found.append(features)
        return np.concatenate(found)

    def _extracted(self, images: Tensor) -> Array | None:
        """Features (n, d); None if images or features are not finite."""
        if not torch.isfinite(images).all():
            return None
        size = self._settings.batch_size
        assert self._features is not None  # pixels are taken where there are none
        with torch.inference_mode():
            batches = [self._features(batch) for batch in torch.split(images, size)]
        return _finite(torch.cat(batches))


def _finite(rows: Tensor) -> Array | None:
    found: Array = rows.double().cpu().numpy()
    return found if np.isfinite(found).all() else None


def _is_plain(plan: Plan) -> bool:
    """Whether the plan is numbers alone, without weights per pixel or a map of its start."""
    return not plan.pixel_rows and plan.start_map is None
