"""What a person who waits wants to know of a study, whoever tells it: the driver of what it did,
`s3search.study.results.watching` of what the database holds.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from s3search.search.direction import Direction
from s3search.search.questions import SEARCHING
from s3search.search.trial import Origin, OriginKind
from s3search.study.file.config import SearchTable
from s3search.study.metric_words import FRECHET, MetricWords

RECENT_SECONDS = 60.0
RECENT_RESULTS = 8  # fewer in the last minute: the window of the rate reaches back to so many

_SAMPLE_SECONDS = 1.0

RUNGS = "rungs"  # kind of the note that keeps which parts of a search work for model and metric
WARNINGS = "check"  # kind of the note that keeps what the check before a search warned of


@dataclass(frozen=True, slots=True)
class Spend:
    """What one rung, or one kind of job, cost so far."""

    count: int = 0
    network_calls: int = 0  # image-calls, forward and backward
    seconds: float = 0.0  # of workers

    def plus(self, network_calls: int, seconds: float) -> "Spend":
        """With one result more."""
        return Spend(self.count + 1, self.network_calls + network_calls, self.seconds + seconds)


@dataclass(frozen=True, slots=True)
class Quality:
    """How the predictor ranked the last batch that it chose, against what was then measured."""

    correlation: float | None  # Spearman's; None where the batch was all ties
    n: int  # schedules in the batch


@dataclass(frozen=True, slots=True)
class RunToday:
    """What somebody runs who has not searched, and how good it is on the search's noise."""

    name: str
    value: float
    is_own: bool  # the pipeline's own sampler

    @classmethod
    def of(cls, origin: Origin, value: float) -> Self:
        """A stock solver, which was measured."""
        return cls(origin.name, value, origin.kind is OriginKind.PIPELINE)

    def better(self, other: "RunToday | None", direction: Direction) -> "RunToday":
        """The pipeline's own sampler, else the best of the libraries' as they are."""
        if other is None:
            return self
        return min(other, self, key=lambda one: (not one.is_own, direction.loss(one.value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a study is; mappings of ints are by NFE."""

    stage: str  # "baselines", "search", a rung of the ladder, "finals", "validation"
    done: int  # in evaluations' worth of images; of the validation in schedules
    total: int | None  # None when the budget is time
    best: Mapping[int, float]  # of searched schedules, at the search rung
    best_baseline: Mapping[int, float]
    held_out: Mapping[int, float]  # of the found winner, as far as it is validated
    held_out_baseline: Mapping[int, float]
    predictor: Mapping[int, Quality]
    failed: int
    images_per_second: float  # of late
    seconds_left: float | None
    workers_busy: int
    workers: int  # of the driver; 0 where none runs
    spend: Mapping[str, Spend]  # by rung and kind of job
    budget: str = ""  # in words
    share: float | None = None  # of the budget that is spent, 0 to 1
    warnings: Sequence[str] = ()  # of the check before the search, and of what came to nothing
    gains: Sequence[Mapping[str, Any]] = ()  # of numbers of calls that are through
    whole: float | None = None  # of all images, those of the validation too, 0 to 1
    today: Mapping[int, RunToday] = field(default_factory=dict)
    words: MetricWords = FRECHET  # for what all these values are

    @property
    def measured(self) -> int:
        """Schedules measured in the search, those that were stopped early among them."""
        return sum(self.spend[rung].count for rung in SEARCHING if rung in self.spend)

    @property
    def network_calls(self) -> int:
        """Image-calls of all rungs."""
        return sum(each.network_calls for each in self.spend.values())

    @property
    def worker_seconds(self) -> float:
        """The workers' seconds on all rungs."""
        return sum(each.seconds for each in self.spend.values())

    @property
    def found(self) -> tuple[object, ...]:
        """All that a result changes, and time alone does not."""
        bests = (self.best, self.best_baseline, self.held_out, self.held_out_baseline)
        counts = sorted((name, each.count) for name, each in self.spend.items())
        return (self.stage, self.done, self.total, *map(dict, bests), self.failed, counts)


Report = Callable[[Progress], None]
"""Hears how far a search is, whenever something was answered."""


class RecentRate:
    """How fast a count grows of late, from looks at it."""

    def __init__(self, now: float) -> None:
        self._looks = deque([(now, 0.0)])

    def per_second(self, now: float, count: float) -> float:
        """Since the last look that is a minute old, or the first one; looks closer than a second
        are one.
        """
        if now - self._looks[-1][0] >= _SAMPLE_SECONDS:
            self._looks.append((now, count))
        while len(self._looks) > RECENT_RESULTS and now - self._looks[1][0] >= RECENT_SECONDS:
            self._looks.popleft()
        began, before = self._looks[0]
        return (count - before) / (now - began) if now > began else 0.0


def seconds_left(
    search: SearchTable,
    *,
    images: float | None,
    images_per_second: float,
    worker_seconds: float,
    workers_busy: int,
    elapsed: float,
) -> float | None:
    """Until the first budget of a search is spent: ``images`` are still to make (None where that
    is no budget), ``worker_seconds`` are spent, the run has gone on for ``elapsed`` seconds.
    """
    left = []
    if images is not None and images_per_second > 0:
        left.append(images / images_per_second)
    if search.gpu_seconds is not None and workers_busy > 0:
        left.append((search.gpu_seconds - worker_seconds) / workers_busy)
    if search.wall_seconds is not None:
        left.append(search.wall_seconds - elapsed)
    return max(0.0, min(left)) if left else None


def with_validation(
    seconds: float | None, images: float, images_per_second: float
) -> float | None:
    """The seconds that a search still takes, and those of the images of its validation."""
    if seconds is None or not images:
        return seconds
    return seconds + images / images_per_second if images_per_second > 0 else None


def whole_share(
    share: float | None, images: float, checked: float, waiting: float
) -> float | None:
    """The share of all images that are made: of a search that spent ``share`` of its budget on
    ``images``, and of the validation, whose images are ``checked`` or ``waiting``.
    """
    if share is None:
        return None
    total = (images / share if share else math.inf) + checked + waiting
    return min(1.0, (images + checked) / total) if total else 1.0


def quality_of(kind: str, content: Mapping[str, object]) -> tuple[int, Quality] | None:
    """NFE and quality, if a search's note is of a calibration."""
    if kind != "calibration":
        return None
    nfe, n, correlation = content["nfe"], content["n"], content["spearman"]
    assert isinstance(nfe, int)
    assert isinstance(n, int)
    return nfe, Quality(correlation if isinstance(correlation, float) else None, n)
