"""Images of schedules: of one in batches, or of several that share their network calls.

Predictions of the network as it is are kept: a schedule that begins as an earlier one did, or as
another of its population, does not ask for them again (`s3search.evaluation.denoiser_cache`).
"""

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.evaluation.decoding import OwnLoop, images_of, patched
from s3search.evaluation.denoiser_cache import DenoiserCache
from s3search.evaluation.memory import BatchSize, room_on, size_for_memory
from s3search.evaluation.noise import NoiseBank, for_network
from s3search.evaluation.record import statistics_problem
from s3search.rules import EmsStatistics
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Measure, Rung
from s3search.solvers.plan import Plan, compile_plan
from s3search.solvers.sample import Denoiser, joined, sample_population

Condition = dict[str, Tensor]

Made = tuple[Tensor, Condition]
"""Images (b, ...), and what each was made for."""

_PROBES = 4  # images
_ALIKE = 0.1  # of what another time changes
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images-to-be: whose noise they are, and the place of the first in it."""

    source: tuple[int, bool]  # noise seed, held-out conditions
    first: int
    noise: Tensor  # (b, ...)
    condition: Condition  # (b, ...) each

    @property
    def name(self) -> str:
        """Different for all images that may differ."""
        return repr((*self.source, self.first, len(self.noise)))

    def part(self, part: slice) -> "Batch":
        """Some of them."""
        condition = {key: value[part] for key, value in self.condition.items()}
        return Batch(self.source, self.first + part.start, self.noise[part], condition)


class Sampler:
    """One denoiser with its noise, and how many images go through it at once.

    ``precision`` None leaves the network in the numbers that it has.
    """

    def __init__(
        self,
        denoiser: Any,
        noise: NoiseBank,
        batches: BatchSize,
        ems: EmsStatistics | None,
        precision: torch.dtype | None = None,
    ) -> None:
        self._denoiser, self._noise, self._batches, self._ems = denoiser, noise, batches, ems
        self._precision = precision
        self._cache = DenoiserCache(room_on(noise.device))
        self._reads_every_time: bool | None = None  # unknown

    @property
    def batch_size(self) -> int:
        """Images through the network at once."""
        return self._batches.size

    def plan(self, schedule: Schedule) -> Plan:
        """The schedule's table; raises `EvaluationFailed` where statistics for it are missing."""
        problem = statistics_problem(schedule, None if self._ems is None else self._ems.nodes)
        if problem is not None:
            raise EvaluationFailed(problem)
        return compile_plan(schedule, self._ems)

    def batches(
        self,
        n_images: int,
        noise_seed: int,
        cuts: Sequence[int] = (),
        *,
        held_out: bool = False,
        with_targets: bool = False,
        solves: bool = True,
    ) -> Iterator[Batch]:
        """The noise of all images and what these are conditioned on, and compared with if
        ``with_targets``, which are solved finely where need be only if it ``solves``; a batch ends
        at each cut.
        """
        size, which = self.batch_size, {"held_out": held_out, "with_targets": with_targets}
        which["solves"] = solves
        drawn = self._noise.batches(noise_seed, n_images, size, cuts, **which)
        first = 0
        for noise, condition in drawn:
            yield Batch((noise_seed, held_out), first, noise, condition)
            first += len(noise)

    def images(self, schedule: Schedule, batches: Iterable[Batch]) -> Iterator[Made]:
        """Images (b, ...) of one schedule, with their conditions; raises
        `EvaluationFailed`.
        """
        plan = self.plan(schedule)
        for batch in batches:
            (images,) = self.images_of_many([plan], batch, schedule)
            if not torch.isfinite(images).all():
                raise EvaluationFailed("the images are not finite")
            yield images, batch.condition

    def timed(
        self, question: Measure, *, solves: bool = True
    ) -> Iterator[tuple[Tensor, Condition, float]]:
        """Images (b, ...) of a question, their conditions and targets, and the seconds that
        they took.
        """
        cuts = [n for n, _ in question.thresholds]
        batches = self.batches(
            question.n_images,
            question.noise_seed,
            cuts,
            held_out=question.rung is Rung.VALIDATION,
            with_targets=True,
            solves=solves,
        )
        images, device = self.images(question.schedule, batches), self._noise.device
        while True:
            began = time.perf_counter()
            made = next(images, None)
            if made is None:
                return
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            yield *made, time.perf_counter() - began

    def images_of_many(
        self, plans: Sequence[Plan], batch: Batch, schedule: Schedule | None = None
    ) -> list[Tensor]:
        """Images (b, ...) of each plan, which may not be finite: of the network as it is, or
        as ``schedule`` changes it.
        """
        is_patched = schedule is not None and schedule.model_patch is not None

        @torch.inference_mode()
        def made(members: slice, part: slice) -> list[Tensor]:
            own, few, denoiser = plans[members], batch.part(part), self._denoiser
            if schedule is not None:
                denoiser = patched(denoiser, schedule)  # for one trajectory, so anew each time
            cache = None if is_patched else self._cache
            try:
                given = for_network(few.condition)
                draws = self._noise.step_noise(few.source[0], few.first)
                if isinstance(denoiser, OwnLoop):
                    with self._digits():
                        return [
                            denoiser.images_of_plan(plan, few.noise, draws, given) for plan in own
                        ]
                samples = sample_population(
                    self._network(denoiser), own, few.noise, cache, few.name, draws, **given
                )
                return list(images_of(self._denoiser, joined(samples)).chunk(len(own)))
            except torch.cuda.OutOfMemoryError:
                self._cache.clear()
                raise

        return self._batches.over_each(made, len(plans), len(batch.noise))

    def _digits(self) -> AbstractContextManager[Any]:
        """Where products are of as many digits as are asked for."""
        if self._precision is None:
            return nullcontext()
        return torch.autocast(self._noise.device.type, dtype=self._precision)

    def _network(self, denoiser: Any) -> Denoiser:
        if self._precision is None:
            return cast(Denoiser, denoiser)
        return _Autocast(denoiser, self._noise.device, self._precision)

    def can_stack(self, plans: Sequence[Plan], noise_seed: int) -> bool:
        """Whether the denoiser reads each image's own time; tried once, with three calls on a few
        images.

        A denoiser that reads the first of its times alone makes right images of one schedule and
        wrong ones of several.
        """
        probes = min(_PROBES, self.batch_size // 2)
        times = sorted({t for plan in plans for t in plan.network_times})
        if self._reads_every_time is None and probes and len(times) > 1:
            noise, condition = next(iter(self._noise.batches(noise_seed, probes, probes)))
            ends = (times[-1], times[0])
            self._reads_every_time = _reads_every_time(
                self._network(self._denoiser), noise, condition, ends
            )
            if not self._reads_every_time:
                warnings.warn(
                    "the model answers all images at the time of the first: schedules are "
                    "evaluated one by one. Read t as the tensor (B,) that it is, or set "
                    "cluster.population to 1",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return self._reads_every_time is not False


class _Autocast:
    """A denoiser whose products run in fewer digits; what it takes and gives stays as it is."""

    def __init__(self, denoiser: Denoiser, device: torch.device, dtype: torch.dtype) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self._denoiser, self._device, self._dtype = denoiser, device, dtype

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        with torch.autocast(self._device.type, dtype=self._dtype):
            return self._denoiser(x, t, **condition).to(x.dtype)


@torch.inference_mode()
def _reads_every_time(
    denoiser: Denoiser, noise: Tensor, condition: Condition, times: tuple[float, float]
) -> bool:
    """Whether predictions at the second time are alike behind images at the first."""
    n, process = len(noise), denoiser.process
    first, second = (noise.new_full((n,), t) for t in times)
    x, far = (noise * float(process.sigma(t)) for t in reversed(times))
    alone, other = (denoiser(x, t, **condition) for t in (second, first))
    twice = {key: torch.cat([value, value]) for key, value in condition.items()}
    both = denoiser(torch.cat([far, x]), torch.cat([first, second]), **twice)[n:]
    off, apart, size = (float(y.float().norm()) for y in (both - alone, other - alone, alone))
    return off <= _ALIKE * apart + _ROUNDING * size


def batch_that_fits(denoiser: Any, noise: NoiseBank, least: int, most: int) -> int:
    """As many images as fit on the noise's device if it is a GPU, at least ``least``; running out
    of memory later halves it still.
    """
    device = noise.device
    if device.type != "cuda":
        return least

    @torch.inference_mode()
    def peak_of(n_images: int) -> int:
        x, condition = next(iter(noise.batches(0, n_images, n_images)))
        t = x.new_full((n_images,), denoiser.process.time_range[1])
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        denoiser(x, t, **condition)
        return torch.cuda.max_memory_allocated(device) - before

    try:
        free = torch.cuda.mem_get_info(device)[0]
        return max(least, size_for_memory(peak_of, free, most))
    except torch.cuda.OutOfMemoryError:
        return least
