"""Which parts of a search work for a model and metric, in lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NAMES = {
    "gaussian": "closed-form proxy",
    "mixture": "mixture proxy",
    "race": "early stopping",
    "gradient": "fine-tuning by the gradient",
}


def rung_lines(rungs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line of what works, and one for each part that does not, with the reason."""
    works = [rung_name(own["rung"]) for own in rungs if own["works"]]
    if works:
        yield f"works with this model and metric: {', '.join(works)}"
    yield from lacking_lines(rungs)


def lacking_lines(rungs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each part that does not work, with the reason."""
    for own in rungs:
        if not own["works"]:
            yield f"does not: {rung_name(own['rung'])}: {own['says']}"


def rung_name(rung: str) -> str:
    """What people call a part of a search."""
    return _NAMES.get(rung, rung)
