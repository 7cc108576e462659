r"""A coefficient table whose numbers an optimiser may move, differentiable in float64.

What moves, row by row, from a `CoefficientTable` with the values 0 in the superscript:

    lam_r  = lam_r^0 + level_r                    rows with 0 < alpha, 0 < sigma; the others stay
    net_r  = net_r^0 + level_r + shift_r          in lam: a network time moves with its level
    N_r    = N_r^0 + sigma_r - sigma_r^0 + alpha_r^0 noise_r      of noise; p0_r = N_r / sigma_0
    q_rj   = q_rj^0 + (what keeps the image in row r) / n_r + alpha_r^0 weight_rj

so that a move of a level alone keeps a constant noise and image where the row carried them, its
cost in the image shared by the n_r calls before.  With ``carries`` every move does: noise_r is 0
and the mean over j is taken out of weight_rj (an analytic start has one weight more to take it).
All moves are of the size of the data, hence one learning rate serves them.  Where rows draw noise,
they carry more or less of it by the state that they have most of, and the calls since that one
share the cost in the image; what they draw, and for what, stands in trainable_noise.py.

Times follow from lam by the process's own inverse, their derivative from alpha and sigma, so that
every process that has these can be moved.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.processes import NoiseProcess, VpDiscrete
from s3search.rules import level
from s3search.rules.linear_form import state
from s3search.schedules.schedule import Schedule, StartKind
from s3search.solvers.coefficients import Array, CoefficientTable, schedule_of_table
from s3search.solvers.start_map import noise_scale_of, start_map_of
from s3search.solvers.tensor_plan import DrawnColumns, TensorPlan
from s3search.solvers.trace import analytic_prediction
from s3search.solvers.trainable_noise import first_noise_level, trainable_noise

_LEAST_TIME = 1e-3  # of the range of a continuous process: no network is trained at its clean end


class Freedom(StrEnum):
    """What of a table may move."""

    COEFFICIENTS = "coefficients"  # of x_0, of the calls and of an analytic start's image
    TIMES = "times"  # the levels of the rows, the first aside
    NETWORK_TIMES = "network_times"  # of the calls, apart from their levels
    START = "start"  # the level of x_0, unless it is pure noise, analytic or behind a jump
    NOISE = "noise"  # of the steps that draw some: how much is fresh, and its scale


class TrainableTable:
    """The moves of one table, leaves of the autograd graph, and the plan that they make."""

    def __init__(
        self,
        table: CoefficientTable,
        *,
        carries: bool,
        free: frozenset[Freedom],
        trained: tuple[float, float],
    ) -> None:
        """``trained`` are the times, cleanest first, that the network was trained at; the table's
        own network times may lie outside.
        """
        self.table, self._carries = table, carries
        process, n, start = table.process, table.nfe, table.start
        first = level(process, table.first_time)
        self._start_map = start_map_of(start.jump, process, first)
        self._noise_scale = noise_scale_of(start, process, first_noise_level(table))
        self._begins_at_sigma = not (start.noise_scale or start.jump or start.noise)
        self._image = None if start.image is None else _wide(start.image)
        own = [level(process, t) for t in table.times.tolist()]
        self._alpha, self._sigma, self._lam = (
            _wide([getattr(at, name) for at in own]) for name in ("alpha", "sigma", "lam")
        )
        self._net = _wide([level(process, t).lam for t in table.network_times.tolist()])
        self._first_alpha, self._first_sigma = first.alpha, first.sigma
        self._k = 0.0
        self._has_slack = start.kind in (StartKind.ZERO_X0, StartKind.UNIT_NOISE)
        if self._has_slack:
            self._k = float(analytic_prediction(start.kind, first).terms.get(state(0), 0.0))
        self._slots = torch.tril(torch.ones((n + 1, n), dtype=torch.float64), diagonal=-1)
        if start.kind is StartKind.AVERAGE_X0:
            self._slots = torch.cat([self._slots, torch.ones_like(self._slots[:, :1])], dim=1)
        self._set_free(free)
        self._set_bounds(first.lam, trained)
        self.moves = [_leaf(n + 1), _leaf(n), _leaf(n + 1), _leaf(*self._slots.shape)]
        self._levels, self._shifts, self._noise, self._weights = self.moves
        self._fresh = trainable_noise(table, is_free=Freedom.NOISE in free, carries=carries)
        self._sharing = self._slots  # the calls that a change of noise has its cost in
        if self._fresh is not None:
            self.moves.extend(self._fresh.moves)
            self._sharing = self._slots * self._fresh.since_main(self._slots.shape[1])

    def plan(self) -> TensorPlan:
        """The table at the present moves, with derivatives."""
        base = self.table
        move = self._levels * self._levels_free
        times = self._times(move, base.times, self._lam, self._is_level)
        alpha = self._of_level(base.process.alpha, times, self._alpha)
        sigma = self._of_level(base.process.sigma, times, self._sigma)
        alpha_0, sigma_0 = _wide(self._first_alpha), _wide(self._first_sigma)
        if not base.is_analytic:
            alpha_0, sigma_0 = alpha[0], sigma[0]
        p, others, coefficients = self._coefficients(alpha, sigma, alpha_0, sigma_0)
        drawn = None
        if self._fresh is not None:
            fresh = self._fresh
            drawn = DrawnColumns(
                rows=fresh.rows, used=fresh.used, p=others, noise=fresh.drawn(sigma)
            )
        constant = torch.tensor(base.constant)
        if coefficients.shape[1] > base.nfe:
            constant = constant + coefficients[:, base.nfe]
        return TensorPlan(
            process=base.process,
            noise_scale=sigma_0 if self._begins_at_sigma else self._noise_scale,
            start_map=self._start_map,
            image=self._image,
            hides_first=base.hides_first,
            times=times,
            p0=p,
            q=torch.tensor(base.q) + coefficients[:, : base.nfe],
            constant=constant,
            network_times=self._network_times(move, times),
            drawn=drawn,
        )

    def project(self) -> None:
        """Puts every level and network time back into its range, and the levels in order."""
        with torch.no_grad():
            moved = self._levels.clamp(self._low - self._lam, self._high - self._lam)
            self._levels.copy_(torch.where(self._levels_free, moved, 0.0))
            lam = self._lam + self._levels
            in_order = torch.cummax(lam, 0).values
            behind = self._levels_free & (in_order > lam)
            self._levels.copy_(torch.where(behind, in_order - self._lam, self._levels))
            centre = self._net + self._levels[:-1]
            low, high = self._net_range
            shifts = torch.clamp(self._shifts, low - centre, high - centre)
            self._shifts.copy_(torch.where(self._shifts_free, shifts, 0.0))
        if self._fresh is not None:
            self._fresh.project()

    def moved_table(self) -> CoefficientTable:
        """The table at the present moves, as numbers."""
        with torch.no_grad():
            plan = self.plan()
        times, first_time = plan.times.numpy(), self.table.first_time
        if not self.table.rises:
            most = first_time if self.table.is_analytic else math.inf
            times = np.minimum.accumulate(np.minimum(times, most))
        if not self.table.is_analytic:
            first_time = float(times[0])
        p, noise = self.table.p, self.table.noise
        if plan.drawn is not None:
            p, noise = plan.drawn.p.numpy(), plan.drawn.noise.numpy()
        return replace(
            self.table,
            p=p,
            noise=noise,
            first_time=first_time,
            times=times,
            p0=plan.p0.numpy(),
            q=plan.q.numpy(),
            constant=plan.constant.numpy(),
            network_times=plan.network_times.numpy(),
        )

    def moved_schedule(self, provenance: Mapping[str, Any]) -> Schedule:
        """The table at the present moves, as a schedule of free steps."""
        return schedule_of_table(self.moved_table(), provenance=provenance)

    def _set_free(self, free: frozenset[Freedom]) -> None:
        table, n = self.table, self.table.nfe
        self._is_level = torch.isfinite(self._lam)
        in_order = not table.rises  # levels that rise stay where they are
        self._levels_free = self._is_level & (Freedom.TIMES in free and in_order)
        self._shifts_free = self._is_level[:-1] & (Freedom.NETWORK_TIMES in free)
        self._weights_free = self._slots * (Freedom.COEFFICIENTS in free)
        has_noise = Freedom.COEFFICIENTS in free and not self._carries
        self._noise_free = _wide([float(has_noise)] * (n + 1))
        if not table.is_analytic:
            fixed = table.start.jump is not None or table.start.noise is not None
            moves = Freedom.START in free and in_order and not fixed
            self._levels_free[0] = self._is_level[0] & moves
            self._noise_free[0] = 0.0

    def _set_bounds(self, first_lam: float, trained: tuple[float, float]) -> None:
        high, low = (self.table.process.lam(t) for t in trained)
        net = self._net[torch.isfinite(self._net)].tolist()
        self._net_range = min([low, *net]), max([high, *net])
        own = self._lam[self._is_level].tolist()
        least, most = min([low, *own]), max([high, *own])
        fixed = torch.where(self._levels_free, torch.full_like(self._lam, most), self._lam)
        self._high = torch.cummin(fixed.flip(0), 0).values.flip(0)
        self._low = torch.full_like(self._lam, least)
        if self.table.is_analytic:
            self._low = self._low.clamp(min=first_lam)

    def _coefficients(
        self, alpha: Tensor, sigma: Tensor, alpha_0: Tensor, sigma_0: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """p0 (E + 1,), p (E + 1, E + 1), and what is added to the coefficients of the calls
        (E + 1, E), with one column more where the start has an image.
        """
        base, n = self.table, self.table.nfe
        p_base = torch.tensor(base.p0)
        own, kept = p_base * self._first_sigma, self._noise * self._noise_free * self._alpha
        others, in_others = torch.tensor(base.p), torch.zeros_like(sigma)
        if self._fresh is None:
            p = (own + sigma - self._sigma) / sigma_0
        else:
            more = self._fresh.carried_more(sigma)
            p = (own + more * self._fresh.by_first) / sigma_0
            others, kept_others = self._fresh.carried(sigma, more, kept)
            in_others = (others * alpha).sum(1) - (torch.tensor(base.p) * self._alpha).sum(1)
            others, kept = others + kept_others, kept * self._fresh.by_first
        image = alpha - self._alpha - (p * alpha_0 - p_base * self._first_alpha) - in_others
        n_slots, n_sharing = self._slots.sum(1), self._sharing.sum(1)
        weights = self._weights * self._weights_free
        if self._carries and not self._has_slack:
            mean = weights.sum(1) / n_slots.clamp(min=1.0)
            weights = (weights - mean[:, None]) * self._weights_free
        weights = weights * self._alpha[:, None]
        if self._carries and self._has_slack:
            p = p - self._k * weights.sum(1)
        p = p + torch.where(n_slots == 0.0, self._k * image, torch.zeros_like(image))
        p = p + kept / sigma_0
        shared = (image / n_sharing.clamp(min=1.0))[:, None] * self._sharing
        coefficients = weights + shared
        if not base.is_analytic:  # row 0 is x_0 itself, or x_0 with noise
            rest = torch.zeros(n, dtype=torch.float64)
            p = torch.cat([p_base[:1], p[1:]])
            coefficients = torch.cat([rest[None], coefficients[1:]]) if n else coefficients
        return p, others, coefficients

    def _network_times(self, move: Tensor, times: Tensor) -> Tensor:
        base, is_call = self.table, self._is_level[:-1]
        shifts = self._shifts * self._shifts_free
        total = move[:-1] + shifts
        low, high = self._net_range
        with torch.no_grad():  # with the rows where nothing tells them apart, to the last digit
            lam = torch.where(is_call, (self._net + total).clamp(low, high), self._net)
            same = torch.tensor(base.network_times == base.times[:-1])
            same &= (shifts == 0.0) & (lam == self._net + total)
        free = self._times(total, base.network_times, self._net, is_call, lam)
        return torch.where(same, times[:-1], free).detach() + (free - free.detach())

    def _times(
        self,
        move: Tensor,
        base: Array,
        lam: Tensor,
        is_level: Tensor,
        moved: Tensor | None = None,
    ) -> Tensor:
        """The times at lam + move where that ``is_level``, with their derivative in ``move``."""
        process = self.table.process
        with torch.no_grad():
            target = lam + move if moved is None else moved
            values = [
                process.time_of_lam(at) if free and at != old else t
                for t, at, old, free in zip(
                    base.tolist(), target.tolist(), lam.tolist(), is_level.tolist(), strict=True
                )
            ]
        value = _wide(values)
        safe = torch.where(is_level, value, _safe_time(process))
        step = torch.where(is_level, 1.0 / _slope(process, safe), 0.0)
        return value + (move - move.detach()) * step

    def _of_level(self, curve: Callable[[Tensor], Tensor], times: Tensor, fixed: Tensor) -> Tensor:
        safe = torch.where(self._is_level, times, _safe_time(self.table.process))
        return torch.where(self._is_level, curve(safe), fixed)


def trained_range(process: NoiseProcess) -> tuple[float, float]:
    """The times, cleanest first, between which a network of ``process`` may be called; all have
    a finite lam.
    """
    low, high = process.time_range
    if isinstance(process, VpDiscrete):
        return 0.0, high
    least = getattr(process, "sigma_min", low + _LEAST_TIME * (high - low))
    is_pure = process.alpha(high) <= 0.0
    return float(least), high - (_LEAST_TIME * (high - low) if is_pure else 0.0)


def _slope(process: NoiseProcess, times: Tensor) -> Tensor:
    """d lam / d t at ``times``."""
    with torch.enable_grad():
        t = times.detach().requires_grad_()
        lam = torch.log(process.alpha(t)) - torch.log(process.sigma(t))
        (slope,) = torch.autograd.grad(lam.sum(), t)
    return slope


def _safe_time(process: NoiseProcess) -> Tensor:
    return _wide(process.time_of_lam(0.0))


def _wide(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _leaf(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, requires_grad=True)
