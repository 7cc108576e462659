r"""The noise of a coefficient table as numbers that an optimiser may move.

Row r has N_r of carried noise, that of its states, and draws nu_r anew.  Of a row that draws,
both move on a circle, in the notation of trainable.py:

    V_r  = V_r^0 + sigma_r - sigma_r^0              its noise in all, V_r^0 = hypot(N_r^0, nu_r^0)
    N_r  = V_r cos angle_r,    nu_r = (1 + scale_r) V_r sin angle_r

so that the variance of a level is kept whatever the angle, and scale_r (s_noise, by which the
variance is another) is a number of its own; ``carries`` holds it at 0.  In StepNoise's gamma,
1 - gamma = cos angle.  The weight of the draw is linear in the angle near 0, where in gamma its
derivative is infinite.  Without a draw the expected loss is even in the angle: its gradient is 0
there, and only a seed, a small angle, tells where it falls.

What a row carries more, it carries of its main state: that of which it has most, or else the last
one that drew.
"""

import math

import numpy as np
import torch
from torch import Tensor

from s3search.rules import Level, level
from s3search.solvers.coefficients import CoefficientTable

_SCALES = (0.9, 1.1)  # of a scale's moves: s_noise is within a few percent of 1 wherever it helps


class TrainableNoise:
    """What the rows of a stochastic table carry and draw, at moves that are leaves of the
    autograd graph.
    """

    def __init__(self, table: CoefficientTable, *, is_free: bool, carries: bool) -> None:
        process, n = table.process, table.nfe
        own_levels = [level(process, t) for t in table.times.tolist()]
        self._alpha, self._sigma = (
            _wide([getattr(at, name) for at in own_levels]) for name in ("alpha", "sigma")
        )
        first_sigma = level(process, table.first_time).sigma
        of_first, of_states = table.p0 * first_sigma, table.p * self._sigma.numpy()
        own = of_first + of_states.sum(1)
        self.rows = tuple(np.flatnonzero(table.noise).tolist())
        self.main = _main_states(table, of_first, of_states)
        self._carried, self._drawn = _wide(own), _wide(table.noise)
        self._angle = torch.atan2(self._drawn.abs(), self._carried)
        self._all = torch.hypot(self._carried, self._drawn)
        self._draws = self._drawn != 0.0
        self.by_first = 1.0 - self.main.sum(1)  # 1 where the main state is x_0
        self._p = _wide(table.p)
        self.used = (table.p != 0.0) | (self.main.numpy() != 0.0)
        moves = self._draws.double() * is_free
        if not table.is_analytic:
            moves[0] = 0.0  # more or less noise upon noise is no other start
        self._angles_free, self._scales_free = moves, moves * (not carries)
        self.moves = [_leaf(n + 1), _leaf(n + 1)]
        self._angles, self._scales = self.moves

    def carried_more(self, sigma: Tensor) -> Tensor:
        """N_r - N_r^0 (E + 1,) at the levels' ``sigma`` (E + 1,)."""
        on_circle = self._at(sigma) * torch.cos(self._angle_moved()) - self._carried
        return torch.where(self._draws, on_circle, sigma - self._sigma)

    def carried(self, sigma: Tensor, more: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients p (E + 1, E + 1) of rows that carry ``more`` (E + 1,) than they did,
        and what is added to them by moves ``kept`` (E + 1,) beyond that, which are of the size of
        the states that they are moves of.
        """
        safe = torch.where(self._draws & (sigma > 0.0), sigma, 1.0)  # of columns that are used
        p = (self._p * self._sigma + self.main * more[:, None]) / safe
        return p, self.main * kept[:, None] / torch.hypot(self._alpha, safe)

    def since_main(self, n_slots: int) -> Tensor:
        """1 for the calls from each row's main state on, and for all where that is x_0: of
        ``n_slots`` (E + 1, n_slots), the last of which may be the start's image.
        """
        n = len(self.main)
        since = torch.cumsum(self.main, 1)[:, : n - 1]
        extra = torch.zeros((n, n_slots - since.shape[1]), dtype=torch.float64)
        return torch.maximum(torch.cat([since, extra], dim=1), self.by_first[:, None])

    def drawn(self, sigma: Tensor) -> Tensor:
        """nu_r (E + 1,) at the levels' ``sigma`` (E + 1,)."""
        scale = torch.sign(self._drawn) * (1.0 + self._scales * self._scales_free)
        return scale * self._at(sigma) * torch.sin(self._angle_moved())

    def project(self) -> None:
        """Puts every angle and scale back into its range."""
        with torch.no_grad():
            most = self._angle.clamp(min=0.5 * math.pi)
            angles = self._angles.clamp(-self._angle, most - self._angle)
            self._angles.copy_(angles * self._angles_free)
            low, high = (edge - 1.0 for edge in _SCALES)
            self._scales.copy_(self._scales.clamp(low, high) * self._scales_free)

    def _at(self, sigma: Tensor) -> Tensor:
        return self._all + sigma - self._sigma

    def _angle_moved(self) -> Tensor:
        return self._angle + self._angles * self._angles_free


def trainable_noise(
    table: CoefficientTable, *, is_free: bool, carries: bool
) -> TrainableNoise | None:
    """The noise of a table's rows; None where no row draws."""
    if not table.noise.any():
        return None
    return TrainableNoise(table, is_free=is_free, carries=carries)


def first_noise_level(table: CoefficientTable) -> Level:
    """The level of x_0, which is below that of ``first_time`` where the start adds noise."""
    first = level(table.process, table.first_time)
    noise = table.start.noise
    return first if noise is None else noise.below(table.process, None, first)


def _main_states(table: CoefficientTable, of_first: np.ndarray, of_states: np.ndarray) -> Tensor:
    """1 at each row's main state (E + 1, E + 1), a row of 0 where that is x_0."""
    main = np.zeros_like(table.p)
    for r in range(1, len(main)):
        known = np.flatnonzero(table.noise[:r])
        if not len(known):
            continue
        shares = np.abs(of_states[r, known])
        k = known[shares.argmax()] if shares.max() > 0.0 else known[-1]
        main[r, k] = abs(of_first[r]) <= shares.max()
    return _wide(main)


def _wide(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _leaf(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, requires_grad=True)
