"""The tables of metrics in a study file: what decides, what guards, what only looks at the end."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from s3search.evaluation.plugins import FEATURES, MINIMIZED_SCORES, SCORES
from s3search.evaluation.spec import MetricSpec, Target
from s3search.search.direction import Direction
from s3search.search.guard import Guard
from s3search.study.file.table import OpenTable

DISTANCES = {"frechet": None, "kernel": "inception", "cmmd": "clip", "mind": "inception"}
"""The distances, each with the extractor that it has unless another is named."""

Kind = Literal["frechet", "kernel", "cmmd", "mind", "score"]


def usual_direction(score: object) -> Direction:
    """That of a score of which nothing is said: its own, and of the user's more is better."""
    return Direction.MINIMIZE if score in MINIMIZED_SCORES else Direction.MAXIMIZE


class MeasureTable(OpenTable):
    """What every metric's table says: a distance of features, or a score of single images."""

    kind: Kind = "frechet"
    features: str | None = None  # of a distance
    score: str | None = None  # images (B, C, H, W) and what they were made for -> (B,)
    direction: Direction | None = None  # None: as the score itself says; a distance is minimised
    target: Target | None = None  # what a score compares images with
    frames: Literal["mean"] | None = None  # a function of one's own sees the frames of videos

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: Any) -> Any:
        """A score says of what kind it is, and some distances have an extractor of their own; a
        direction that is the usual one need not be said, and is the same study either way.
        """
        if not isinstance(data, Mapping):
            return data
        found = dict(data)
        if found.get("score") is not None:
            found.setdefault("kind", "score")
        usual = DISTANCES.get(str(found.get("kind", "frechet")))
        if usual is not None and found.get("features") is None:
            found["features"] = usual
        is_usual = found.get("direction") == usual_direction(found.get("score")).value
        if found.get("kind") == "score" and is_usual:
            del found["direction"]
        return found

    @model_validator(mode="after")
    def _names_one_thing(self) -> "MeasureTable":
        if self.kind == "score":
            if self.score is None:
                raise ValueError(
                    "kind = 'score' needs score: a name ("
                    f"{', '.join(SCORES)}) or 'package.module:function'"
                )
            if self.features is not None:
                raise ValueError("features: a score has none; leave the key out")
            return self
        if self.score is not None:
            raise ValueError(
                f"score: kind = {self.kind!r} is a distance of features; leave out one"
            )
        if self.features is None:
            raise ValueError(
                f"features: missing; an extractor's name ({', '.join(FEATURES)}) or "
                "'package.module:function'"
            )
        for key in ("direction", "target"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key}: is for kind = 'score'; a distance is always minimised")
        return self

    @model_serializer(mode="wrap")
    def _without_frames(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A table that says nothing of frames is written as it was before one could."""
        data: dict[str, Any] = dump(self)
        if self.frames is None:
            data.pop("frames", None)
        return data

    @property
    def named(self) -> str:
        """The extractor, or the score."""
        return str(self.score if self.kind == "score" else self.features)

    @property
    def settled_direction(self) -> Direction:
        """Whether more is better."""
        if self.kind != "score":
            return Direction.MINIMIZE
        return self.direction or usual_direction(self.score)

    def spec(self, where: str) -> MetricSpec:
        """What a worker needs; ``where`` is the table of the study file."""
        return MetricSpec(
            name=self.named,
            options=self.options,
            kind=self.kind,
            direction=self.settled_direction,
            target=self.target,
            frames=self.frames,
            where=where,
        )


class GuardTable(MeasureTable):
    """``[[metric.guard]]``: what may not get worse while the metric gets better, as a multiple of
    what the best published solver has, or as a distance from it.
    """

    at_most: float | None = Field(default=None, gt=0)  # of what is minimised
    at_least: float | None = Field(default=None, gt=0)  # of what is maximised
    worse_by: float | None = Field(default=None, ge=0)  # of either, in its own unit

    @property
    def guard(self) -> Guard:
        """As a search knows it."""
        times = self.at_most if self.at_least is None else self.at_least
        name = str(self.options.get("object", self.named))
        if self.kind not in ("frechet", "score"):
            name = f"{self.kind} in {name}"
        return Guard(
            name=name,
            direction=self.settled_direction,
            times=1.0 if times is None else times,
            worse_by=self.worse_by or 0.0,
        )

    @model_validator(mode="after")
    def _has_a_limit(self) -> "GuardTable":
        is_minimized = self.settled_direction is Direction.MINIMIZE
        right, wrong = ("at_most", "at_least") if is_minimized else ("at_least", "at_most")
        given = (getattr(self, right), self.worse_by)
        if getattr(self, wrong) is not None or sum(each is not None for each in given) != 1:
            raise ValueError(
                f"a guard that is {self.settled_direction.value}d needs {right}, how many times "
                "the best published solver's value it may have, or worse_by, by how much it may "
                "be worse, and nothing else"
            )
        return self


class MetricTable(MeasureTable):
    """``[metric]``: what everything is decided by, or a protocol that fixes it."""

    protocol: str | None = None
    guard: tuple[GuardTable, ...] = ()

    @property
    def stored(self) -> dict[str, Any]:
        """The table as it was before there were kinds, where it says no more."""
        content = self.model_dump(mode="json")
        usual = {"kind": "frechet", "guard": []}
        for key in ("kind", "score", "direction", "target", "guard"):
            if content[key] == usual.get(key):
                del content[key]
        return content
