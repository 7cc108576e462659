"""What people read of a metric: the one place for its names and for which way is better."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from s3search.search.direction import Direction
from s3search.study.file.metric_tables import MeasureTable

_TITLES = {
    "frechet": "Fréchet distance",
    "kernel": "kernel distance (KID)",
    "cmmd": "CMMD distance",
    "mind": "MIND distance",
    "score": "mean score",
}
_SHORT = {"frechet": "FD", "kernel": "KID", "cmmd": "CMMD", "mind": "MIND", "score": "score"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWords:
    """The words for a kind of metric that is minimised or maximised."""

    kind: str = "frechet"
    direction: Direction = Direction.MINIMIZE

    @classmethod
    def of(cls, table: MeasureTable) -> "MetricWords":
        """Those for a table of a study."""
        return cls(kind=table.kind, direction=table.settled_direction)

    @classmethod
    def said_by(cls, content: Mapping[str, Any]) -> "MetricWords":
        """Those for plain data with the keys ``metric`` and ``direction``; what earlier releases
        wrote has neither, and is of Fréchet distances.
        """
        direction = Direction(content.get("direction", Direction.MINIMIZE))
        return cls(kind=content.get("metric", "frechet"), direction=direction)

    @property
    def is_score(self) -> bool:
        """Whether single images have a number."""
        return self.kind == "score"

    @property
    def has_bias(self) -> bool:
        """Whether the number depends on how many images there are, as most distances do."""
        return self.kind not in ("score", "kernel")

    @property
    def noun(self) -> str:
        """What a number is called: "distance" or "score"."""
        return "score" if self.is_score else "distance"

    @property
    def named(self) -> str:
        """What a number of this kind is called: "frechet distance", "score"."""
        return self.noun if self.is_score else f"{self.kind} {self.noun}"

    @property
    def judge(self) -> str:
        """What a number is by: an "extractor" of features, or a "score"."""
        return "score" if self.is_score else "extractor"

    @property
    def second_judge(self) -> str:
        """What the numbers of a second metric are by."""
        return f"second {self.judge}, chose nothing"

    @property
    def compared(self) -> str:
        """What names that with which images are compared."""
        return "compared with" if self.is_score else "reference digest"

    def judged(self, name: str, digest: str) -> str:
        """What a number is by and what it compares with: "extractor inception, reference 1a2b"."""
        return f"{self.judge} {name}, {'' if self.is_score else 'reference '}{digest}"

    @property
    def title(self) -> str:
        """The metric's name: "Fréchet distance", "mean score"."""
        return _TITLES.get(self.kind, self.kind)

    @property
    def short(self) -> str:
        """The metric's name where there is little room: "FD"."""
        return _SHORT.get(self.kind, self.kind)

    @property
    def by(self) -> str:
        """What stands between a number and the extractor's or score's name."""
        return "of" if self.is_score else "in"

    @property
    def which_is_better(self) -> str:
        """ "the lower the better" or "the higher the better"."""
        return f"the {'lower' if self.is_minimized else 'higher'} the better"

    @property
    def better_are(self) -> str:
        """ "lower distances are better" or "higher scores are better"."""
        return f"{'lower' if self.is_minimized else 'higher'} {self.noun}s are better"

    @property
    def is_minimized(self) -> bool:
        """Whether less is better."""
        return self.direction is Direction.MINIMIZE

    @property
    def better(self) -> str:
        """What a better schedule's images are: "nearer" to the real ones, or "better"."""
        return "better" if self.is_score else "nearer"

    @property
    def worse(self) -> str:
        """What a worse schedule's images are."""
        return "worse" if self.is_score else "farther"

    def is_logarithmic(self, values: Iterable[float]) -> bool:
        """Whether an axis of these values is logarithmic: where less is better and all are above
        zero, so that it is their ratios that count.
        """
        return self.is_minimized and all(value > 0.0 for value in values)


FRECHET = MetricWords()
"""The words of a study that says nothing of its metric."""
