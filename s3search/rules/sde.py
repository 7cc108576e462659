r"""Taylor steps of the reverse SDE: SDE-DPM-Solver, its ++ form, and what is built like them.

The formulas are those of `s3search.rules.reverse_sde`, up to f^(n-1), with the estimates of
derivatives and the relaxations of `s3search.rules.taylor`; a relaxation's z is -H for the data and
h for the noise.  Derivatives are estimated along lam, and for all of the step: h and not H stands
beside them.

Data, kind `sde`: SDE-DPM-Solver++ (arXiv:2211.01095) with k-diffusion's eta, 1 in the paper.  With
kind `eta` the state is that of an ancestral step, as in k-diffusion's DPM-Solver++(SDE).  Noise:
SDE-DPM-Solver.  With eta 0 both are the deterministic Taylor steps.  ``along_path`` puts the draws
of inner points together (SEEDS, arXiv:2305.14267).
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from s3search.rules.base import MAX_ORDER, Objection
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.noise import NoiseKind
from s3search.rules.points import Index, Level, Point
from s3search.rules.relaxation import RelaxationKind
from s3search.rules.reverse_sde import ReverseSdeRule
from s3search.rules.taylor import (
    Derivative,
    Taylor,
    derivative_weights,
    relaxations_in_words,
    with_full_estimates,
)

_UNBOUNDED = (RelaxationKind.LINEAR, RelaxationKind.UNIPC_BH1)  # as H grows


class SdeTaylor(ReverseSdeRule):
    """One Taylor step of the reverse SDE; without ``derivatives`` each is estimated from all
    ``order - 1`` points before the start.
    """

    rule: Literal["sde"] = "sde"
    order: Index = Field(ge=1, le=MAX_ORDER)
    derivatives: tuple[Derivative, ...] = ()
    along_path: bool = False

    @model_validator(mode="before")
    @classmethod
    def _estimate_fully_by_default(cls, values: Any) -> Any:
        return with_full_estimates(values)

    @model_validator(mode="after")
    def _path_fits(self) -> Self:
        kind = self.noise.kind
        if self.along_path and kind is not NoiseKind.SDE:
            raise ValueError(f"noise.kind: a path needs 'sde', found {kind.value!r}")
        return self

    @property
    def plain(self) -> Taylor:
        """The step without noise."""
        return Taylor(
            prediction=self.prediction,
            order=self.order,
            start=self.start,
            derivatives=self.derivatives,
        )

    @property
    def n_points(self) -> int:
        """As many as the order says."""
        return self.order

    @property
    def title(self) -> str:
        """The name in pictures."""
        return "SDE Taylor"

    @property
    def details(self) -> str:
        """The amount of noise, and the relaxations."""
        return ", ".join((self.noise.in_words, *relaxations_in_words(self.derivatives)))

    def corrector(self) -> Self:
        """The corrector of the Taylor step, with the draw of this one."""
        plain = self.plain.corrector()
        changed = {"order": plain.order, "start": plain.start, "derivatives": plain.derivatives}
        return self.model_copy(update=changed)

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """What stands against the Taylor step, and an end without room for noise."""
        found = self.plain.problem(levels, to)
        if found is not None or not self.draws_noise:
            return found
        start = levels[self.start]
        found = self.noise_problem(start, to)
        used = [each.relaxation.kind for each in self.derivatives if each.relaxation is not None]
        is_endless = found is None and self.noise.ratio_below(start, to) == 0.0
        if is_endless and any(kind in _UNBOUNDED for kind in used):
            return Objection("derivatives", "this relaxation has no value where all noise is new")
        return found

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` by the formulas of `s3search.rules.reverse_sde`."""
        if not self.noise.amount:
            return self.plain.next_state(history, to)
        start = history[self.start]
        mean = combine(
            (
                (self.carried(start.level, to), start.state),
                *self._predictions(history, self.factors(start.level, to, self.order), to),
            )
        )
        passed = history[len(history) + self.start + 1 :] if self.along_path else ()
        return mean + self.drawn(history, to, passed) if self.draws_noise else mean

    def _predictions(
        self, history: Sequence[Point], factors: Sequence[float], to: Level
    ) -> list[tuple[float, LinearForm]]:
        """The predictions with their weights, from those of the derivatives."""
        start, own = history[self.start].level, self.start
        z = self.length(start, to) if self.derivatives else 0.0
        weights: dict[int, float] = {own: factors[0]}
        for d, derivative in enumerate(self.derivatives, start=1):
            factor = factors[d]
            if derivative.relaxation is not None:
                factor *= derivative.relaxation.factor(z, self.prediction)
            distances = [history[p].level.lam - start.lam for p in derivative.points]
            for p, a in zip(derivative.points, derivative_weights(d, distances), strict=True):
                weights[p] = weights.get(p, 0.0) + factor * a
                weights[own] -= factor * a
        return [(w, history[p].predicted(self.prediction)) for p, w in weights.items() if w]
