"""What each stage of a search gained and what proxies were worth, as the search itself noted it at
the end of each number of calls (`s3search.search.gains`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

GAINS = "gains"  # kind of the notes

Notes = Sequence[tuple[str, Mapping[str, Any]]]


def gains_of(notes: Notes) -> list[dict[str, Any]]:
    """The newest note of each number of calls, fewest first; none of older releases, nor before a
    search is through with its first number of calls.
    """
    newest = {content["nfe"]: dict(content) for kind, content in notes if kind == GAINS}
    return [newest[nfe] for nfe in sorted(newest)]


def gain_warnings(notes: Notes) -> tuple[str, ...]:
    """What to say aloud: stages that came to nothing."""
    return tuple(warning for each in gains_of(notes) for warning in each["warnings"])
