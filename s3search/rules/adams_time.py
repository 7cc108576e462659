r"""Adams steps with polynomials in time: tAB-DEIS (arXiv:2204.13902, eq. 14-15).

    rho = sigma / alpha,   y = x / alpha,   dy / drho = eps
    tau   the clock: log(1 + rho^2) = (beta_max - beta_min) tau^2 / 2 + beta_min tau
          (the time of a VP process with linear beta, since there alpha^-2 = 1 + rho^2)

eps is replaced by the polynomial *in tau* through its values at ``points`` and integrated over
rho:

    x_t / alpha_t = x_s / alpha_s + sum_j eps_j int_{tau_s}^{tau_t} rho'(tau) l_j(tau) dtau

The authors' code sums 10 000 rectangles; here the integral is exact to rounding.  With rho =
sinh(u) it is int l_j(tau(u)) cosh(u) du, and tau(u) has its nearest branch points at +-i pi / 2
and, where tau turns square-root-like, close to u = 0: so Gauss-Legendre on panels that shrink by
four towards the clean end converges at the same rate on each of them.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from s3search.processes import NoiseProcess, VpLinear, usual_end_time
from s3search.rules.adams import weighed
from s3search.rules.base import first_order, refuse_pure_noise
from s3search.rules.linear_form import LinearForm
from s3search.rules.points import Level, Number, Point, Prediction
from s3search.rules.searched import Limits, MultistepRule, Rng, newest

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_SHRINK = 4.0
_FIT_END = 1e-3  # the clock's time of the end level, as Score SDE and EDM fit it
_SMALLEST_PANEL = 1e-6  # in u; reached only by steps to the clean end itself

Array = npt.NDArray[np.float64]


class AdamsTime(MultistepRule):
    """One Adams step from ``start`` through the noise predictions at ``points``, polynomial in the
    clock's time.
    """

    rule: Literal["adams_time"] = "adams_time"
    beta_min: Number = 0.1
    beta_max: Number = 20.0

    solver: ClassVar = "deis"

    @model_validator(mode="after")
    def _clock_runs(self) -> "AdamsTime":
        # a clock fitted to two levels may have beta_min < 0: then it runs from where rho = 0 again
        if not self.beta_max > max(self.beta_min, 0.0):
            raise ValueError("beta_max: the clock needs beta_max > beta_min and > 0")
        return self

    @classmethod
    def drawn(cls, order: int, prediction: Prediction, limits: Limits, rng: Rng) -> Self:
        """The step in the process's own clock, the usual one where that begins at pure noise."""
        if limits.process.alpha(limits.process.time_range[1]) == 0.0:
            return cls(points=newest(order))
        low, high = clock_of(limits.process)
        return cls(points=newest(order), beta_min=low, beta_max=high)

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        start = history[self.start]
        if self.points == (self.start,):
            return first_order(start, Prediction.NOISE, to)
        _, alpha, sigma, _ = start.level
        nodes = [history[p].level for p in self.points]
        weights = self._integrals(
            [n.sigma / n.alpha for n in nodes], sigma / alpha, to.sigma / to.alpha
        )
        return weighed(start, [history[p] for p in self.points], weights, to)

    def _integrals(self, nodes: Sequence[float], first: float, last: float) -> list[float]:
        u, du = _quadrature(math.asinh(last), math.asinh(first))
        measure = -np.cosh(u) * du  # rho falls along the step
        times, places = self._clock(np.sinh(u)), self._clock(np.array(nodes))
        return [float(measure @ _basis(places, j, times)) for j in range(len(nodes))]

    def _clock(self, rho: Array) -> Array:
        b, d = self.beta_min, self.beta_max - self.beta_min
        total = np.log1p(rho * rho)
        root = np.sqrt(b * b + 2.0 * d * total)
        # the form of the quadratic formula that does not cancel
        return 2.0 * total / (b + root) if b > 0 else (root - b) / d


def clock_of(process: NoiseProcess) -> tuple[float, float]:
    """beta_min and beta_max of the linear VP process whose time the polynomials are in.

    A linear VP process has its own; any other is fitted so that time 1 is its noisy end and time
    1e-3 its usual end level (EDM, arXiv:2206.00364, table 1, vp).
    """
    if isinstance(process, VpLinear):
        return process.beta_min, process.beta_max
    refuse_pure_noise(process)
    ends = (usual_end_time(process), process.time_range[1])
    low, high = (math.log1p(math.exp(-2.0 * process.lam(t))) for t in ends)
    beta_d = 2.0 * (low / _FIT_END - high) / (_FIT_END - 1.0)
    beta_min = high - 0.5 * beta_d
    return beta_min, beta_min + beta_d


def _basis(places: Array, j: int, at: Array) -> Array:
    """The Lagrange polynomial of node j."""
    value = np.ones_like(at)
    for i, place in enumerate(places):
        if i != j:
            value = value * (at - place) / (places[j] - place)
    return value


def _quadrature(low: float, high: float) -> tuple[Array, Array]:
    """Nodes and weights on [low, high] in panels; the weights are negative where low > high."""
    small, large = min(low, high), max(low, high)
    edges = [large]
    while edges[-1] > max(_SHRINK * small, _SMALLEST_PANEL):
        edges.append(edges[-1] / _SHRINK)
    edges.append(small)
    tops, bottoms = np.array(edges[:-1]), np.array(edges[1:])
    half, middle = 0.5 * (tops - bottoms), 0.5 * (tops + bottoms)
    u = middle[:, None] + half[:, None] * _NODES
    sign = 1.0 if high >= low else -1.0
    return u.ravel(), sign * (half[:, None] * _WEIGHTS).ravel()
