r"""SA-Solver: stochastic Adams steps of the reverse SDE (arXiv:2309.05019).

The formulas are those of `s3search.rules.reverse_sde`, kind `sde` with eta = tau^2; f is the
polynomial in lam through the predictions at ``points``, as many as the order:

    x_t = (state's part) + sum_j w_j f_j + (noise's part)

    sum_j w_j (lam_j - lam_s)^k = k! F_k,   k = 0 .. n-1,   F_k the weight of f^(k)

The predictor's points are the newest.  The corrector of order n starts before the newest point,
takes it and the n - 1 before it, and has the draw of its predictor.  ``rescaled`` replaces F_1 of
two points by (1 + eta) alpha_t h^2 / 2 (data alone; the paper's appendix D, for few steps), as
UniPC's B_1 does.
"""

import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from s3search.rules.adams import joined
from s3search.rules.base import Objection, endless_step, missing_points
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.noise import NoiseKind
from s3search.rules.points import Index, Level, Point, Prediction
from s3search.rules.reverse_sde import ReverseSdeRule


class StochasticAdams(ReverseSdeRule):
    """One stochastic Adams step from ``start`` through ``points``, predictor or corrector."""

    rule: Literal["stochastic_adams"] = "stochastic_adams"
    points: tuple[Index, ...] = Field(default=(-1,), min_length=1, max_length=4)
    rescaled: bool = False

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.noise.kind is not NoiseKind.SDE:
            raise ValueError(f"noise.kind: SA-Solver needs 'sde', found {self.noise.kind.value!r}")
        if self.rescaled and (len(self.points) != 2 or self.prediction is not Prediction.DATA):
            raise ValueError("rescaled: only a step of the data through two points can be")
        return self

    @property
    def tau(self) -> float:
        """The square root of eta."""
        return math.sqrt(self.noise.amount)

    @property
    def n_points(self) -> int:
        """The number of predictions."""
        return len(self.points)

    @property
    def title(self) -> str:
        """The name in pictures."""
        return "SA-Solver"

    @property
    def details(self) -> str:
        """tau, the scale of the noise, and whether it is rescaled."""
        scale = "" if self.noise.keeps_variance else f", s_noise {self.noise.scale:.3g}"
        return f"tau {self.tau:.3g}{scale}" + (", rescaled" if self.rescaled else "")

    def corrector(self) -> Self:
        """The step through the new point as well, with the draw of this one."""
        changed = {"start": self.start - 1, "points": joined(self.points)[-4:]}
        rescaled = self.prediction is Prediction.DATA and len(self.points) == 1
        return self.model_copy(update={**changed, "rescaled": rescaled})

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist; beyond one of them the step must have an end and a start."""
        found = missing_points(self.start, self.points, len(levels))
        if found is not None:
            return found
        start = levels[self.start]
        if self.points != (self.start,):
            found = endless_step("points", start, to)
        return found or self.noise_problem(start, to)

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formulas of the module's docstring."""
        start = history[self.start]
        terms = [(self.carried(start.level, to), start.state)]
        for p, w in zip(self.points, self._weights(history, to), strict=True):
            terms.append((w, history[p].predicted(self.prediction)))
        mean = combine(terms)
        return mean + self.drawn(history, to) if self.draws_noise else mean

    def _weights(self, history: Sequence[Point], to: Level) -> list[float]:
        """w_j; a point at pure noise is left out, as in the limit."""
        start = history[self.start].level
        if len(self.points) == 1:
            return self.factors(start, to, 1)
        h = to.lam - start.lam
        places = [(history[p].level.lam - start.lam) / h for p in self.points]
        near = [place for place in places if math.isfinite(place)]
        factors = self.factors(start, to, len(near))
        if self.rescaled and len(near) == 2:
            factors[1] = to.alpha * (1.0 + self.noise.amount) * h * h / 2.0
        rows = np.vander(near, len(near), increasing=True).T
        moments = [math.factorial(k) * factor / h**k for k, factor in enumerate(factors)]
        weights = iter(np.linalg.solve(rows, moments).tolist())
        return [next(weights) if math.isfinite(place) else 0.0 for place in places]
