r"""UniPC steps (arXiv:2302.04867, eq. 5-9), predictor and corrector alike.

    s, t     start point and target;  h = lam_t - lam_s;  z = h (noise) or -h (data)
    p_m      the points the update looks at, m = 1..q;  r_m = (lam_m - lam_s) / h
             (1 for the corrector's new point)
    D_m      (f_m - f_s) / r_m
    B(h)     z (bh1) or e^z - 1 (bh2)

    x_t = (exponential Euler step) + c sum_m rho_m D_m,    c = -sigma_t B or -alpha_t B
    sum_m r_m^{i-1} rho_m = i! psi_i / B,  i = 1..q,       psi_i = z phi_{i+1}(z)

with psi_1 = (e^z - 1) / z - 1 and psi_{i+1} = psi_i / z - 1 / (i + 1)!.  One point alone takes
rho = 1/2, as published (the order-2 predictor and the order-1 corrector).
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import field_validator

from s3search.rules.adams import joined
from s3search.rules.base import (
    MAX_ORDER,
    Objection,
    TaylorForm,
    endless_step,
    first_order,
    missing_points,
)
from s3search.rules.exponential import phi
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.points import LINEAR_PREDICTIONS, Index, Level, Point, Prediction
from s3search.rules.relaxation import Relaxation, RelaxationKind
from s3search.rules.searched import Limits, Rng, SearchedRule, newest


class Variant(StrEnum):
    """The function B(h)."""

    BH1 = "bh1"
    BH2 = "bh2"


class UniPC(SearchedRule):
    """One UniPC update from ``start`` through ``points``; without points it is the exponential
    Euler step.
    """

    rule: Literal["unipc"] = "unipc"
    prediction: Prediction
    variant: Variant
    start: Index = -1
    points: tuple[Index, ...] = ()

    family: ClassVar = "unipc"
    solver: ClassVar = "unipc"
    least_order: ClassVar = 1
    has_corrector: ClassVar = True

    @field_validator("prediction")
    @classmethod
    def _needs_no_statistics(cls, prediction: Prediction) -> Prediction:
        if prediction not in LINEAR_PREDICTIONS:
            raise ValueError(
                "UniPC extrapolates 'noise' or 'data'; v3 is a prediction of 'taylor'"
            )
        return prediction

    @classmethod
    def drawn(cls, order: int, prediction: Prediction, limits: Limits, rng: Rng) -> Self:
        """The step through the newest points with one of the variants."""
        variants = tuple(Variant)
        variant = variants[int(rng.integers(len(variants)))]
        return cls(prediction=prediction, variant=variant, points=newest(order)[:-1])

    @property
    def n_points(self) -> int:
        """The start and the points beside it."""
        return len(self.points) + 1

    @property
    def extrapolated(self) -> Prediction:
        """The noise or the data."""
        return self.prediction

    @property
    def title(self) -> str:
        """The name with the variant."""
        return f"UniPC {self.variant.value}"

    @property
    def is_plain(self) -> bool:
        """Whether it starts at the newest point and leaves none out."""
        return self.start == -1 and (*self.points, -1) == newest(self.n_points)

    def is_allowed(self, limits: Limits, to: Level) -> bool:
        """Whether the prediction is one of the allowed."""
        return self.prediction in limits.predictions

    def with_order(self, order: int) -> Self:
        """The step through so many of the newest points."""
        return self.model_copy(update={"points": newest(order)[:-1]})

    def nearest_taylor(self) -> TaylorForm:
        """At order 2 the relaxation of the variant, with which it is the same step."""
        kinds = {Variant.BH1: RelaxationKind.UNIPC_BH1, Variant.BH2: RelaxationKind.UNIPC_BH2}
        relaxation = Relaxation(kind=kinds[self.variant]) if self.n_points == 2 else None
        return TaylorForm(self.prediction, min(self.n_points, MAX_ORDER), relaxation)

    def corrector(self) -> Self:
        """UniPC's own corrector."""
        return self.model_copy(update={"start": self.start - 1, "points": joined(self.points)})

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist and differ from the start."""
        if self.start in self.points:
            return Objection("points", f"point {self.start} is the start of the step")
        found = missing_points(self.start, self.points, len(levels))
        if found is None and self.points:
            found = endless_step("points", levels[self.start], to)
        return found

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formulas of the module's docstring."""
        start = history[self.start]
        base = first_order(start, self.prediction, to)
        if not self.points:
            return base
        h = to.lam - start.level.lam
        noise = self.prediction is Prediction.NOISE
        z = h if noise else -h
        big_b = z if self.variant is Variant.BH1 else math.expm1(z)
        c = -(to.sigma if noise else to.alpha) * big_b
        ratios = [(history[p].level.lam - start.level.lam) / h for p in self.points]
        own = start.predicted(self.prediction)
        terms = [(1.0, base)]
        for p, r, rho in zip(self.points, ratios, _rhos(ratios, z, big_b), strict=True):
            if rho and math.isfinite(r):
                terms += [
                    (c * rho / r, history[p].predicted(self.prediction)),
                    (-c * rho / r, own),
                ]
        return combine(terms)


def _rhos(ratios: list[float], z: float, big_b: float) -> list[float]:
    q = len(ratios)
    if q == 1:
        return [0.5]
    if not all(map(math.isfinite, ratios)):  # a point at pure noise: its limit is to be absent
        inner = iter(_rhos([r for r in ratios if math.isfinite(r)], z, big_b))
        return [next(inner) if math.isfinite(r) else 0.0 for r in ratios]
    rows = np.vander(ratios, q, increasing=True).T
    target = [math.factorial(i) * z * phi(i + 1, z) / big_b for i in range(1, q + 1)]
    return [float(rho) for rho in np.linalg.solve(rows, target)]
