"""Two schedules side by side: where their times and choices differ, and by how much.

The times of different processes have different units, so times are compared by lam = log(alpha /
sigma).  The distance between two grids is that of their curves lam(i / n), straight between the
times, so grids of different lengths have one too; pure noise and a clean end, where lam is
infinite, have no part in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from s3search.schedules.schedule import Schedule
from s3search.show.pictures.words import TimeLine, time_lines

SAME_LAM = 1e-9  # rounding of a time that went through another unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One time of two schedules; a shorter one has none at the end."""

    index: int
    lines: tuple[TimeLine | None, TimeLine | None]
    same_time: bool
    same_network: bool  # calls, guidance and blocks left out
    step_differences: tuple[str, ...]  # paths in the step's JSON; ("",) where only one has it

    @property
    def is_same(self) -> bool:
        """Whether nothing differs here."""
        return self.same_time and self.same_network and not self.step_differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two schedules, time by time."""

    same: bool  # the same id: the same images
    pairs: tuple[Pair, ...]
    elsewhere: tuple[str, ...]  # fields of the whole that differ: process, start, ...
    largest: float | None  # distance of the grids in lam; None without two finite levels in common
    mean: float | None
    largest_at: float | None  # share of the steps

    @property
    def n_different_steps(self) -> int:
        """Steps that differ, those that only one has among them."""
        return sum(bool(pair.step_differences) for pair in self.pairs)


def compare_schedules(first: Schedule, second: Schedule) -> Comparison:
    """What differs between two schedules, and how far their times lie apart."""
    grids = [time_lines(schedule) for schedule in (first, second)]
    steps = list(zip_longest(_steps(first), _steps(second)))
    pairs = []
    for i, (a, b) in enumerate(zip_longest(*grids)):
        differences: tuple[str, ...] = ()
        if i < len(steps):
            one, other = steps[i]
            differences = tuple(_paths(one, other, "")) if one != other else ()
        both = a is not None and b is not None
        pairs.append(
            Pair(
                index=i,
                lines=(a, b),
                same_time=both and _same(a.lam, b.lam),
                same_network=both and (a.n_calls, a.network) == (b.n_calls, b.network),
                step_differences=differences,
            )
        )
    largest, mean, at = _distance(*([line.lam for line in grid] for grid in grids))
    return Comparison(
        same=first.id == second.id,
        pairs=tuple(pairs),
        elsewhere=tuple(
            name
            for name in ("process", "start", "model_patch", "statistics")
            if getattr(first, name) != getattr(second, name)
        ),
        largest=largest,
        mean=mean,
        largest_at=at,
    )


def differing_steps(first: Schedule, second: Schedule) -> list[int]:
    """Indices of the steps that differ, or that only one has."""
    pairs = zip_longest(_steps(first), _steps(second))
    return [i for i, (one, other) in enumerate(pairs) if one != other]


def _steps(schedule: Schedule) -> list[dict[str, Any]]:
    return [step.model_dump(mode="json") for step in schedule.steps]


def _same(one: float, other: float) -> bool:
    return one == other or abs(one - other) <= SAME_LAM


def _paths(one: Any, other: Any, path: str) -> list[str]:
    """The fields that differ, as far inside as both have them."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get("rule") == other.get("rule"):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        start = f"{path}." if path else ""
        return [p for n in names for p in _paths(one.get(n), other.get(n), start + n)]
    return [path]


def _distance(
    one: Sequence[float], other: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """Largest and mean distance of two curves over [0, 1], and where the largest is."""
    curves = []
    for lams in (one, other):
        points = [(i / (len(lams) - 1), lam) for i, lam in enumerate(lams) if math.isfinite(lam)]
        if len(points) < 2:
            return None, None, None
        curves.append(np.array(points).T)
    (x, y), (u, v) = curves
    at = np.union1d(x, u)
    at = at[(at >= max(x[0], u[0])) & (at <= min(x[-1], u[-1]))]
    if not len(at):
        return None, None, None
    apart = np.abs(np.interp(at, x, y) - np.interp(at, u, v))
    k = int(apart.argmax())
    return float(apart[k]), float(apart.mean()), float(at[k])
