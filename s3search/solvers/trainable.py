r"""A free table whose numbers an optimiser may move, differentiable in float64.

What moves, row by row, from a `FreeTable` with the values 0 in the superscript:

    lam_r  = lam_r^0 + level_r                    rows with 0 < alpha, 0 < sigma; the others stay
    told_r = told_r^0 + level_r + told_move_r     in lam: what call r is told moves with its level
    N_r    = N_r^0 + sigma_r - sigma_r^0 + alpha_r^0 noise_r      of noise; p0_r = N_r / sigma_0
    q_rj   = q_rj^0 + (what keeps the image in row r) / n_r + alpha_r^0 weight_rj

so that a move of a level alone keeps a constant noise and image where the row carried them, its
cost in the image shared by the n_r calls before.  With ``carries`` every move does: noise_r is 0
and the mean over j is taken out of weight_rj (an analytic start has one weight more to take it).
All moves are of the size of the data, hence one learning rate serves them.

Times follow from lam by the process's own inverse, their derivative from alpha and sigma, so that
every process that has these can be moved.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from s3search.processes import NoiseProcess, VpDiscrete
from s3search.rules import level
from s3search.rules.linear_form import state
from s3search.schedules.schedule import StartKind
from s3search.solvers.coefficients import Array, FreeTable
from s3search.solvers.plan import analytic_prediction
from s3search.solvers.start_map import StartMap, jumped, start_map_of

_LEAST_TIME = 1e-3  # of the range of a continuous process: no network is trained at its clean end


class Freedom(StrEnum):
    """What of a table may move."""

    COEFFICIENTS = "coefficients"  # of x_0, of the calls and of an analytic start's image
    TIMES = "times"  # the levels of the rows, the first aside
    NETWORK_TIMES = "network_times"  # what the calls are told, apart from their levels
    START = "start"  # the level of x_0, unless it is pure noise, analytic or behind a jump


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rows:
    """A table as tensors, float64 on the CPU; `FreeTable` has the legend."""

    sigma_0: Tensor  # ()
    times: Tensor  # (E + 1,)
    p0: Tensor  # (E + 1,)
    q: Tensor  # (E + 1, E)
    constant: Tensor  # (E + 1,)
    network_times: Tensor  # (E,)


class MovableTable:
    """The moves of one table, leaves of the autograd graph, and the table that they make."""

    def __init__(
        self,
        table: FreeTable,
        *,
        carries: bool,
        free: frozenset[Freedom],
        trained: tuple[float, float],
    ) -> None:
        """``trained`` are the times, cleanest first, that the network may be told; the table's own
        may lie outside.
        """
        self.table, self._carries = table, carries
        process, n, kind = table.process, table.nfe, table.start.kind
        first = level(process, table.first_time)
        own = [level(process, t) for t in table.times.tolist()]
        told = [level(process, t) for t in table.network_times.tolist()]
        self._alpha, self._sigma, self._lam = (
            _wide([getattr(at, name) for at in own]) for name in ("alpha", "sigma", "lam")
        )
        self._told = _wide([at.lam for at in told])
        self._first_alpha, self._first_sigma = first.alpha, first.sigma
        self._k = 0.0
        self._has_slack = kind in (StartKind.ZERO_X0, StartKind.UNIT_NOISE)
        if self._has_slack:
            self._k = float(analytic_prediction(kind, first).terms.get(state(0), 0.0))
        self._slots = torch.tril(torch.ones((n + 1, n), dtype=torch.float64), diagonal=-1)
        if kind is StartKind.AVERAGE_X0:
            self._slots = torch.cat([self._slots, torch.ones_like(self._slots[:, :1])], dim=1)
        self._is_level = torch.isfinite(self._lam)
        self._levels_free = self._is_level & (Freedom.TIMES in free)
        if not table.is_analytic:
            moves = Freedom.START in free and table.start.jump is None
            self._levels_free[0] = self._is_level[0] & moves
        self._told_free = self._is_level[:-1] & (Freedom.NETWORK_TIMES in free)
        self._weights_free = self._slots * (Freedom.COEFFICIENTS in free)
        self._noise_free = _wide([float(Freedom.COEFFICIENTS in free and not carries)] * (n + 1))
        if not table.is_analytic:
            self._noise_free[0] = 0.0
        self._set_bounds(first.lam, trained)
        self.levels = _leaf(n + 1)
        self.told = _leaf(n)
        self.noise = _leaf(n + 1)
        self.weights = _leaf(*self._slots.shape)

    @property
    def moves(self) -> list[Tensor]:
        """The leaves to optimise."""
        return [self.levels, self.told, self.noise, self.weights]

    def rows(self) -> Rows:
        """The table at the present moves."""
        base, n = self.table, self.table.nfe
        move = self.levels * self._levels_free
        times = self._times(move, base.times, self._lam, self._is_level)
        alpha = self._of_level(base.process.alpha, times, self._alpha)
        sigma = self._of_level(base.process.sigma, times, self._sigma)
        alpha_0, sigma_0 = _wide(self._first_alpha), _wide(self._first_sigma)
        if not base.is_analytic:
            alpha_0, sigma_0 = alpha[0], sigma[0]
        p_base = torch.tensor(base.p0)
        p = (p_base * self._first_sigma + sigma - self._sigma) / sigma_0
        image = alpha - self._alpha - (p * alpha_0 - p_base * self._first_alpha)
        n_slots = self._slots.sum(1)
        weights = self.weights * self._weights_free
        if self._carries and not self._has_slack:
            mean = weights.sum(1) / n_slots.clamp(min=1.0)
            weights = (weights - mean[:, None]) * self._weights_free
        weights = weights * self._alpha[:, None]
        if self._carries and self._has_slack:
            p = p - self._k * weights.sum(1)
        p = p + torch.where(n_slots == 0.0, self._k * image, torch.zeros_like(image))
        p = p + self.noise * self._noise_free * self._alpha / sigma_0
        shared = (image / n_slots.clamp(min=1.0))[:, None] * self._slots
        coefficients = weights + shared
        if not base.is_analytic:  # row 0 is x_0 itself
            rest = torch.zeros(n, dtype=torch.float64)
            p = torch.cat([torch.ones(1, dtype=torch.float64), p[1:]])
            coefficients = torch.cat([rest[None], coefficients[1:]]) if n else coefficients
        constant = torch.tensor(base.constant)
        if coefficients.shape[1] > n:
            constant = constant + coefficients[:, n]
        return Rows(
            sigma_0=sigma_0,
            times=times,
            p0=p,
            q=torch.tensor(base.q) + coefficients[:, :n],
            constant=constant,
            network_times=self._network_times(move, times),
        )

    def project(self) -> None:
        """Puts every level and every time told back into its range, and the levels in order."""
        with torch.no_grad():
            moved = self.levels.clamp(self._low - self._lam, self._high - self._lam)
            self.levels.copy_(torch.where(self._levels_free, moved, 0.0))
            lam = self._lam + self.levels
            in_order = torch.cummax(lam, 0).values
            behind = self._levels_free & (in_order > lam)
            self.levels.copy_(torch.where(behind, in_order - self._lam, self.levels))
            centre = self._told + self.levels[:-1]
            low, high = self._told_range
            told = torch.clamp(self.told, low - centre, high - centre)
            self.told.copy_(torch.where(self._told_free, told, 0.0))

    def moved_table(self) -> FreeTable:
        """The table at the present moves, as numbers."""
        with torch.no_grad():
            rows = self.rows()
        times = np.minimum.accumulate(np.minimum(rows.times.numpy(), self.table.first_time))
        first_time = self.table.first_time
        if not self.table.is_analytic:
            times = np.minimum.accumulate(rows.times.numpy())
            first_time = float(times[0])
        return replace(
            self.table,
            first_time=first_time,
            times=times,
            p0=rows.p0.numpy(),
            q=rows.q.numpy(),
            constant=rows.constant.numpy(),
            network_times=rows.network_times.numpy(),
        )

    def _set_bounds(self, first_lam: float, trained: tuple[float, float]) -> None:
        high, low = (self.table.process.lam(t) for t in trained)
        told = self._told[torch.isfinite(self._told)].tolist()
        self._told_range = min([low, *told]), max([high, *told])
        own = self._lam[self._is_level].tolist()
        least, most = min([low, *own]), max([high, *own])
        fixed = torch.where(self._levels_free, torch.full_like(self._lam, most), self._lam)
        self._high = torch.cummin(fixed.flip(0), 0).values.flip(0)
        self._low = torch.full_like(self._lam, least)
        if self.table.is_analytic:
            self._low = self._low.clamp(min=first_lam)

    def _network_times(self, move: Tensor, times: Tensor) -> Tensor:
        base, is_call = self.table, self._is_level[:-1]
        total = move[:-1] + self.told * self._told_free
        low, high = self._told_range
        with torch.no_grad():  # with the rows where nothing tells them apart, to the last digit
            lam = torch.where(is_call, (self._told + total).clamp(low, high), self._told)
            same = torch.tensor(base.network_times == base.times[:-1])
            same &= (self.told * self._told_free == 0.0) & (lam == self._told + total)
        free = self._times(total, base.network_times, self._told, is_call, lam)
        return torch.where(same, times[:-1], free).detach() + (free - free.detach())

    def _times(
        self,
        move: Tensor,
        base: Array,
        lam: Tensor,
        movable: Tensor,
        moved: Tensor | None = None,
    ) -> Tensor:
        """The times at lam + move where ``movable``, with their derivative in ``move``."""
        process = self.table.process
        with torch.no_grad():
            target = lam + move if moved is None else moved
            values = [
                process.time_of_lam(at) if free and at != old else t
                for t, at, old, free in zip(
                    base.tolist(), target.tolist(), lam.tolist(), movable.tolist(), strict=True
                )
            ]
        value = _wide(values)
        safe = torch.where(movable, value, _safe_time(process))
        step = torch.where(movable, 1.0 / _slope(process, safe), 0.0)
        return value + (move - move.detach()) * step

    def _of_level(self, curve: Callable[[Tensor], Tensor], times: Tensor, fixed: Tensor) -> Tensor:
        safe = torch.where(self._is_level, times, _safe_time(self.table.process))
        return torch.where(self._is_level, curve(safe), fixed)


def trained_range(process: NoiseProcess) -> tuple[float, float]:
    """The times, cleanest first, that a network of ``process`` may be told; all have a finite
    lam.
    """
    low, high = process.time_range
    if isinstance(process, VpDiscrete):
        return 0.0, high
    least = getattr(process, "sigma_min", low + _LEAST_TIME * (high - low))
    is_pure = process.alpha(high) <= 0.0
    return float(least), high - (_LEAST_TIME * (high - low) if is_pure else 0.0)


def run_rows(
    network: Callable[[Tensor, Tensor], Tensor], table: FreeTable, rows: Rows, noise: Tensor
) -> Tensor:
    """The images that the table makes of ``noise`` (B, C, H, W); `sample` with derivatives.

    ``network(x, t)`` is called once per row but the last, with ``t`` (B,).
    """
    x_0 = _first_state(table, rows, noise)
    answers: list[Tensor] = []
    image = None
    if table.start.image is not None:
        image = torch.tensor(table.start.image, dtype=noise.dtype, device=noise.device)
    for r in range(table.nfe + 1):
        x = x_0 * rows.p0[r]
        if image is not None:
            x = x + rows.constant[r] * image
        for j in range(r):
            x = x + answers[j] * rows.q[r, j]
        if r < table.nfe:
            t = rows.network_times[r].to(noise).expand(len(noise))
            answers.append(network(x, t))
    return x


def _first_state(table: FreeTable, rows: Rows, noise: Tensor) -> Tensor:
    jump = table.start.jump
    if jump is None:
        return noise * rows.sigma_0
    source = level(table.process, jump.from_time)
    start_map: StartMap = start_map_of(jump, source, level(table.process, table.first_time))
    return jumped(start_map, noise * start_map.noise_scale)


def _slope(process: NoiseProcess, times: Tensor) -> Tensor:
    """d lam / d t at ``times``."""
    with torch.enable_grad():
        t = times.detach().requires_grad_()
        lam = torch.log(process.alpha(t)) - torch.log(process.sigma(t))
        (slope,) = torch.autograd.grad(lam.sum(), t)
    return slope


def _safe_time(process: NoiseProcess) -> Tensor:
    return _wide(process.time_of_lam(0.0))


def _wide(values: "float | list[float]") -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _leaf(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, requires_grad=True)
