r"""Momentum over the noise predictions: GHVB, heavy ball and Nesterov (arXiv:2307.11118).

    rho = sigma / alpha,  y = x / alpha,  dy / drho = eps;  b = ``beta`` in (0, 1]
    e_0 .. e_n   the noise predictions at ``points``, oldest first
    AB_k         the mean of the k newest with the constants of Adams and Bashforth

    ghvb         v_i = (1-b) v_{i-1} + b e_i,         slope = sum_j c_kj(b) v_{n-j}   (eq. 11)
    heavy_ball   v_i = (1-b) v_{i-1} + b AB_k(e_i),   slope = v_n
    nesterov     v as heavy_ball,                     slope = (1-b) v_n + b AB_k(e_n)

    x_t / alpha_t = x_s / alpha_s + (rho_t - rho_s) slope

v starts as e_0, and k is limited by the points so far.  v is linear in the e, so the slope is one
mean of all of them.  At b = 1 all three are Adams and Bashforth's; below, c_k(b) is made so that
GHVB keeps order k on equal steps in rho, while the other two lag behind the slope and have order
one.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from s3search.rules.base import Objection, along, first_order, missing_point, noisy_point
from s3search.rules.linear_form import LinearForm
from s3search.rules.points import Index, Level, Number, Point, Prediction
from s3search.rules.searched import Limits, Rng, SearchedRule, newest

# c_kj(b) = (constant + slope b) / (divisor b)
_GHVB: dict[int, tuple[float, tuple[tuple[float, float], ...]]] = {
    1: (1, ((0, 1),)),
    2: (2, ((2, 1), (-2, 1))),
    3: (12, ((18, 5), (-24, 8), (6, -1))),
    4: (24, ((46, 9), (-78, 19), (42, -5), (-10, 1))),
    5: (720, ((1650, 251), (-3420, 646), (2880, -264), (-1380, 106), (270, -19))),
}
HIGHEST_ORDER = max(_GHVB)

_CHANCE_OF_MEMORY = 0.2

Array = npt.NDArray[np.float64]


class MomentumKind(StrEnum):
    """What is averaged; the formulas stand in the module's docstring."""

    GHVB = "ghvb"
    HEAVY_BALL = "heavy_ball"
    NESTEROV = "nesterov"


class Momentum(SearchedRule):
    """One step from the last of ``points`` (oldest first) along the momentum of all of them."""

    rule: Literal["momentum"] = "momentum"
    kind: MomentumKind = MomentumKind.GHVB
    order: Index = Field(ge=1, le=HIGHEST_ORDER)
    beta: Number = Field(gt=0, le=1)
    points: tuple[Index, ...] = Field(default=(-1,), min_length=1)

    solver: ClassVar = "momentum"
    ranges: ClassVar = {"beta": (0.3, 1.0)}

    @classmethod
    def drawn(cls, order: int, prediction: Prediction, limits: Limits, rng: Rng) -> Self:
        """One of the kinds with a memory of its order, and beta."""
        kinds = tuple(MomentumKind)
        kind = kinds[int(rng.integers(len(kinds)))]
        beta = float(rng.uniform(*limits.ranges["beta"]))
        return cls(kind=kind, order=order, beta=beta, points=newest(order))

    @property
    def n_points(self) -> int:
        """How many predictions the newest velocity combines; it remembers more."""
        return min(self.order, len(self.points))

    @property
    def start(self) -> int:
        """The point the step starts from."""
        return self.points[-1]

    @property
    def is_plain(self) -> bool:
        """Whether its memory has no gap and holds as many points as its order."""
        return self.order <= len(self.points) and self.points == newest(len(self.points))

    def with_order(self, order: int) -> Self:
        """The step of that order; what it remembers beyond its order it keeps."""
        return self._with(order, max(order, len(self.points)))

    def simpler(self, highest_order: int) -> Iterator[Self]:
        """Simpler steps of this rule: its memory gives way before its order."""
        most = min(self.order, highest_order)
        for n in range(len(self.points), most, -1):
            yield self._with(most, n)
        for order in range(most, self.least_order - 1, -1):
            yield self._with(order, order)

    def moved(self, limits: Limits, rng: Rng) -> Self | None:
        """The step with a longer or shorter memory, or with another beta."""
        if rng.random() < _CHANCE_OF_MEMORY:
            longer = len(self.points) + (1 if rng.random() < 0.5 else -1)
            return self._with(self.order, max(longer, self.order))
        return super().moved(limits, rng)

    def _with(self, order: int, n_points: int) -> Self:
        return self.model_copy(update={"order": order, "points": newest(n_points)})

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist in their order, none at pure noise unless the step is Euler's."""
        found = missing_point("points", self.points, len(levels))
        if found is None and list(self.points) != sorted(self.points):
            found = Objection("points", f"{list(self.points)} are not given oldest first")
        used = [levels[p] for p in self.points] if found is None else []
        return found or noisy_point("points", used, is_euler=len(self.points) == 1)

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        start = history[self.start]
        if len(self.points) == 1:
            return first_order(start, Prediction.NOISE, to)
        weights = _weights(self.kind, self.order, self.beta, len(self.points))
        slopes = [history[p].predicted(Prediction.NOISE) for p in self.points]
        return along(start, zip(weights.tolist(), slopes, strict=True), to)


def adams_bashforth(order: int) -> tuple[float, ...]:
    """Constants of Adams and Bashforth for equal steps, newest first; orders 1 to 5."""
    return _mixture(order, 1.0)


def _mixture(order: int, beta: float) -> tuple[float, ...]:
    divisor, pairs = _GHVB[order]
    return tuple((constant + slope * beta) / (divisor * beta) for constant, slope in pairs)


def _weights(kind: MomentumKind, order: int, beta: float, n: int) -> Array:
    """Weight of each of the n predictions, oldest first."""
    own = np.eye(n)  # row i: e_i
    is_ghvb = kind is MomentumKind.GHVB
    inputs = own if is_ghvb else np.array([_newest(own, i, order, 1.0) for i in range(n)])
    velocities = np.zeros((n, n))
    velocity = own[0]
    for i in range(n):
        velocity = (1.0 - beta) * velocity + beta * inputs[i]
        velocities[i] = velocity
    if is_ghvb:
        return _newest(velocities, n - 1, order, beta)
    slope: Array = velocity
    if kind is MomentumKind.NESTEROV:
        slope = (1.0 - beta) * velocity + beta * inputs[-1]
    return slope


def _newest(rows: Array, last: int, order: int, beta: float) -> Array:
    """The rows up to ``last``, mixed by c_k(b), k limited by their number."""
    mixture = np.array(_mixture(min(order, last + 1), beta))
    mixed: Array = mixture @ rows[last - len(mixture) + 1 : last + 1][::-1]
    return mixed
