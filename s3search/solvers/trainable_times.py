"""A schedule whose levels an optimiser may move while its steps stay what they are.

    lam_i = lam_i^0 + move_i      all levels but the first and the clean end

The numbers of its coefficient table (coefficients.py) follow from the levels by the rules of its
steps.  They are smooth functions of few levels, so their derivatives are central differences in
float64: two compilations for each level, exact to about eight digits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from s3search.processes import VpDiscrete
from s3search.rules import level
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import whole_times
from s3search.solvers.coefficients import Array, CoefficientTable, coefficient_table
from s3search.solvers.start_map import noise_scale_of, start_map_of
from s3search.solvers.tensor_plan import TensorPlan

_STEP = 1e-4  # in lam, of a difference
_GAP = 0.01  # in lam, between neighbours: many steps of a difference


class TrainableTimes:
    """The levels of one schedule, leaves of the autograd graph, and the plan that they make."""

    def __init__(
        self, schedule: Schedule, *, trained: tuple[float, float], rounds: bool = False
    ) -> None:
        """``trained`` are the times, cleanest first, that the network was trained at; ``rounds``:
        the schedule in the end has whole training steps.  First time and end stay.
        """
        self._schedule, self._process = schedule, schedule.process
        self._rounds = rounds and isinstance(schedule.process, VpDiscrete)
        self.table = coefficient_table(schedule)
        self._free = [*range(1, len(schedule.times) - 1)]
        self._lam = np.array([self._process.lam(schedule.times[i]) for i in self._free])
        high, low = (self._process.lam(t) for t in trained)
        first = max(low, self._process.lam(schedule.times[0]))
        self._low = first + _GAP * np.arange(1, len(self._free) + 1)
        self._high = max([high, *self._lam]) - _GAP * np.arange(len(self._free))[::-1]
        self._levels = torch.zeros(len(self._free), dtype=torch.float64, requires_grad=True)
        self.moves = [self._levels]
        self._known: tuple[bytes, Array, Array] | None = None  # where the levels were last

    def plan(self) -> TensorPlan:
        """The table at the present levels, with derivatives."""
        values, slopes = self._numbers_and_slopes()
        moved = self._levels - self._levels.detach()
        numbers = torch.tensor(values) + torch.tensor(slopes) @ moved
        base, n = self.table, self.table.nfe
        first = level(base.process, base.first_time)
        sizes = [n + 1, n + 1, n + 1, (n + 1) * n, n]
        times, p0, constant, q, network_times = torch.split(numbers, sizes)
        image = base.start.image
        return TensorPlan(
            process=base.process,
            noise_scale=noise_scale_of(base.start, base.process, first),
            start_map=start_map_of(base.start.jump, base.process, first),
            image=None if image is None else torch.tensor(image, dtype=torch.float64),
            is_analytic=base.is_analytic,
            times=times,
            p0=p0,
            q=q.reshape(n + 1, n),
            constant=constant,
            network_times=network_times,
        )

    def project(self) -> None:
        """Puts every level back into its range, and apart from its neighbours."""
        lam = np.clip(self._lam + self._moved(), self._low, self._high)
        apart = _GAP * np.arange(len(lam))
        lam = np.minimum(np.maximum.accumulate(lam - apart) + apart, self._high)
        with torch.no_grad():
            self._levels.copy_(torch.tensor(lam - self._lam))

    def moved_schedule(self, provenance: Mapping[str, Any]) -> Schedule:
        """The schedule at the present levels."""
        made = self._at(self._lam + self._moved())
        times = made.times
        if self._rounds:
            n = len(self._free) + 1
            times = (*whole_times(times[:n]), *times[n:])
        return made.changed(times=times, provenance=provenance)

    def _moved(self) -> Array:
        moved: Array = self._levels.detach().numpy().copy()
        return moved

    def _numbers_and_slopes(self) -> tuple[Array, Array]:
        lam = self._lam + self._moved()
        if self._known is None or self._known[0] != lam.tobytes():
            slopes = [
                (self._numbers(lam + step) - self._numbers(lam - step)) / (2 * _STEP)
                for step in _STEP * np.eye(len(lam))
            ]
            values = self._numbers(lam)
            stacked = np.stack(slopes, axis=1) if slopes else np.zeros((len(values), 0))
            self._known = lam.tobytes(), values, stacked
        return self._known[1], self._known[2]

    def _numbers(self, lam: Array) -> Array:
        """All numbers of the table at these levels, one after another."""
        table: CoefficientTable = coefficient_table(self._at(lam))
        parts = (table.times, table.p0, table.constant, table.q.ravel(), table.network_times)
        return np.concatenate(parts)

    def _at(self, lam: Array) -> Schedule:
        times = list(self._schedule.times)
        for i, new, old in zip(self._free, lam.tolist(), self._lam.tolist(), strict=True):
            if new != old:
                times[i] = self._process.time_of_lam(new)
        return self._schedule.changed(times=times)
