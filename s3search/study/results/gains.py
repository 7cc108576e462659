"""What each stage of a search gained and what proxies were worth, as the search itself noted it at
the end of each number of calls (`s3search.search.gains`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from s3search.search.direction import Direction

GAINS = "gains"  # kind of the notes

Notes = Sequence[tuple[str, Mapping[str, Any]]]


def gains_of(notes: Notes, direction: Direction) -> list[dict[str, Any]]:
    """The newest note of each number of calls, fewest first, in values of the metric; none of
    older releases, nor before a search is through with its first number of calls.
    """
    newest = {content["nfe"]: content for kind, content in notes if kind == GAINS}
    return [in_values(newest[nfe], direction) for nfe in sorted(newest)]


def in_values(content: Mapping[str, Any], direction: Direction) -> dict[str, Any]:
    """A note of a search, which knows losses alone, in values of the metric."""

    def value(loss: float | None) -> float | None:
        return None if loss is None else direction.loss(loss)

    stages = [
        {**each, "before": value(each["before"]), "after": value(each["after"])}
        for each in content["stages"]
    ]
    return {**content, "published": value(content["published"]), "stages": stages}


def gain_warnings(notes: Notes) -> tuple[str, ...]:
    """What to say aloud: stages that came to nothing."""
    newest = {content["nfe"]: content for kind, content in notes if kind == GAINS}
    return tuple(warning for nfe in sorted(newest) for warning in newest[nfe]["warnings"])
