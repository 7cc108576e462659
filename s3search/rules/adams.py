r"""Adams steps in the noise-to-signal ratio (rhoAB of DEIS, arXiv:2204.13902; Euler and Heun of
EDM, arXiv:2206.00364).

    rho = sigma / alpha,   y = x / alpha,   dy / drho = eps

eps is replaced by the polynomial in rho through its values at ``points`` and integrated exactly
from rho_s to rho_t:

    x_t / alpha_t = x_s / alpha_s + sum_j eps_j int_{rho_s}^{rho_t} l_j(rho) drho,    l_j the
    Lagrange basis

The points [-1] give Euler, [-2, -1] from start -2 as corrector the trapezoid rule of Heun.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from s3search.rules.base import first_order
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.points import Level, Point, Prediction
from s3search.rules.searched import MultistepRule


class Adams(MultistepRule):
    """One Adams step from ``start`` through the noise predictions at ``points``."""

    rule: Literal["adams"] = "adams"

    solver: ClassVar = "adams"
    least_order: ClassVar = 1
    has_corrector: ClassVar = True

    def corrector(self) -> "Adams":
        """The step through the new point as well; after Euler's step the trapezoid rule."""
        return Adams(start=self.start - 1, points=joined(self.points)[-4:])

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        start = history[self.start]
        if self.points == (self.start,):
            return first_order(start, Prediction.NOISE, to)
        nodes = [history[p].level for p in self.points]
        ratio = to.sigma / to.alpha
        first = start.level.sigma / start.level.alpha
        places = [node.sigma / node.alpha for node in nodes]
        weights = integrated_basis(places, first, ratio)
        return weighed(start, [history[p] for p in self.points], weights, to)


def weighed(
    start: Point, points: Sequence[Point], weights: Sequence[float], to: Level
) -> LinearForm:
    """x_t / alpha_t = x_s / alpha_s + sum_j eps_j weights_j."""
    terms = [(to.alpha / start.level.alpha, start.state)]
    terms += [
        (to.alpha * weight, point.predicted(Prediction.NOISE))
        for point, weight in zip(points, weights, strict=True)
    ]
    return combine(terms)


def joined(points: Sequence[int]) -> tuple[int, ...]:
    """The points once there is a new one, and the new one."""
    return (*(p - 1 for p in points), -1)


def integrated_basis(nodes: Sequence[float], low: float, high: float) -> list[float]:
    """Integral of each Lagrange polynomial on ``nodes`` from low to high; exact, in the shifted
    variable rho - low.
    """
    weights = []
    for j, own in enumerate(nodes):
        powers, scale = [1.0], 1.0  # of the shifted variable, the lowest first
        for i, other in enumerate(nodes):
            if i != j:
                raised, times = [0.0, *powers], [(low - other) * c for c in powers] + [0.0]
                powers = [a + b for a, b in zip(raised, times, strict=True)]
                scale *= own - other
        step = high - low
        whole = sum(c * step ** (k + 1) / (k + 1) for k, c in enumerate(powers))
        weights.append(whole / scale)
    return weights
