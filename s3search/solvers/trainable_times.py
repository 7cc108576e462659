"""A schedule whose levels an optimiser may move while its steps stay what they are.

    lam_i = lam_i^0 + move_i      all levels but the first and the clean end

and with ``moves_noise`` the amounts of noise in its steps (trainable_amounts.py).  The numbers of
its coefficient table (coefficients.py) follow from both by the rules of its steps.  They are
smooth functions of few numbers, so their derivatives are central differences in float64: two
compilations for each, exact to about eight digits.  Where noise is added from a given time, as in
a restart, that ties the levels to each other, and they stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.processes import VpDiscrete
from s3search.rules import NoiseKind
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import whole_times
from s3search.solvers.coefficients import Array, CoefficientTable, coefficient_table
from s3search.solvers.start_map import noise_scale_of, start_map_of
from s3search.solvers.tensor_plan import DrawnColumns, TensorPlan
from s3search.solvers.trainable_amounts import TrainableAmounts
from s3search.solvers.trainable_noise import first_noise_level

_STEP = 1e-4  # in lam, of a difference
_NOISE_STEP = 1e-6  # of a difference of amounts, which bend near all that there is
_GAP = 0.01  # in lam, between neighbours: many steps of a difference


class TrainableTimes:
    """The levels of one schedule, and its steps' amounts of noise: leaves of the autograd graph,
    and the plan that they make.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        trained: tuple[float, float],
        rounds: bool = False,
        moves_noise: bool = False,
    ) -> None:
        """``trained`` are the times, cleanest first, that the network was trained at; ``rounds``:
        the schedule in the end has whole training steps; ``moves_noise``: the amounts of noise in
        its steps move too.  First time and end stay.
        """
        self._schedule, self._process = schedule, schedule.process
        self._rounds = rounds and isinstance(schedule.process, VpDiscrete)
        self.table = coefficient_table(schedule)
        self._rows = tuple(np.flatnonzero(self.table.noise).tolist())
        tied = any(step.noise and step.noise.kind is NoiseKind.TIME for step in schedule.steps)
        self._free = [] if tied or self.table.rises else [*range(1, len(schedule.times) - 1)]
        self._amounts = TrainableAmounts(schedule.steps if moves_noise else ())
        self._lam = np.array([self._process.lam(schedule.times[i]) for i in self._free])
        high, low = (self._process.lam(t) for t in trained)
        first = max(low, self._process.lam(schedule.times[0]))
        self._low = first + _GAP * np.arange(1, len(self._free) + 1)
        self._high = max([high, *self._lam]) - _GAP * np.arange(len(self._free))[::-1]
        self._levels = torch.zeros(len(self._free), dtype=torch.float64, requires_grad=True)
        self.moves = [self._levels]
        self._noises = torch.zeros(len(self._amounts.own), dtype=torch.float64, requires_grad=True)
        if len(self._noises):
            self.moves.append(self._noises)
        self._known: tuple[bytes, Array, Array] | None = None  # where the moves were last

    def plan(self) -> TensorPlan:
        """The table at the present levels, with derivatives."""
        values, slopes = self._numbers_and_slopes()
        moves = torch.cat(self.moves)
        moved = moves - moves.detach()
        numbers = torch.tensor(values) + torch.tensor(slopes) @ moved
        base, n = self.table, self.table.nfe
        first = first_noise_level(base)
        sizes = [n + 1, n + 1, n + 1, (n + 1) * n, n, n + 1, (n + 1) ** 2]
        parts = torch.split(numbers, sizes if self._rows else sizes[:5])
        times, p0, constant, q, network_times = parts[:5]
        image = base.start.image
        return TensorPlan(
            process=base.process,
            noise_scale=noise_scale_of(base.start, base.process, first),
            start_map=start_map_of(base.start.jump, base.process, first),
            image=None if image is None else torch.tensor(image, dtype=torch.float64),
            hides_first=base.hides_first,
            times=times,
            p0=p0,
            q=q.reshape(n + 1, n),
            constant=constant,
            network_times=network_times,
            drawn=self._drawn(parts[5:], (values != 0.0) | (slopes != 0.0).any(1)),
        )

    def _drawn(
        self, parts: Sequence[Tensor], matters: npt.NDArray[np.bool_]
    ) -> DrawnColumns | None:
        """The columns of the last ``parts`` of all numbers, of which some matter."""
        if not self._rows:
            return None
        noise, p = parts
        shape = len(noise), len(noise)
        used = matters[-p.numel() :].reshape(shape)
        return DrawnColumns(rows=self._rows, used=used, p=p.reshape(shape), noise=noise)

    def project(self) -> None:
        """Puts every level and amount back into its range, and levels apart from neighbours."""
        lam = np.clip(self._lam + self._moved(), self._low, self._high)
        apart = _GAP * np.arange(len(lam))
        lam = np.minimum(np.maximum.accumulate(lam - apart) + apart, self._high)
        with torch.no_grad():
            self._levels.copy_(torch.tensor(lam - self._lam))
            amounts = self._amounts
            values = np.clip(self._noise_values(), amounts.low, amounts.high)
            self._noises.copy_(torch.tensor(values - amounts.own))

    def moved_schedule(self, provenance: Mapping[str, Any]) -> Schedule:
        """The schedule at the present levels and amounts."""
        made = self._at(self._lam + self._moved(), self._noise_values())
        times = made.times
        if self._rounds:
            n = len(self._free) + 1
            times = (*whole_times(times[:n]), *times[n:])
        return made.changed(times=times, provenance=provenance)

    def _moved(self) -> Array:
        moved: Array = self._levels.detach().numpy().copy()
        return moved

    def _noise_values(self) -> Array:
        values: Array = self._amounts.own + self._noises.detach().numpy()
        return values

    def _numbers_and_slopes(self) -> tuple[Array, Array]:
        lam, noises = self._lam + self._moved(), self._noise_values()
        key = lam.tobytes() + noises.tobytes()
        if self._known is None or self._known[0] != key:
            slopes = [
                (self._numbers(lam + step, noises) - self._numbers(lam - step, noises))
                / (2 * _STEP)
                for step in _STEP * np.eye(len(lam))
            ]
            low, high = self._amounts.low + _NOISE_STEP, self._amounts.high - _NOISE_STEP
            inside = np.clip(noises, low, high)  # a difference has two sides
            slopes += [
                (self._numbers(lam, inside + step) - self._numbers(lam, inside - step))
                / (2 * _NOISE_STEP)
                for step in _NOISE_STEP * np.eye(len(noises))
            ]
            values = self._numbers(lam, noises)
            stacked = np.stack(slopes, axis=1) if slopes else np.zeros((len(values), 0))
            self._known = key, values, stacked
        return self._known[1], self._known[2]

    def _numbers(self, lam: Array, noises: Array) -> Array:
        """All numbers of the table at these levels and amounts, one after another."""
        table: CoefficientTable = coefficient_table(self._at(lam, noises))
        parts = [table.times, table.p0, table.constant, table.q.ravel(), table.network_times]
        if self._rows:
            parts += [table.noise, table.p.ravel()]
        return np.concatenate(parts)

    def _at(self, lam: Array, noises: Array) -> Schedule:
        times = list(self._schedule.times)
        for i, new, old in zip(self._free, lam.tolist(), self._lam.tolist(), strict=True):
            if new != old:
                times[i] = self._process.time_of_lam(new)
        if not len(noises):
            return self._schedule.changed(times=times)
        return self._schedule.changed(times=times, steps=self._amounts.steps_at(noises))
