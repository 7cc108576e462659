"""Drawings that tests do not look at cost a quarter of a second each: one is made of each kind."""

from pathlib import Path

import pytest

from s3search.schedules.layers import skips_layers
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard import artifacts
from s3search.show.pictures import draw_schedule
from s3search.show.pictures.words import guidance

_Kind = tuple[bool, bool]
_DRAWN: dict[_Kind, bytes] = {}


def _kind(schedule: Schedule) -> _Kind:
    """Whether guidance and layers are drawn between the steps."""
    return any(guidance(schedule)), skips_layers(schedule)


def _draw_from_memory(schedule: Schedule, path: Path) -> None:
    kind = _kind(schedule)
    if kind not in _DRAWN:
        draw_schedule(schedule, path)
        _DRAWN[kind] = path.read_bytes()
    path.write_bytes(_DRAWN[kind])


def draw_once_in(patch: pytest.MonkeyPatch) -> None:
    """A finished study hangs a drawing on every validated schedule, of which tests look at the
    format and the place: schedules of a kind, which differ in their steps, share one.
    """
    patch.setattr(artifacts, "draw_schedule", _draw_from_memory)
