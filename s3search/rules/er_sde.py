r"""ER-SDE: steps of the reverse SDE with a freely chosen amount of noise (arXiv:2309.06169).

    rho = sigma / alpha, from rho_s to rho_t;  f a growing function;  r = f(rho_t) / f(rho_s)
    D_1 = (D - D_a) / (rho_s - rho_a),   D_2 = 2 (D_1 - D_1 of the step before) / (rho_s - rho_b)

    x_t / alpha_t = r x_s / alpha_s + (1 - r) D
                    + (rho_t - rho_s + f(rho_t) J_0) D_1
                    + ((rho_t - rho_s)^2 / 2 + f(rho_t) J_1) D_2
                    + s_noise sqrt(rho_t^2 - rho_s^2 r^2) xi
    J_k = int_{rho_t}^{rho_s} (u - rho_s)^k / f(u) du

a and b are the two points before s.  f(u) = u is the deterministic flow and u^2 the usual reverse
SDE; the more f grows between, the more noise is fresh.  The published codes take the integrals as
left Riemann sums, 100 nodes in the authors', 200 in ComfyUI's: ``n_nodes``.  Without it they are
exact.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from s3search.rules.base import Objection, RuleModel, endless_step, missing_point
from s3search.rules.linear_form import FRESH, LinearForm, combine
from s3search.rules.noise import StepNoise
from s3search.rules.points import Index, Level, Number, Point, Prediction

Array = npt.NDArray[np.float64]


class NoiseFunction(StrEnum):
    """f; the names of all but the first two are those of the authors' code."""

    ODE = "ode"  # u
    SDE = "sde"  # u^2
    SDE_1 = "sde_1"  # u (exp(-1 / u) + 10)
    SDE_2 = "sde_2"  # u^1.5
    SDE_3 = "sde_3"  # u^2.5
    SDE_4 = "sde_4"  # u^0.9 log10(1 + 100 u^1.5)
    SDE_5 = "sde_5"  # u (exp(u^0.3) + 10), which they and ComfyUI sample with

    def __call__(self, u: Array) -> Array:
        """f(u) of levels u > 0."""
        return _FUNCTIONS[self](u)

    def ratio(self, rho_t: float, rho_s: float) -> float:
        """f(rho_t) / f(rho_s)."""
        below, above = self(np.array([rho_t, rho_s])).tolist()
        return float(below / above)


_FUNCTIONS: dict[NoiseFunction, Callable[[Array], Array]] = {
    NoiseFunction.ODE: lambda u: u,
    NoiseFunction.SDE: lambda u: u**2,
    NoiseFunction.SDE_1: lambda u: u * (np.exp(-1.0 / u) + 10.0),
    NoiseFunction.SDE_2: lambda u: u**1.5,
    NoiseFunction.SDE_3: lambda u: u**2.5,
    NoiseFunction.SDE_4: lambda u: u**0.9 * np.log10(1.0 + 100.0 * u**1.5),
    NoiseFunction.SDE_5: lambda u: u * (np.exp(u**0.3) + 10.0),
}

_HIGHEST_ORDER = 3
_PANELS, _GAUSS = 16, 12  # of the exact integrals, in log u: more digits than floats have
_HIGHEST_RHO = 1e6  # exp(u^0.3) is finite up to here


class ErSde(RuleModel):
    """One ER-SDE step of ``order`` 1 to 3 from the newest point."""

    rule: Literal["er_sde"] = "er_sde"
    order: Index = Field(default=1, ge=1, le=_HIGHEST_ORDER)
    start: Index = -1
    function: NoiseFunction = NoiseFunction.SDE_5
    s_noise: Number = Field(default=1.0, ge=0.0)
    n_nodes: Index | None = Field(default=None, ge=1, le=100_000)

    family: ClassVar = "sde"

    @property
    def draws_noise(self) -> bool:
        """Whether there is any."""
        return self.function is not NoiseFunction.ODE and self.s_noise > 0.0

    @property
    def carries_constants(self) -> bool:
        """Whether a state has the noise of its level."""
        return self.function is NoiseFunction.ODE or self.s_noise == 1.0

    @property
    def n_points(self) -> int:
        """As many as the order says."""
        return self.order

    @property
    def extrapolated(self) -> Prediction:
        """The data."""
        return Prediction.DATA

    @property
    def title(self) -> str:
        """The name in pictures."""
        return "ER-SDE"

    @property
    def details(self) -> str:
        """The function, and the scale of the noise where it is not 1."""
        return self.function.value + ("" if self.s_noise == 1.0 else f", s_noise {self.s_noise:g}")

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist, and the step have both ends."""
        points = tuple(range(self.start - self.order + 1, self.start + 1))
        found = missing_point("order", points, len(levels))
        if found is not None:
            return found
        start = levels[self.start]
        found = StepNoise.end_problem(to) or endless_step("order", start, to)
        if found is not None:
            return Objection("order", found.message)
        if start.sigma > _HIGHEST_RHO * start.alpha:
            return Objection("function", f"begins at sigma / alpha = {_HIGHEST_RHO:g} at most")
        return None

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        points = [history[self.start - k] for k in range(self.order)]
        rhos = [point.level.sigma / point.level.alpha for point in points]
        rho_t, rho_s = to.sigma / to.alpha, rhos[0]
        r = self.function.ratio(rho_t, rho_s)
        weights = [1.0 - r, 0.0, 0.0]
        if self.order > 1:
            factors = _factors(self.function, rho_t, rho_s, self.n_nodes)
            weights = _of_predictions(weights[0], factors[: self.order - 1], rhos)
        terms = [(to.alpha / points[0].level.alpha * r, points[0].state)]
        terms += [(to.alpha * w, p.data) for w, p in zip(weights, points, strict=False)]
        if self.draws_noise:
            fresh = self.s_noise * math.sqrt(max(0.0, rho_t**2 - (rho_s * r) ** 2))
            terms.append((to.alpha * fresh, LinearForm.of(FRESH)))
        return combine(terms)


def _of_predictions(own: float, factors: Sequence[float], rhos: Sequence[float]) -> list[float]:
    """The weights of D and the predictions before it, from those of D_1 and D_2."""
    weights = [own, 0.0, 0.0]
    first = [1.0 / (rhos[0] - rhos[1]), -1.0 / (rhos[0] - rhos[1]), 0.0]  # of D_1
    weights = [w + factors[0] * d for w, d in zip(weights, first, strict=True)]
    if len(factors) == 2:
        before = [0.0, 1.0 / (rhos[1] - rhos[2]), -1.0 / (rhos[1] - rhos[2])]
        scale = 2.0 * factors[1] / (rhos[0] - rhos[2])
        weights = [w + scale * (d - e) for w, d, e in zip(weights, first, before, strict=True)]
    return weights


@lru_cache(maxsize=4096)
def _factors(
    function: NoiseFunction, rho_t: float, rho_s: float, n_nodes: int | None
) -> tuple[float, float]:
    """The weights of D_1 and D_2."""
    u, w = _exact_nodes(rho_t, rho_s) if n_nodes is None else _riemann(rho_t, rho_s, n_nodes)
    end = float(function(np.array([rho_t]))[0])
    fall = rho_t - rho_s
    each = w / function(u) * end
    return fall + float(each.sum()), fall * fall / 2.0 + float((each * (u - rho_s)).sum())


def _riemann(rho_t: float, rho_s: float, n: int) -> tuple[Array, Array]:
    """Nodes and weights of a left sum."""
    width = (rho_s - rho_t) / n
    u: Array = rho_t + np.arange(n, dtype=np.float64) * width
    return u, np.full_like(u, width)


def _exact_nodes(rho_t: float, rho_s: float) -> tuple[Array, Array]:
    """Nodes and weights of Gauss and Legendre's rule on panels in log u."""
    x, w = (np.asarray(each, dtype=np.float64) for each in np.polynomial.legendre.leggauss(_GAUSS))
    edges = np.linspace(math.log(rho_t), math.log(rho_s), _PANELS + 1)
    half = np.diff(edges)[:, None] / 2.0
    u: Array = np.exp(edges[:-1, None] + half * (1.0 + x)).ravel()
    return u, np.asarray(half * w).ravel() * u
