r"""Steps whose coefficients are given as numbers: what an optimisation leaves behind.

    x_t = sum_k p_k x_k + sum_j q_j D_j + noise xi            xi ~ N(0, I)

    p       pairs (point, coefficient) of states; usually one, the oldest state x_0 or the newest
    q       coefficients of the newest len(q) data predictions, oldest first
    noise   weight of fresh unit noise; 0, the default, draws none

The numbers are in native scale, so they belong to the levels they were made for.  A step that
``carries`` keeps a constant image and the noise of its level, whatever the network answers,

    (sum_k p_k sigma_k)^2 + noise^2 = sigma_t^2,      sum_k p_k alpha_k + sum_j q_j = alpha_t

where without fresh noise the sum is sigma_t itself, with its sign.  That ties it to the levels of
its states and of its end; where the network time is another, D still counts as the constant image.
``carries`` false says that the coefficients were optimised without these sums, or that they
combine states of which one has drawn what another has not: then they have to be finite only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from s3search.rules.base import (
    INVARIANT_TOLERANCE,
    MAX_ORDER,
    Objection,
    RuleModel,
    TaylorForm,
    missing_point,
)
from s3search.rules.linear_form import FRESH, LinearForm, combine
from s3search.rules.points import Index, Level, Number, Point, Prediction


class Free(RuleModel):
    """One step by its own coefficients; the legend stands in the module's docstring."""

    rule: Literal["free"] = "free"
    p: tuple[tuple[Index, Number], ...] = ()
    q: tuple[Number, ...] = ()
    noise: Number = 0.0
    carries: Annotated[bool, Field(strict=True)] = True

    family: ClassVar = "free"

    @model_serializer(mode="wrap")
    def _without_unused_noise(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Steps without noise keep the JSON that they had before there was any."""
        data: dict[str, Any] = dump(self)
        if data.get("noise") == 0.0:
            del data["noise"]
        return data

    @model_validator(mode="after")
    def _has_a_term(self) -> "Free":
        if not self.p and not self.q:
            raise ValueError("a free step needs at least one coefficient in p or q")
        return self

    @property
    def carries_constants(self) -> bool:
        """Whether it carries a constant image and noise, as the step itself says."""
        return self.carries

    @property
    def draws_noise(self) -> bool:
        """Whether its own noise has a weight."""
        return self.noise != 0.0

    @property
    def details(self) -> str:
        """The weight of its noise, where it draws any."""
        return f"noise {self.noise:.3g}" if self.draws_noise else ""

    @property
    def n_points(self) -> int:
        """How many predictions the step may combine."""
        return max(1, len(self.q))

    @property
    def counted_order(self) -> int:
        """It has no order of its own: its predictions, as many as another rule may have."""
        return min(self.n_points, MAX_ORDER)

    @property
    def extrapolated(self) -> Prediction:
        """It combines clean images."""
        return Prediction.DATA

    @property
    def extent(self) -> str:
        """The number of its predictions: it has no order."""
        return "1 prediction" if self.n_points == 1 else f"{self.n_points} predictions"

    @property
    def is_inheritable(self) -> bool:
        """Whether it carries constants, which only its own levels allow."""
        return self.carries

    def nearest_taylor(self) -> TaylorForm:
        """The step to the clean end is first order's, any other counts as second order."""
        return TaylorForm(Prediction.DATA, 1 if self == Free(q=(1.0,)) else 2)

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The points must exist; a step that carries must do so from these levels to ``to``."""
        found = missing_point("p", [point for point, _ in self.p], len(levels))
        if found is None and len(self.q) > len(levels):
            found = Objection(
                "q", f"{len(self.q)} coefficients of predictions, the history holds {len(levels)}"
            )
        if found is None and self.carries:
            found = self._lost(levels, to)
        return found

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formula of the module's docstring."""
        newest = history[len(history) - len(self.q) :]
        fresh = [(self.noise, LinearForm.of(FRESH))] if self.draws_noise else []
        return combine(
            [(c, history[point].state) for point, c in self.p]
            + [(c, point.data) for c, point in zip(self.q, newest, strict=True)]
            + fresh
        )

    def renumbered(self, moved: Callable[[int], int]) -> Self:
        """The step with a coefficient for every call: its predictions are the newest, one after
        the other, so a new point among them gets one as well.
        """
        q = {moved(j - len(self.q)): c for j, c in enumerate(self.q)}
        return self.model_copy(
            update={
                "p": tuple((moved(point), c) for point, c in self.p),
                "q": tuple(q.get(j, 0.0) for j in range(min(q, default=0), 0)),
            }
        )

    def scaled(self, points: Sequence[float], to: float) -> Self:
        """The step between states that are multiplied by ``points`` and ``to``."""
        return type(self)(
            p=tuple((point, c * to / points[point]) for point, c in self.p),
            q=tuple(c * to for c in self.q),
            noise=self.noise * to,
            carries=self.carries,
        )

    def _lost(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """The problem of a constant noise or image that does not arrive."""
        noises = [c * levels[point].sigma for point, c in self.p]
        images = [c * levels[point].alpha for point, c in self.p] + list(self.q)
        slack = INVARIANT_TOLERANCE * (1.0 + sum(map(abs, noises + images)) + abs(self.noise))
        carried = math.fsum(noises)
        noise = math.hypot(carried, self.noise) if self.draws_noise else carried
        for field, what, found, wanted in (
            ("p", "noise", noise, to.sigma),
            ("q", "image", math.fsum(images), to.alpha),
        ):
            error = found - wanted
            if not abs(error) <= slack:
                return Objection(
                    field,
                    f"does not carry a constant {what} to t = {to.t} (off by {error:.1e}); "
                    "correct it, or set carries to false if it was optimised without",
                )
        return None


def euler(start: Level, to: Level, noise: float = 0.0) -> Free:
    """DDIM's step from the newest point at ``start``, to below ``to`` where ``noise`` brings the
    state up; no step at all where ``to`` is the same level.
    """
    scale = math.sqrt(max(0.0, to.sigma**2 - noise**2)) / start.sigma
    q = (to.alpha - scale * start.alpha,)
    return Free(p=((-1, scale),), q=q, noise=noise, carries=abs(noise) <= to.sigma)
