"""Network-time shifts of a search: how far from a point's own time the network is called.

    shift   lam(network time) - lam(t), at every point that the network is called at; mostly none

Shifts are fixed numbers of the schedule, the same for all images (LD3, arXiv:2405.15506).  A shift
moves along with its point; a network time stays as it is to the last bit where the point stays.
"""

import math
from dataclasses import dataclass

import numpy as np

from s3search.processes import NoiseProcess
from s3search.rules import level
from s3search.search.space import Problem

LEAST_LAM = -math.log(1e3)  # of a time that a search may choose, where the noisy end is pure noise
SLACK = 1e-6  # far below any gap, far above the rounding of lam(time_of_lam(lam))


@dataclass(frozen=True, slots=True)
class Shift:
    """``lam`` away from the point's own time, which is ``network_time`` for the time ``at``."""

    lam: float
    at: float
    network_time: float

    def time(self, process: NoiseProcess, t: float) -> float:
        """The network time of a point at ``t``."""
        return self.network_time if t == self.at else _shifted(process, t, self.lam)


def shift_of(process: NoiseProcess, t: float, network_time: float | None) -> Shift | None:
    """The shift of a point at ``t`` with this network time."""
    if network_time is None or network_time == t:
        return None
    return Shift(level(process, network_time).lam - level(process, t).lam, t, network_time)


def shift_by(process: NoiseProcess, t: float, lam: float) -> Shift | None:
    """The shift of a point at ``t`` by ``lam``, None at pure noise and where it is none."""
    if not math.isfinite(level(process, t).lam) or not abs(lam) > SLACK:
        return None
    return Shift(lam, t, _shifted(process, t, lam))


def settled_shift(problem: Problem, t: float, shift: Shift | None) -> Shift | None:
    """``shift`` within the space's range, and never beyond the levels that the network was trained
    on.
    """
    process, largest = problem.process, problem.space.network_shift
    own = level(process, t).lam
    if shift is None or largest == 0.0 or not math.isfinite(own):
        return None
    noisiest = max(level(process, process.time_range[1]).lam, LEAST_LAM)
    low = max(-largest, min(noisiest - own, 0.0))
    high = min(largest, max(problem.highest_called_lam - own, 0.0))
    if abs(shift.lam) > SLACK and low - SLACK <= shift.lam <= high + SLACK:
        return shift if shift.at == t else shift_by(process, t, shift.lam)
    return shift_by(process, t, min(max(shift.lam, low), high))


def random_shift(problem: Problem, t: float, rng: np.random.Generator) -> Shift | None:
    """A shift of a third of the range's width, or as often none."""
    lam = float(rng.normal(0.0, problem.space.network_shift / 3))
    return shift_by(problem.process, t, lam) if rng.random() < 0.5 else None


def moved_shift(
    problem: Problem,
    t: float,
    shift: Shift | None,
    rng: np.random.Generator,
) -> Shift | None:
    """``shift`` after a step of its random walk from 0, or taken away."""
    if shift is not None and rng.random() < 0.25:
        return None
    before = 0.0 if shift is None else shift.lam
    lam = before + float(rng.normal(0.0, problem.space.network_shift / 3))
    return shift_by(problem.process, t, lam)


def _shifted(process: NoiseProcess, t: float, lam: float) -> float:
    return process.time_of_lam(level(process, t).lam + lam)
