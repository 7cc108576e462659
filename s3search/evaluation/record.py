"""What only workers are asked, and what they reply; `s3search.search.questions` has the rest."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor

from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.models.statistics import GaussianStatistics
from s3search.processes import NoiseProcess
from s3search.rules import EmsNodes
from s3search.schedules.layers import Layers
from s3search.schedules.schedule import Schedule
from s3search.search.questions import (
    FineSolves,
    Measure,
    Measurement,
    Polish,
    PolishResult,
    RealImages,
    Score,
)
from s3search.solvers.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Several schedules to be measured with shared network calls."""

    questions: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """Asks a worker what it has loaded; with ``layers`` also which blocks its network has, which
    takes calls on one image.
    """

    layers: bool = False


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Asks a worker whether what it has loaded is what the study takes it for."""


class Status(StrEnum):
    """What one check came to."""

    OK = "ok"
    ABSENT = "absent"  # it does not work here, which makes no measurement wrong
    WARNING = "warning"  # it looks bad, and may be so
    ERROR = "error"  # every measurement would be wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check, what it came to, and what was seen."""

    check: str
    status: Status
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a search must know of the model without loading it."""

    process: NoiseProcess
    sample_shape: Shape
    image_shape: Shape  # of what metrics see of a sample
    extractor: str
    reference_digest: str
    reference_n: int | None
    model_fingerprint: str
    second_metric: tuple[str, str] | None  # extractor and reference digest
    mean_image: Any  # nested lists of that shape; None without such real images
    device: str
    batch_size: int  # images through the network at once
    ems: EmsNodes | None = None
    gaussian: GaussianStatistics | None = None
    own_sampler: OwnSampler | None = None  # of a pipeline
    pipeline: str | None = None  # its class
    takes_guidance: bool = False  # call by call
    batches_per_call: int = 1  # through the network; 2 where guidance doubles them
    layers: Layers | None = None  # where they were asked for

    @property
    def statistics(self) -> dict[str, str | None]:
        """Digests of the statistics that the study file names."""
        named = {"ems": self.ems, "gaussian": self.gaussian}
        return {kind: None if own is None else own.digest for kind, own in named.items()}


def statistics_problem(schedule: Schedule, ems: EmsNodes | None) -> str | None:
    """Why the v3 steps of ``schedule`` cannot be computed with the statistics of a study."""
    named = schedule.statistics
    if named is None or (ems is not None and ems.digest == named.digest):
        return None
    if ems is None:
        return (
            f"statistics: the schedule needs {named.kind} statistics {named.digest}, the study "
            "names none; set `ems` in its table [statistics] to their file"
        )
    return (
        f"statistics: the schedule was made with {named.kind} statistics {named.digest}, those "
        f"of the study are {ems.digest}; name the file that the schedule was made with"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesRequest:
    """Asks for the first images of a noise seed."""

    schedule: Schedule
    n_images: int
    noise_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyScores:
    """One score per schedule, nan where there is none, and the image-calls they took."""

    scores: tuple[float, ...]
    network_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishReply:
    """The schedule made, and the image-calls it took, forward and backward."""

    made: PolishResult
    network_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvesReply:
    """How many images were solved finely, and the image-calls that they took."""

    n_solved: int
    network_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RealImageBaseline:
    """What a metric gives real images, drawn with replacement, in one extractor: its own bias at
    so many images, which no schedule should be expected to beat by much.
    """

    metric: str  # its kind
    extractor: str
    reference_digest: str
    reference_n: int
    n_images: int
    seed: int
    value: float  # mean of `values`
    values: tuple[float, ...]  # one per resampling
    code_version: str


Request = (
    Measure
    | Population
    | DescribeRequest
    | CheckRequest
    | ImagesRequest
    | Score
    | Polish
    | RealImages
    | FineSolves
)
Reply = (
    Measurement
    | tuple[Measurement, ...]
    | Description
    | Tensor
    | ProxyScores
    | PolishReply
    | SolvesReply
    | tuple[RealImageBaseline, ...]
    | tuple[Finding, ...]
)
