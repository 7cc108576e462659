"""A schedule in, an evaluation out: the model, the extractor and the reference, loaded once."""

import functools
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from s3search.evaluation.code_version import CODE_VERSION
from s3search.evaluation.decoding import network_batches, patched
from s3search.evaluation.fine import solved_ahead
from s3search.evaluation.kept_solves import kept_solves
from s3search.evaluation.live import LIVE, check_answer
from s3search.evaluation.measurement import Observed
from s3search.evaluation.memory import BatchSize
from s3search.evaluation.metric import Loading, Metric, compares_finely, needs_fine_targets
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish.differentiable import gradient_problem
from s3search.evaluation.polish.guarding import GuardedBy
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
from s3search.evaluation.reference import load_reference
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
from s3search.metrics.frechet import FrechetReference
from s3search.metrics.statistic import FrechetStatistic
from s3search.models.layer_skip import layers_of
from s3search.schedules.schedule import Schedule
from s3search.search.questions import (
    FineSolves,
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
        shape = self.denoiser.sample_shape
        self._ems = None if spec.ems is None else load_ems(spec.ems, tuple(shape))
        named = spec.gaussian
        self._gaussian = None if named is None else load_gaussian(named, tuple(shape))
        automatic = max(1, min(_LARGEST_BATCH, _BATCH_ELEMENTS // int(np.prod(shape))))
        self._gradients = BatchSize(spec.batch_size or automatic, "following a gradient")
        self.model_fingerprint = fingerprint(spec, self.denoiser)
        solves = None
        if needs_fine_targets(spec):
            solves = kept_solves(self.denoiser, self.device, self.model_fingerprint, automatic)
        self.noise = NoiseBank(self.denoiser, self.device, fine_solve=solves)
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
        self.real = load_reference(spec.reference, spec.reference_options, spec.live.reference)
        loading = Loading.of(self.denoiser, self.device, self.batch_size, self.real)
        self.image_shape = loading.shape
        self.metric = loading.metric(spec.metric, spec.live.metric, is_first=True)
        live = spec.live.guards or (None,) * len(spec.guards)
        self.guards = tuple(loading.metric(*each) for each in zip(spec.guards, live, strict=True))
        self.second: Metric | None = None
        if spec.second is not None:
            self.second = loading.metric(spec.second, spec.live.second)

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
            case FineSolves():
                return solved_ahead(self.denoiser, self.noise, request)
            case RealImages():
                return self.real_images(request)
            case DescribeRequest():
                return self.describe(layers=request.layers)
            case CheckRequest():
                return findings_of(self)

    def describe(self, *, layers: bool = False) -> Description:
        """What is loaded here; ``layers``: with the network's blocks."""
        shape = tuple(self.denoiser.sample_shape)
        return Description(
            process=self.denoiser.process,
            sample_shape=shape,
            image_shape=self.image_shape,
            extractor=self.metric.view.name,
            reference_digest=self.metric.statistic.digest,
            reference_n=self.metric.statistic.n,
            model_fingerprint=self.model_fingerprint,
            second_metric=None if self.second is None else self.second.names,
            mean_image=None if self.real is None else self.real.mean_image(shape),
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
        self, schedule: Schedule, n_images: int, noise_seed: int, *, with_targets: bool = False
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Images of a schedule in batches, on this device, with the conditions behind them and, if
        ``with_targets``, what they are compared with.
        """
        batches = self._sampler.batches(n_images, noise_seed, with_targets=with_targets)
        return self._sampler.images(schedule, batches)

    @property
    def reference(self) -> FrechetReference | None:
        """Mean and covariance of real images in the first metric's features, where it is a
        Fréchet distance.
        """
        statistic = self.metric.statistic
        return statistic.reference if isinstance(statistic, FrechetStatistic) else None

    @property
    def metrics(self) -> list[Metric]:
        """All of them, that which decides first."""
        return [self.metric, *self.guards, *([] if self.second is None else [self.second])]

    @property
    def reference_images(self) -> Tensor | None:
        """Real images (N, ...), some of a large source; None where there are none."""
        return None if self.real is None else self.real.images

    @property
    def batch_size(self) -> int:
        """Images made at once."""
        return self._sampler.batch_size

    def evaluate(self, question: Measure) -> Measurement:
        """Measures one schedule, as far as its thresholds let it; at validation the second metric
        sees the same images.
        """
        began = time.perf_counter()
        sampling = of_second = 0.0
        second = self.second if question.rung is Rung.VALIDATION else None
        also = None if second is None else Observed(replace(question, thresholds=()), second)
        observed = Observed(question, self.metric, self.guards)
        solves = compares_finely(self.metric, *self.guards, second)
        for images, condition, seconds in self._sampler.timed(question, solves=solves):
            sampling += seconds
            observed.sees(images, condition)
            if also is not None:
                before = time.perf_counter()
                also.sees(images, condition)
                of_second += time.perf_counter() - before
            if observed.has_stopped:
                break
        found = replace(
            self._finished(observed),
            seconds=time.perf_counter() - began - of_second,
            sampling_seconds=sampling,
        )
        if also is None:
            return found
        before = time.perf_counter()
        seen = replace(
            self._finished(also), of_second=True, block_value=None, sampling_seconds=0.0
        )
        of_second += time.perf_counter() - before
        return replace(found, second=replace(seen, seconds=of_second))

    def population(self, population: Population) -> tuple[Measurement, ...]:
        """Measures several schedules with shared network calls; one that fails fails alone."""
        measuring = Measuring(
            sampler=self._sampler,
            metric=self.metric,
            guards=self.guards,
            alone=self.evaluate,
            finished=self._finished,
            network_batches=functools.partial(network_batches, self.denoiser),
        )
        return measure_population(population.questions, measuring)

    def _finished(self, observed: Observed) -> Measurement:
        """What was seen as a measurement, times aside."""
        question, seen, metric = observed.question, observed.seen, observed.metric
        schedule = question.schedule
        is_reported = question.rung in (Rung.VALIDATION, Rung.USER)
        estimate, replicates = metric.measured(seen, is_reported=is_reported)
        return Measurement(
            question=question,
            estimate=estimate.value,
            direction=metric.direction,
            n_images=len(seen),
            path=observed.path,
            standard_error=estimate.standard_error,
            block_value=metric.block_mean(seen, question.block_images),
            replicates=replicates,
            guards=observed.by_guards,
            guard_errors=observed.guard_errors,
            metric=metric.kind,
            extractor=metric.view.name,
            reference_digest=metric.statistic.digest,
            reference_n=metric.statistic.n,
            model_fingerprint=self.model_fingerprint,
            network_batches=network_batches(
                patched(self.denoiser, schedule), self._sampler.plan(schedule)
            ),
            device=str(self.device),
            code_version=CODE_VERSION,
        )

    def real_images(self, question: RealImages) -> tuple[RealImageBaseline, ...]:
        """What the metrics give real images, as far as they give them anything; nothing where the
        reference is a file of statistics.
        """
        images, size = self.reference_images, self.batch_size
        if images is None:
            return ()
        each = [metric.real_images(images, size, question) for metric in self.metrics]
        return tuple(found for found in each if found is not None)

    def polish(self, request: Polish) -> PolishReply:
        """A schedule after gradient descent on the metric itself, or on the trajectory's error."""
        settings = PolishSettings.of(
            request,
            by_differences=self.gradient_problem is not None,
            fine_targets=self.metric.fine_targets,
            target="pixels" if self.metric.kind == "score" else "features",
        )
        guarded_by = None
        if request.beside is not None:
            published = self._sampler.plan(request.beside.schedule)
            guarded_by = GuardedBy(guards=request.guards, metrics=self.guards, published=published)
        return self._gradients.fitting(
            lambda batch_size: polish(
                self.denoiser,
                self.metric,
                request.schedule,
                settings,
                noise=self.noise,
                noise_seed=request.noise_seed,
                batch_size=batch_size,
                guarded_by=guarded_by,
            ),
            request.n_images,
        )

    def images(self, schedule: Schedule, n_images: int, noise_seed: int) -> Tensor:
        """The first ``n_images`` images (n, ...) of a noise seed, on the CPU."""
        return torch.cat(
            [images.cpu() for images, _ in self.batches(schedule, n_images, noise_seed)]
        )

    @cached_property
    def gradient_problem(self) -> str | None:
        """Why the metric has no gradient in the states of a schedule; None where it has."""
        (batch,) = self.noise.batches(0, 2, 2, with_targets=True, solves=False)
        return gradient_problem(self.denoiser, self.metric.view, batch, self.metric.with_stand_in)

    @cached_property
    def _proxies(self) -> ProxyScorer:
        return ProxyScorer.of(self.denoiser, self.metric, self.reference_images, self.noise)
