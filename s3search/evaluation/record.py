"""What a measurement is: the number and everything without which it means nothing."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from torch import Tensor

from s3search.errors import Failure
from s3search.metrics.intervals import interval_of
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.models.statistics import GaussianStatistics
from s3search.processes import NoiseProcess
from s3search.rules import EmsNodes
from s3search.schedules.layers import Layers
from s3search.schedules.schedule import Schedule

PolishLoss = Literal["frechet", "trajectory"]
"""What gradient descent lowers (`s3search.evaluation.polish.polishing`)."""


class Rung(StrEnum):
    """A fidelity level.  Candidates of one rung share their noise.

    Race is the search's own noise, left before its end, and the witness sees the images of the
    validation; no other rungs share noise.
    """

    RACE = "race"
    SEARCH = "search"
    FINALS = "finals"
    VALIDATION = "validation"
    WITNESS = "witness"  # the validation's images, as a second extractor sees them
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """One schedule to be measured.

    At each number of images in ``race`` the distance of the images so far is taken; where it is
    above the bar beside it the schedule is measured no further, and the evaluation is of
    `Rung.RACE`.
    """

    schedule: Schedule
    rung: Rung
    n_images: int
    noise_seed: int
    block_images: int | None = None  # also measure disjoint blocks of so many images
    race: tuple[tuple[int, float], ...] = ()  # (images, bar), images rising


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One measured result of one schedule with its provenance."""

    schedule_id: str
    nfe: int
    rung: Rung
    metric: str  # "frechet"
    extractor: str
    n_images: int
    noise_seed: int
    value: float
    standard_error: float | None
    block_images: int | None  # images in each of the disjoint blocks behind `block_value`
    block_value: float | None  # mean distance of those blocks: comparable to one of that size
    network_batches: (
        int  # batched network calls per image; guidance counts its doubled batch twice
    )
    seconds: float
    sampling_seconds: float
    device: str
    code_version: str
    reference_digest: str
    reference_n: int | None
    model_fingerprint: str
    path: tuple[tuple[int, float], ...] = ()  # (images, distance) at the bars of a race
    replicates: tuple[float, ...] | None = None  # see `s3search.metrics.intervals`
    witness: "Evaluation | None" = None  # the same images in the second extractor

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of ``value`` over other noise; None where too little is known."""
        return interval_of(self.value, self.standard_error, self.replicates)

    @property
    def network_calls(self) -> int:
        """Image-calls of the network spent on this number; a witness looks at images that are
        there.
        """
        return 0 if self.rung is Rung.WITNESS else self.n_images * self.network_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationRequest:
    """Several schedules to be measured with shared network calls."""

    requests: tuple[EvaluationRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmeasured:
    """Why one schedule of a population has no evaluation."""

    failure: Failure
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """What became of each request of a population, in their order.

    Seconds are shared by the network calls that each schedule made; together they are the
    worker's.
    """

    members: tuple[Evaluation | Unmeasured, ...]


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """Asks a worker what it has loaded; with ``layers`` also which blocks its network has, which
    takes calls on one image.
    """

    layers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a search must know of the model without loading it."""

    process: NoiseProcess
    sample_shape: tuple[int, int, int]
    extractor: str
    reference_digest: str
    reference_n: int | None
    model_fingerprint: str
    witness: tuple[str, str] | None  # extractor and reference digest of the second one
    mean_image: Any  # nested lists (C, H, W); None when the reference is not made of such images
    device: str
    batch_size: int  # images through the network at once
    ems: EmsNodes | None = None
    gaussian: GaussianStatistics | None = None
    own_sampler: OwnSampler | None = None  # of a pipeline
    takes_guidance: bool = False  # call by call
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
class ProxyRequest:
    """Asks what many schedules are worth by one proxy (`s3search.evaluation.proxies`)."""

    proxy: str  # "gaussian", "mixture", "trajectory"
    schedules: tuple[Schedule, ...]
    n_images: int  # of the trajectory
    noise_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyScores:
    """One score per schedule, nan where there is none, and the image-calls they took."""

    scores: tuple[float, ...]
    network_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishRequest:
    """Asks for a schedule with the times and coefficients that gradient descent makes of one."""

    schedule: Schedule
    iterations: int
    n_images: int  # fresh ones at every iteration, or sets of them in turn
    keep_invariants: bool
    noise_seed: int
    loss: PolishLoss = "frechet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Polished:
    """The schedule made, and the image-calls it took, forward and backward."""

    schedule: Schedule
    losses: tuple[float, ...]
    network_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorRequest:
    """Asks how far as many draws of the real images as a validation makes are from them all."""

    n_images: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The distance of real images, drawn with replacement, in one extractor: the metric's own
    bias at so many images, which no schedule should be expected to beat by much.
    """

    extractor: str
    reference_digest: str
    reference_n: int
    n_images: int
    seed: int
    value: float  # mean of `values`
    values: tuple[float, ...]  # one per resampling
    code_version: str


Request = (
    EvaluationRequest
    | PopulationRequest
    | DescribeRequest
    | ImagesRequest
    | ProxyRequest
    | PolishRequest
    | FloorRequest
)
Reply = Evaluation | Population | Description | Tensor | ProxyScores | Polished | tuple[Floor, ...]
