r"""Taylor steps of the exponential integrator with freely estimated derivatives.

The unified sampling framework of USF / S3 (arXiv:2312.07243, sec. 3):

    s, t        start point and target;  h = lam_t - lam_s
    f           the prediction (noise or data) as a function of lam;  f_p its value at point p
    n           order

    noise:  x_t = (alpha_t / alpha_s) x_s - sigma_t sum_{k<n} h^{k+1} phi_{k+1}(h)  f^(k)
    data:   x_t = (sigma_t / sigma_s) x_s + alpha_t sum_{k<n} h^{k+1} phi_{k+1}(-h) f^(k)

f^(0) = f_s.  f^(d) for d >= 1 is estimated from m >= d points p_1..p_m: with D_j = lam_j - lam_s
the weights a solve sum_j a_j D_j^i / i! = [i = d], i = 1..m, and f^(d) = sum_j a_j (f_j - f_s).
A relaxation multiplies one estimate; with z = h for noise and z = -h for data:

    dpmsolver-2, unipc-bh2   phi_1(z) / (2 phi_2(z))        unipc-bh1   1 / (2 phi_2(z))
    0.5exp, -0.5exp          1 +- (e^z - 1) / 2             linear      1 + c h           scale   c

DPM-Solver(++) 2M/3M and 2S/3S, UniPC-2 predictors and USF's correctors are all special cases.

The third prediction, v3, is that of DPM-Solver-v3 with EMS statistics (ems.py has its letters):

    f_q = (sigma_q eps_q - l_q x_q) / alpha_q,      g_q = e^(S_i - S_q) f_q - beta_q
    x_t = alpha_t e^(L_i - L_j) [ x_s / alpha_s - sum_{k<n} E_k g^(k) - drift ]

i, j and q are the nodes nearest to start, target and point; alpha and the lam that derivatives are
estimated with are exact, as in USF's code.  Its z is h.  Where the times are nodes this is
DPM-Solver-v3 itself.  Where start and target are nearest to one node, i = j, all integrals are
empty and x / alpha stays where it is: USF's code does that, and published schedules hold such
steps.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from s3search.rules.adams import joined
from s3search.rules.base import MAX_ORDER, Objection, endless_step, first_order, missing_point
from s3search.rules.ems import EmsNodes, EmsStatistics
from s3search.rules.exponential import phi
from s3search.rules.linear_form import OFFSET, Coefficient, LinearForm, combine
from s3search.rules.points import Index, Level, Part, Point, Prediction
from s3search.rules.relaxation import Relaxation
from s3search.rules.searched import SearchedRule


class Derivative(Part):
    """How one derivative is estimated: from which points, and rescaled by what."""

    points: tuple[Index, ...] = Field(min_length=1)
    relaxation: Relaxation | None = None


def with_full_estimates(values: Any) -> Any:
    """The fields of a Taylor step; where they name no derivatives, each from all ``order - 1``
    points before the start.
    """
    if not isinstance(values, dict) or "derivatives" in values:
        return values
    order, start = values.get("order"), values.get("start", -1)
    if not isinstance(order, int) or not isinstance(start, int) or not 1 < order <= MAX_ORDER:
        return values
    points = tuple(range(start - order + 1, start))
    return {**values, "derivatives": (Derivative(points=points),) * (order - 1)}


def relaxations_in_words(derivatives: Sequence[Derivative]) -> list[str]:
    """Each relaxation of these derivatives with its coefficient."""
    factors = (each.relaxation for each in derivatives if each.relaxation is not None)
    return [
        factor.kind.value + ("" if factor.coefficient is None else f" {factor.coefficient:+.3g}")
        for factor in factors
    ]


class Taylor(SearchedRule):
    """One Taylor step; without ``derivatives`` each is estimated from all ``order - 1`` points
    before the start.
    """

    rule: Literal["taylor"] = "taylor"
    prediction: Prediction
    order: Index = Field(ge=1, le=MAX_ORDER)
    start: Index = -1
    derivatives: tuple[Derivative, ...] = ()

    family: ClassVar = "dpm"
    solver: ClassVar = "taylor"
    least_order: ClassVar = 1
    has_corrector: ClassVar = True

    @model_validator(mode="before")
    @classmethod
    def _estimate_fully_by_default(cls, values: Any) -> Any:
        return with_full_estimates(values)

    @property
    def n_points(self) -> int:
        """The number of points it looks at: as many as the order says."""
        return self.order

    @property
    def extrapolated(self) -> Prediction:
        """The noise, the data or v3."""
        return self.prediction

    @property
    def details(self) -> str:
        """The relaxations of its derivatives."""
        return ", ".join(relaxations_in_words(self.derivatives))

    @property
    def is_plain(self) -> bool:
        """Never: a search writes the plain steps by choices, and keeps the others whole."""
        return False

    def corrector(self) -> "Taylor":
        """USF's recipe: the order rises by one, to 5 at most, and relaxations are dropped."""
        own = [joined(derivative.points) for derivative in self.derivatives]
        points = (*own, own[-1])[: MAX_ORDER - 1] if own else ((-1,),)
        return Taylor(
            prediction=self.prediction,
            order=len(points) + 1,
            start=self.start - 1,
            derivatives=tuple(Derivative(points=each) for each in points),
        )

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """Order, derivative count and point indices must fit the history."""
        n_points = len(levels)
        if self.order > n_points:
            return Objection(
                "order",
                f"order {self.order} needs {self.order} evaluated points, only {n_points} exist; "
                "lower the order or move the step later",
            )
        if len(self.derivatives) != self.order - 1:
            return Objection(
                "derivatives",
                f"order {self.order} has {self.order - 1} derivatives, "
                f"found {len(self.derivatives)}",
            )
        found = missing_point("start", (self.start,), n_points)
        for number, derivative in enumerate(self.derivatives, start=1):
            field = f"derivatives[{number - 1}].points"
            if len(derivative.points) < number:
                found = found or Objection(
                    field,
                    f"derivative {number} needs at least {number} points, "
                    f"found {len(derivative.points)}",
                )
            if self.start in derivative.points:
                found = found or Objection(field, f"point {self.start} is the start of the step")
            found = found or missing_point(field, derivative.points, n_points)
        if self.needs_ems and not math.isfinite(to.lam - levels[self.start].lam):
            found = found or Objection(
                "prediction",
                "'v3' has no value for a step that touches the clean end (sigma = 0) or pure "
                "noise (alpha = 0); use 'data'",
            )
        if found is None and self.order > 1:
            found = endless_step("order", levels[self.start], to)
        return found

    @property
    def needs_ems(self) -> bool:
        """Whether the prediction is v3."""
        return self.prediction is Prediction.V3

    def is_covered(self, nodes: EmsNodes, past: Sequence[Level], to: Level) -> bool:
        """Whether all points lie at nodes, and the step, so that it moves, from one to another."""
        points = {self.start, *(p for each in self.derivatives for p in each.points)}
        lams = [past[p].lam for p in points if math.isfinite(past[p].lam)]
        start = nodes.nearest(past[self.start].lam)
        return all(map(nodes.covers, [*lams, to.lam])) and start < nodes.nearest(to.lam)

    def next_state_with(
        self, ems: EmsStatistics, history: Sequence[Point], to: Level
    ) -> LinearForm:
        """The v3 state at ``to`` by the formulas of the module's docstring."""
        start = history[self.start]
        i, j = ems.node(start.level.lam), ems.node(to.lam)
        integrals = ems.interval(i, j)
        h = to.lam - start.level.lam
        weights: dict[int, Coefficient] = {self.start: -integrals.powers[0]}
        for d, derivative in enumerate(self.derivatives, start=1):
            factor: Coefficient = -integrals.powers[d]
            if derivative.relaxation is not None:
                factor = factor * derivative.relaxation.factor(h, self.prediction)
            distances = [history[p].level.lam - start.level.lam for p in derivative.points]
            for p, a in zip(derivative.points, derivative_weights(d, distances), strict=True):
                if not a:
                    continue  # a point at pure noise has no g
                weights[p] = weights.get(p, 0.0) + factor * a
                weights[self.start] = weights[self.start] - factor * a
        terms: list[tuple[Coefficient, LinearForm]] = [
            (1.0 / start.level.alpha, start.state),
            (-integrals.drift, LinearForm.of(OFFSET)),
        ]
        terms += [(w, _relative_prediction(ems, i, history[p])) for p, w in weights.items()]
        return combine(terms) * (to.alpha * integrals.gain)

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formulas of the module's docstring."""
        start = history[self.start]
        base = first_order(start, self.prediction, to)
        if self.order == 1:
            return base
        h = to.lam - start.level.lam
        z, scale = (h, -to.sigma) if self.prediction is Prediction.NOISE else (-h, to.alpha)
        weights: dict[int, float] = {}
        for d, derivative in enumerate(self.derivatives, start=1):
            factor = scale * h ** (d + 1) * phi(d + 1, z)
            if derivative.relaxation is not None:
                factor *= derivative.relaxation.factor(h, self.prediction)
            distances = [history[p].level.lam - start.level.lam for p in derivative.points]
            for p, a in zip(derivative.points, derivative_weights(d, distances), strict=True):
                weights[p] = weights.get(p, 0.0) + factor * a
        terms = [(1.0, base), (-sum(weights.values()), start.predicted(self.prediction))]
        terms += [(w, history[p].predicted(self.prediction)) for p, w in weights.items() if w]
        return combine(terms)


def _relative_prediction(ems: EmsStatistics, i: int, point: Point) -> LinearForm:
    """g of ``point`` relative to node i; what the network was given makes it, not the corrected
    state.
    """
    q = ems.node(point.level.lam)
    scale = ems.growth(i, q) / point.level.alpha
    return combine(
        (
            (scale * point.level.sigma, point.predicted(Prediction.NOISE)),
            (-scale * ems.l[q], point.evaluated_at),
            (-ems.bias(i, q), LinearForm.of(OFFSET)),
        )
    )


def derivative_weights(d: int, distances: Sequence[float]) -> list[float]:
    """Weights a with sum_j a_j D_j^i / i! = [i = d] for i = 1..m.

    A point at infinite distance (the pure-noise start of a flow) has the limiting weight 0, and
    the others carry the estimate as if it were not there; with fewer than d points left the
    derivative's limit is 0.
    """
    near = [x for x in distances if math.isfinite(x)]
    if len(near) < len(distances):
        inner = iter(derivative_weights(d, near) if len(near) >= d else [0.0] * len(near))
        return [next(inner) if math.isfinite(x) else 0.0 for x in distances]
    # In Newton form: the interpolant through (0, 0) and (D_j, F_j) is sum_j F_j l_j(x), l_j(x) =
    # prod_{i != j} x (x - D_i) / (D_j (D_j - D_i)); a_j is d! times the coefficient of x^d in l_j.
    weights = []
    for j, own in enumerate(distances):
        coefficients, denominator = [1.0], own
        for i, other in enumerate(distances):
            if i != j:
                coefficients = [
                    (coefficients[k - 1] if k else 0.0)
                    - (other * coefficients[k] if k < len(coefficients) else 0.0)
                    for k in range(len(coefficients) + 1)
                ]
                denominator *= own - other
        weights.append(math.factorial(d) * coefficients[d - 1] / denominator)
    return weights
