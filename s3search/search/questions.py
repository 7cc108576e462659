"""What a search asks, and the answers: frozen data, from the search to a worker and back.

    Measure     how good are a schedule's images by the metric?         -> Measurement
    Score       how good are these schedules by a proxy?                -> Answer of floats
    Polish      what does gradient descent make of this schedule?       -> Answer of a schedule
    RealImages  what does the metric give real images?                  -> Answer of baselines
    FineSolves  what do many calls make of these noises?                -> Answer of a number
    Recall      what was decided here before?                           -> Decision, or None

A question is known by its ``key``.  Whoever keeps a log answers from it what was asked before, so
a search that is run again from its beginning hears the same and asks for the same.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from s3search.schedules.schedule import Schedule
from s3search.search.direction import Direction
from s3search.search.guard import Guard
from s3search.search.trial import Trial, seeded
from s3search.solvers.step_noise import BLOCK
from s3search.solvers.trainable import Freedom

PolishLoss = Literal["metric", "trajectory"]
"""What gradient descent lowers (`s3search.evaluation.polish`)."""

SOLVES, HELD_OUT_SOLVES = "solves", "held_out_solves"
"""Kinds of fine solves: of a search's noises, and of those of a validation."""

FINE_NFE = 32
"""Calls of the fine solve, DPM-Solver++(2M), that a trajectory's error is taken from."""

TRAJECTORY_TARGETS = 4
"""Sets of images that take turns as targets of the loss "trajectory"."""

_CHECKS = (8, 4)  # one set of noise for so many iterations, at most so many

Thresholds = tuple[tuple[int, float], ...]
"""(images, loss): a schedule whose loss of so many images is larger is measured no further."""


def polish_checks(iterations: int) -> int:
    """Sets of noise, as many images each as an iteration has, on which a polishing compares its
    end with its start; one costs what an iteration does, forward and backward.
    """
    one_in, most = _CHECKS
    return min(max(1, iterations // one_in), most)


class Rung(StrEnum):
    """A fidelity level.  Candidates of one rung share their noise.

    What stopped early saw the search's own noise, and the second metric sees the images of the
    validation; no other rungs share noise.
    """

    STOPPED = "race"  # on the search's noise, stopped early
    SEARCH = "search"
    FINALS = "finals"
    VALIDATION = "validation"
    SECOND_METRIC = "witness"  # the validation's images, as a second extractor sees them
    USER = "user"


SEARCHING = (Rung.SEARCH.value, Rung.STOPPED.value)
"""The stored rungs of measurements on the search's own noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How good the images of one schedule are by the study's metric.

    At each number of images in ``thresholds`` the loss of the images so far is taken; where it is
    above the number beside it the schedule is measured no further, and the measurement is of
    `Rung.STOPPED`.
    """

    trial: Trial
    rung: Rung
    n_images: int
    noise_seed: int
    block_images: int | None = None  # also measure disjoint blocks of so many images
    thresholds: Thresholds = ()  # images rising
    is_whole: bool = False  # a measurement that stopped early is no answer
    key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        asked = (self.rung.value, self.trial.id, self.n_images, self.noise_seed)
        object.__setattr__(self, "key", measure_key(*asked, is_whole=self.is_whole))

    @property
    def schedule(self) -> Schedule:
        """The trial's schedule."""
        return self.trial.schedule


def measure_key(
    rung: str, schedule_id: str, n_images: int, noise_seed: int | str, *, is_whole: bool = False
) -> str:
    """The key of a `Measure`: all that its answer depends on within a study."""
    return f"{rung} {schedule_id} {n_images} {noise_seed}" + " whole" * is_whole


def measure(
    schedule: Schedule,
    *,
    rung: Rung,
    n_images: int,
    noise_seed: int,
    thresholds: Thresholds = (),
    block_images: int | None = None,
) -> Measure:
    """The question how good a schedule is, outside any search."""
    return Measure(
        trial=Trial.of(schedule, seeded("given")),
        rung=rung,
        n_images=n_images,
        noise_seed=noise_seed,
        thresholds=thresholds,
        block_images=block_images,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What became of a `Measure`: an estimate of the metric with everything without which it means
    nothing, or the reason why there is none.
    """

    question: Measure
    estimate: float | None = None  # of `n_images` images; None where it failed
    direction: Direction = Direction.MINIMIZE  # of the metric
    error: str | None = None
    n_images: int = 0  # seen; fewer than asked for where it stopped early
    is_paid: bool = False  # by an earlier search of the study: it costs this one nothing
    path: Mapping[int, float] = field(default_factory=dict)  # estimates at the thresholds
    standard_error: float | None = None
    block_value: float | None = None  # mean estimate of blocks of `question.block_images`
    replicates: tuple[float, ...] | None = None  # see `s3search.metrics.intervals`
    guards: tuple[float, ...] = ()  # what each guard gives the same images; none if stopped early
    guard_errors: tuple[float | None, ...] = ()  # of `guards`, of what a person asks for alone
    broken: tuple[str, ...] = ()  # guards for which a search takes it for what did not work
    second: "Measurement | None" = None  # the same images by the second metric
    of_second: bool = False  # whether this is one of the second metric
    metric: str | None = None  # its kind: "frechet", "kernel", "score", ...
    extractor: str | None = None
    reference_digest: str | None = None
    reference_n: int | None = None
    model_fingerprint: str | None = None
    network_batches: int = 0  # batched calls per image; guidance counts its doubled batch twice
    sampling_seconds: float | None = None
    seconds: float = 0.0  # of the worker
    worker: str = ""
    device: str | None = None
    code_version: str | None = None

    @property
    def trial(self) -> Trial:
        """What was measured."""
        return self.question.trial

    def numbered(self, number: int) -> "Measurement":
        """This measurement with its trial under a number."""
        trial = self.trial.numbered(number)
        return (
            self
            if trial is self.trial
            else replace(self, question=replace(self.question, trial=trial))
        )

    @property
    def value(self) -> float | None:
        """The metric of all images; None where it failed or stopped early."""
        return self.estimate if self.n_images == self.question.n_images else None

    @property
    def loss(self) -> float | None:
        """What a search compares by, the lower the better; None as `value`."""
        return None if self.value is None else self.direction.loss(self.value)

    @property
    def losses(self) -> Mapping[int, float]:
        """The losses at the thresholds, by number of images."""
        return {n: self.direction.loss(value) for n, value in self.path.items()}

    @property
    def rung(self) -> Rung:
        """The rung that the estimate is of."""
        if self.of_second:
            return Rung.SECOND_METRIC
        stopped = self.estimate is not None and self.value is None
        return Rung.STOPPED if stopped else self.question.rung

    @property
    def cost(self) -> int:
        """Images that the search pays for; a failure costs all that were asked for."""
        if self.is_paid:
            return 0
        return self.question.n_images if self.estimate is None else self.n_images

    @property
    def network_calls(self) -> int:
        """Image-calls of the network; a second metric looks at images that are there."""
        return 0 if self.of_second else self.n_images * self.network_batches

    def table(self) -> dict[str, Any]:
        """The measurement as a flat table, without the worker: what the database keeps of it, and
        what ``--json`` prints.
        """
        question = self.question
        blocks = None if self.of_second else question.block_images
        return {
            "schedule_id": self.trial.id,
            "nfe": self.trial.nfe,
            "rung": self.rung.value,
            "metric": self.metric,
            "extractor": self.extractor,
            "n_images": question.n_images if self.estimate is None else self.n_images,
            "noise_seed": question.noise_seed,
            "value": self.estimate,
            "standard_error": self.standard_error,
            "block_images": blocks,
            "block_value": self.block_value,
            "network_batches": self.network_batches,
            "network_calls": self.network_calls,
            "seconds": self.seconds,
            "sampling_seconds": self.sampling_seconds,
            "device": self.device,
            "code_version": self.code_version,
            "reference_digest": self.reference_digest,
            "reference_n": self.reference_n,
            "model_fingerprint": self.model_fingerprint,
            "path": list(self.path.items()),
            "replicates": None if self.replicates is None else list(self.replicates),
            "guards": list(self.guards) or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good many schedules are by one proxy (`s3search.evaluation.proxies`); the value is a
    number for each, nan where there is none.
    """

    proxy: str  # "gaussian", "mixture", "trajectory"
    trials: tuple[Trial, ...]
    n_images: int = 0  # of the trajectory
    noise_seed: int = 0

    @property
    def kind(self) -> str:
        """The proxy's name."""
        return self.proxy

    @property
    def key(self) -> str:
        """A digest of proxy and schedules; the images and noise of a proxy are the study's."""
        return _digest(self.proxy, *(trial.id for trial in self.trials))

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules of the trials."""
        return tuple(trial.schedule for trial in self.trials)

    @property
    def nfe(self) -> int:
        """Calls of the first schedule."""
        return max(1, self.trials[0].nfe)

    @staticmethod
    def to_json(value: Any) -> Any:
        """The scores as a list; JSON has no nan."""
        return [score if math.isfinite(score) else None for score in value]

    @staticmethod
    def of_json(content: Any) -> tuple[float, ...]:
        """The scores of a list."""
        return tuple(math.nan if score is None else score for score in content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polish:
    """The schedule with the times and coefficients that gradient descent makes of one; the value
    is a schedule.
    """

    trial: Trial
    iterations: int
    n_images: int  # fresh ones at every iteration, or sets of them in turn
    seed: int  # tells apart polishings of one schedule
    noise_seed: int
    keep_invariants: bool = False
    loss: PolishLoss = "metric"
    fixed: tuple[Freedom, ...] = ()  # what of its table does not move
    keeps_steps: bool = False  # levels alone move, and the steps follow by their own rules
    whole_steps: bool = False  # the levels are whole training steps in the end
    guards: tuple[Guard, ...] = ()  # that the end must keep
    beside: Trial | None = None  # what the guards are measured by

    kind = "polish"

    @property
    def schedule(self) -> Schedule:
        """Where the gradient descent begins."""
        return self.trial.schedule

    @property
    def key(self) -> str:
        """A digest of all that is asked but the study's first noise seed."""
        asked: tuple[object, ...] = (self.iterations, self.n_images, self.seed)
        asked = (*asked, self.keep_invariants)
        if self.loss != "metric":
            asked = (*asked, self.loss)
        if self.fixed or self.keeps_steps:
            asked = (*asked, *self.fixed, self.keeps_steps, self.whole_steps)
        if self.beside is not None:
            asked = (*asked, self.beside.id, *(guard.times for guard in self.guards))
            apart = [guard.worse_by for guard in self.guards]
            asked = (*asked, *apart) if any(apart) else asked
        return _digest("polish", self.trial.id, *asked)

    @property
    def nfe(self) -> int:
        """Calls of the schedule."""
        return self.trial.nfe

    @staticmethod
    def to_json(value: Any) -> Any:
        """The schedule and the losses on the way."""
        found = {"schedule": value.schedule.to_dict(), "losses": list(value.losses)}
        return found | ({"guard_images": value.guard_images} if value.guard_images else {})

    @staticmethod
    def of_json(content: Any) -> "PolishResult":
        """The schedule and the losses of a dictionary."""
        schedule = Schedule.from_dict(content["schedule"])
        images = content.get("guard_images", 0)
        losses = tuple(content["losses"])
        return PolishResult(schedule=schedule, losses=losses, guard_images=images)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishResult:
    """The schedule that gradient descent made, and one loss for each iteration."""

    schedule: Schedule
    losses: tuple[float, ...]
    guard_images: int = 0  # that its guards looked at, fine solves by their calls


@dataclass(frozen=True, slots=True, kw_only=True)
class RealImages:
    """What the metric gives as many draws of the real images as a validation makes images, in
    every extractor: the `RealImageBaseline` of each.
    """

    n_images: int
    seed: int
    metrics: tuple[Any, ...] = ()  # as the study file names them

    kind = "floor"
    nfe = 1

    @property
    def key(self) -> str:
        """A digest of the number of images, seed and metrics."""
        return _digest("floor", self.n_images, self.seed, *self.metrics)

    @staticmethod
    def to_json(value: Any) -> Any:
        """Plain tables, one for each extractor."""
        return list(value)

    @staticmethod
    def of_json(content: Any) -> tuple[Mapping[str, Any], ...]:
        """The tables of a list."""
        return tuple(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What a search decided at this place before, if the log kept it; deciding it again would
    give the same.  The answer is a `Decision`, or None.

    ``key`` is the number of one trial, or the name of a decision that was noted with
    `s3search.search.conversation.Talk.decided`.
    """

    key: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Trials that were chosen together, and what the search knew of them, in plain data."""

    trials: tuple[Trial, ...]
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FineSolves:
    """The fine solves of the noises of some images, made before anything is compared with them;
    the value is how many had to be made, and were not kept from before.
    """

    first: int  # of the images
    n_images: int
    noise_seed: int
    held_out: bool  # of the conditions that a model keeps for validation, which a search never has
    nfe: int  # calls of the schedules that are compared with them: an image is so many

    @property
    def kind(self) -> str:
        """Where it counts: within the search's budget, or beside it."""
        return HELD_OUT_SOLVES if self.held_out else SOLVES

    @property
    def key(self) -> str:
        """A digest of the noises."""
        return _digest(self.kind, self.first, self.n_images, self.noise_seed)

    @staticmethod
    def to_json(value: Any) -> Any:
        """The number."""
        return value

    @staticmethod
    def of_json(content: Any) -> int:
        """The number."""
        return int(content)


def solve_calls(n_images: int) -> int:
    """Image-calls of the fine solves of so many images: those of whole blocks of noise."""
    return -(-n_images // BLOCK) * BLOCK * FINE_NFE


Job = Score | Polish | RealImages | FineSolves
"""What workers are asked beside measurements."""

Question = Measure | Job | Recall


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a job: its value, or the error."""

    question: Job
    value: Any = None
    error: str | None = None
    network_calls: int = 0  # image-calls, forward and backward
    seconds: float = 0.0
    worker: str = ""

    @property
    def images(self) -> float:
        """Image-calls in images of the schedules' own number of calls."""
        return self.network_calls / self.question.nfe


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]
