"""Drawings that tests do not look at cost a quarter of a second each: they are made once."""

from pathlib import Path

import pytest

from s3search.schedules.schedule import Schedule
from s3search.show.dashboard import artifacts
from s3search.show.pictures import draw_schedule

_DRAWN: dict[str, bytes] = {}


def _draw_from_memory(schedule: Schedule, path: Path) -> None:
    if schedule.id not in _DRAWN:
        draw_schedule(schedule, path)
        _DRAWN[schedule.id] = path.read_bytes()
    path.write_bytes(_DRAWN[schedule.id])


def draw_once_in(patch: pytest.MonkeyPatch) -> None:
    """A finished study hangs a drawing on every validated schedule, and most studies of the tests
    validate the same published ones: the drawing depends on the schedule alone.
    """
    patch.setattr(artifacts, "draw_schedule", _draw_from_memory)
