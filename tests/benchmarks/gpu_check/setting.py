"""What a run of the check is made with, and what a row of its table says."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.spec import EvaluatorSpec, Precision
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Measure, Rung, measure
from tests.support.specs import evaluator_spec

_HERE = "tests.benchmarks.gpu_check.network"


class Verdict(StrEnum):
    """What became of a claim."""

    PASS = "pass"
    FAIL = "fail"
    NOT_HERE = "not here"  # it cannot be tried on this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim, what was found, and why that is the verdict."""

    check: str
    verdict: Verdict
    found: str
    why: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large network, features and evaluations are."""

    channels: int
    blocks: int
    dimensions: int  # of the features
    n_images: int  # of an evaluation
    n_features: int  # images in the distances without a network
    n_schedules: int  # whose ranks are compared
    n_ranked: int  # images of each of them
    n_polished: int  # images of an iteration of a polish
    is_timed: bool  # large enough that seconds say something


SIZES = {
    "cuda": Size(
        channels=128,
        blocks=4,
        dimensions=2048,
        n_images=1000,
        n_features=50_000,
        n_schedules=24,
        n_ranked=500,
        n_polished=8,
        is_timed=True,
    ),
    "cpu": Size(
        channels=32,
        blocks=1,
        dimensions=2048,
        n_images=16,
        n_features=4096,
        n_schedules=8,
        n_ranked=4,
        n_polished=8,
        is_timed=True,
    ),
    "quick": Size(
        channels=16,
        blocks=1,
        dimensions=48,
        n_images=8,
        n_features=128,
        n_schedules=2,
        n_ranked=2,
        n_polished=4,
        is_timed=False,
    ),
}
NFE = 5
NO_BFLOAT16 = "this CPU has no instructions for bfloat16 and imitates it, far slower"
TOO_SMALL = "--quick is too small to tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A device and a size."""

    device: torch.device
    size: Size

    @property
    def is_gpu(self) -> bool:
        """Whether the device is one."""
        return self.device.type == "cuda"

    def spec(
        self, *, precision: Precision = "float32", batch_size: int | None = None, **model: Any
    ) -> EvaluatorSpec:
        """What an evaluator is built of; ``model`` are options of the denoiser's loader."""
        return evaluator_spec(
            model=f"{_HERE}:denoiser",
            model_options={"channels": self.size.channels, "blocks": self.size.blocks, **model},
            features=f"{_HERE}:features",
            features_options={"dimensions": self.size.dimensions},
            reference=f"{_HERE}:images",
            reference_options={"n": 2 * self.size.n_images},
            device=self.device.type,
            batch_size=batch_size,
            precision=precision,
        )

    def evaluator(self, **options: Any) -> Evaluator:
        """With the options of `spec`."""
        return Evaluator(self.spec(**options))

    def question(self, schedule: Schedule | None = None, n_images: int | None = None) -> Measure:
        """A measurement of an evaluation's images, on noise that all have in common; of a new
        schedule that shares no call with others unless one is given.
        """
        return measure(
            next(_SCHEDULES) if schedule is None else schedule,
            rung=Rung.SEARCH,
            n_images=n_images or self.size.n_images,
            noise_seed=0,
        )

    def seconds(self, work: Callable[[], object]) -> float:
        """How long something takes on the device."""
        self.finish()
        began = time.perf_counter()
        work()
        self.finish()
        return time.perf_counter() - began

    @property
    def has_bfloat16(self) -> bool:
        """Whether the device computes in it, and does not imitate it many times slower."""
        return self.is_gpu or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def finish(self) -> None:
        """Waits until the device has done what it was asked."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)


def _schedules() -> Iterator[Schedule]:
    """DPM-Solver++(2M)'s, each from a level of its own."""
    base = published.dpmpp_2m(edm(), nfe=NFE)
    for i in itertools.count():
        times = [base.times[0] * (1.0 - 1e-6 * i), *base.times[1:]]
        yield Schedule(process=base.process, times=times, steps=base.steps)


_SCHEDULES = _schedules()


def value_of(evaluator: Evaluator, question: Measure) -> float:
    """The distance that an evaluation gives; raises AssertionError where it gives none."""
    found = evaluator.evaluate(question)
    assert found.estimate is not None, found.error
    return found.estimate


def mebibytes(n: float) -> str:
    """Bytes for people."""
    return f"{n / 2**20:,.1f} MiB"
