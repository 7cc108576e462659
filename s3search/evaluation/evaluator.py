"""A schedule in, an evaluation out: the model, the extractor and the reference, loaded once."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.evaluation.code_version import CODE_VERSION
from s3search.evaluation.decoding import network_batches, patched
from s3search.evaluation.extractor import (
    Extractor,
    baseline_of,
    estimate_of,
    load_extractor,
    load_second_metric,
    replicates_of,
)
from s3search.evaluation.live import LIVE, check_answer
from s3search.evaluation.measurement import Observed
from s3search.evaluation.memory import BatchSize
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish.differentiable import gradient_problem
from s3search.evaluation.polish.polishing import PolishSettings, polish
from s3search.evaluation.population import Measuring, measure_population
from s3search.evaluation.proxies import ProxyScorer
from s3search.evaluation.record import (
    CheckRequest,
    DescribeRequest,
    Description,
    ImagesRequest,
    PolishReply,
    Population,
    RealImageBaseline,
    Reply,
    Request,
)
from s3search.evaluation.reference import LoadedReference, load_reference
from s3search.evaluation.sampling import Sampler, batch_that_fits
from s3search.evaluation.sanity.checking import findings_of
from s3search.evaluation.spec import (
    PRECISIONS,
    EvaluatorSpec,
    device_of_spec,
    fingerprint,
    load_ems,
    load_gaussian,
    load_model,
    placed_model,
)
from s3search.metrics.frechet import FrechetReference, block_mean
from s3search.models.layer_skip import layers_of
from s3search.schedules.schedule import Schedule
from s3search.search.questions import (
    Measure,
    Measurement,
    Polish,
    RealImages,
    Rung,
    Score,
)

_BATCH_ELEMENTS = 2**20  # numbers in one batch of states, when no batch size is given
_LARGEST_BATCH = 1000


class Evaluator:
    """Measures schedules with one model, one extractor and one reference.

    >>> evaluator = Evaluator(spec)
    >>> evaluator.evaluate(measure(schedule, rung=Rung.SEARCH, n_images=1000, noise_seed=0))
    """

    def __init__(self, spec: EvaluatorSpec) -> None:
        self.device = device_of_spec(spec)
        self.denoiser = placed_model(load_model(spec), self.device, is_live=spec.model == LIVE)
        self._extractor = load_extractor(
            "metric.features",
            spec.features,
            spec.features_options,
            self.device,
            spec.live.features,
        )
        self.extractor = self._extractor.name
        shape = self.denoiser.sample_shape
        self._ems = None if spec.ems is None else load_ems(spec.ems, tuple(shape))
        named = spec.gaussian
        self._gaussian = None if named is None else load_gaussian(named, tuple(shape))
        automatic = max(1, min(_LARGEST_BATCH, _BATCH_ELEMENTS // int(np.prod(shape))))
        self._gradients = BatchSize(spec.batch_size or automatic, "following a gradient")
        self.noise = NoiseBank(self.denoiser, self.device)
        self.where = "model" if spec.model == LIVE else f"model.loader: {spec.model!r}"
        if spec.model == LIVE:
            check_answer(self.denoiser, *next(self.noise.batches(0, 2, 2)))
        size = spec.batch_size or batch_that_fits(
            self.denoiser, self.noise, automatic, _LARGEST_BATCH
        )
        self._sampler = Sampler(
            self.denoiser,
            self.noise,
            BatchSize(size, "sampling"),
            self._ems,
            PRECISIONS[spec.precision],
        )
        self._mean_image: Any = None
        loaded = self._loaded_reference(spec)
        self.reference_images = loaded.images
        self.reference, self.reference_source = loaded.statistics, loaded.source
        self._second = load_second_metric(
            spec.second_features,
            spec.second_options,
            self.device,
            loaded.images,
            self.batch_size,
            live=spec.live.second_features,
        )
        self.model_fingerprint = fingerprint(spec, self.denoiser)

    def __call__(self, request: Request) -> Reply:
        """Answers any request; raises `EvaluationFailed` with the reason where it cannot."""
        match request:
            case Measure():
                return self.evaluate(request)
            case Population():
                return self.population(request)
            case ImagesRequest():
                return self.images(request.schedule, request.n_images, request.noise_seed)
            case Score():
                return self._proxies.scores(request)
            case Polish():
                return self.polish(request)
            case RealImages():
                return self.real_images(request)
            case DescribeRequest():
                return self.describe(layers=request.layers)
            case CheckRequest():
                return findings_of(self)

    def describe(self, *, layers: bool = False) -> Description:
        """What is loaded here; ``layers``: with the network's blocks."""
        return Description(
            process=self.denoiser.process,
            sample_shape=tuple(self.denoiser.sample_shape),
            extractor=self.extractor,
            reference_digest=self.reference.digest,
            reference_n=self.reference.n,
            model_fingerprint=self.model_fingerprint,
            second_metric=None if self._second is None else self._second.names,
            mean_image=self._mean_image,
            device=str(self.device),
            batch_size=self.batch_size,
            ems=None if self._ems is None else self._ems.nodes,
            gaussian=self._gaussian,
            own_sampler=getattr(self.denoiser, "own_sampler", None),
            pipeline=getattr(self.denoiser, "pipeline", None),
            takes_guidance=getattr(self.denoiser, "takes_guidance", False),
            batches_per_call=int(getattr(self.denoiser, "network_batches_per_call", 1)),
            layers=layers_of(self.denoiser) if layers else None,
        )

    def batches(
        self, schedule: Schedule, n_images: int, noise_seed: int
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Images of a schedule in batches, on this device, with the conditions behind them."""
        drawn = self._sampler.batches(n_images, noise_seed)
        made = self._sampler.images(schedule, n_images, noise_seed)
        for images, batch in zip(made, drawn, strict=True):
            yield images, batch.condition

    @property
    def sides(self) -> list[tuple[Extractor, FrechetReference]]:
        """Every extractor with its view of the real images."""
        second = [] if self._second is None else [self._second]
        return [(self._extractor, self.reference), *((s.extractor, s.reference) for s in second)]

    @property
    def extract(self) -> Callable[[Tensor], Tensor]:
        """The extractor itself."""
        return self._extractor.features

    @property
    def batch_size(self) -> int:
        """Images made at once."""
        return self._sampler.batch_size

    def features(self, images: Tensor) -> Any:
        """Features (B, d) float64, on the CPU, of images on any device."""
        return self._extractor.seen(images)

    def evaluate(self, question: Measure) -> Measurement:
        """Measures one schedule, as far as its thresholds let it; at validation the second metric
        sees the same images.
        """
        began = time.perf_counter()
        sampling = of_second = 0.0
        second = self._second if question.rung is Rung.VALIDATION else None
        seen_by_second = []
        observed = Observed(question, self.reference)
        for images, seconds in self._sampler.timed(question):
            sampling += seconds
            observed.sees(self._extractor.seen(images))
            if second is not None:
                before = time.perf_counter()
                seen_by_second.append(second.extractor.seen(images))
                of_second += time.perf_counter() - before
            if observed.has_stopped:
                break
        found = replace(
            self._finished(observed),
            seconds=time.perf_counter() - began - of_second,
            sampling_seconds=sampling,
        )
        if second is None:
            return found
        return replace(found, second=second.says(found, seen_by_second, of_second))

    def population(self, population: Population) -> tuple[Measurement, ...]:
        """Measures several schedules with shared network calls; one that fails fails alone."""
        measuring = Measuring(
            sampler=self._sampler,
            extractor=self._extractor,
            reference=self.reference,
            alone=self.evaluate,
            finished=self._finished,
            network_batches=functools.partial(network_batches, self.denoiser),
        )
        return measure_population(population.questions, measuring)

    def _finished(self, observed: Observed) -> Measurement:
        """What was seen as a measurement, times aside."""
        question, matrix = observed.question, observed.features
        schedule = question.schedule
        estimate = estimate_of(self.reference, matrix)
        is_reported = question.rung in (Rung.VALIDATION, Rung.USER)
        return Measurement(
            question=question,
            distance=estimate.value,
            n_images=len(matrix),
            path=observed.path,
            standard_error=estimate.standard_error,
            block_value=block_mean(self.reference, matrix, question.block_images),
            replicates=replicates_of(self.reference, matrix) if is_reported else None,
            metric="frechet",
            extractor=self.extractor,
            reference_digest=self.reference.digest,
            reference_n=self.reference.n,
            model_fingerprint=self.model_fingerprint,
            network_batches=network_batches(
                patched(self.denoiser, schedule), self._sampler.plan(schedule)
            ),
            device=str(self.device),
            code_version=CODE_VERSION,
        )

    def real_images(self, question: RealImages) -> tuple[RealImageBaseline, ...]:
        """What real images have for a distance, in every extractor; nothing where the reference
        is a file of statistics.
        """
        images, size = self.reference_images, self.batch_size
        if images is None:
            return ()
        return tuple(baseline_of(*side, images, size, question) for side in self.sides)

    def polish(self, request: Polish) -> PolishReply:
        """A schedule after gradient descent on the distance itself, or on the trajectory's."""
        settings = PolishSettings.of(request, by_differences=self.gradient_problem is not None)
        return self._gradients.fitting(
            lambda batch_size: polish(
                self.denoiser,
                self._extractor.features,
                self.reference,
                request.schedule,
                settings,
                noise=self.noise,
                noise_seed=request.noise_seed,
                batch_size=batch_size,
            ),
            request.n_images,
        )

    def images(self, schedule: Schedule, n_images: int, noise_seed: int) -> Tensor:
        """The first ``n_images`` images (n, C, H, W) of a noise seed, on the CPU."""
        batches = self._sampler.images(schedule, n_images, noise_seed)
        return torch.cat([images.cpu() for images in batches])

    @cached_property
    def gradient_problem(self) -> str | None:
        """Why the distance has no gradient in the states of a schedule; None where it has."""
        (batch,) = self.noise.batches(0, 2, 2)
        return gradient_problem(self.denoiser, self._extractor.features, batch)

    @cached_property
    def _proxies(self) -> ProxyScorer:
        return ProxyScorer(
            self.denoiser,
            self._extractor.features,
            self.reference,
            self.reference_images,
            self.noise,
        )

    def _loaded_reference(self, spec: EvaluatorSpec) -> LoadedReference:
        found = load_reference(
            spec.reference,
            spec.reference_options,
            extractor=self.extractor,
            extracted=self.features,
            batch_size=self.batch_size,
            live=spec.live.reference,
        )
        images = found.images
        if images is not None and images.shape[1:] == tuple(self.denoiser.sample_shape):
            self._mean_image = images.double().mean(dim=0).tolist()
        return found
