"""What may not get worse while the metric gets better.

A guard is another metric of the same images, and a schedule keeps it where its value is at most
``times`` that of the best published solver (at least, of what is maximised), or at most so much
worse.  Values may be negative, so the limit is taken as a distance from that value v:

    limit = v + (times - 1) |v| + worse_by        minimised, times >= 1 allows more
    limit = v - (1 - times) |v| - worse_by        maximised, times <= 1 allows less

Where v may be 0 a multiple of it is no limit: noise alone says which side of 0 it is on, and by
how little.  What is said as a multiple of such a value is refused before a search
(`s3search.run.guard_check`); ``worse_by`` needs no scale.

The best published solver is the best by the metric itself, of what was measured until then at the
same number of calls.  What a search makes that breaks a guard counts as what did not work: it is
no parent, no threshold, and nothing that a predictor learns from; it is kept in the database as it
is.  Other published solvers, none better by the metric, are heard of as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s3search.search.direction import Direction

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One guard: what people call it, which way is better, and how far it may go."""

    name: str
    direction: Direction
    times: float = 1.0
    worse_by: float = 0.0  # in the metric's own unit

    def limit(self, published: float) -> float:
        """The worst value that keeps it, beside the best published solver's."""
        allowed = self.direction.loss(self.worse_by)
        return published + (self.times - 1.0) * abs(published) + allowed

    def excess(self, value: float, published: float) -> float:
        """By how much the limit is broken, above 0, or kept, below."""
        loss, limit = self.direction.loss(value), self.direction.loss(self.limit(published))
        return loss - limit - _ROUNDING * abs(limit)

    def says(self, value: float, published: float, beside: str) -> str:
        """How a schedule stands to it; ``beside`` says which published one, and where measured."""
        bound = "at most" if self.direction is Direction.MINIMIZE else "at least"
        kept = "kept" if self.excess(value, published) <= 0.0 else "broken"
        return (
            f"guard {self.name}: {value:.4g} beside {published:.4g} of {beside}, "
            f"{bound} {self.limit(published):.4g}: {kept}"
        )


def excesses(
    guards: Sequence[Guard], values: Sequence[float], published: Sequence[float]
) -> tuple[float, ...]:
    """By how much each guard is broken, above 0, by what has these values of them."""
    each = zip(guards, values, published, strict=True)
    return tuple(guard.excess(value, best) for guard, value, best in each)


def broken_of(guards: Sequence[Guard], found: Iterable[float]) -> tuple[str, ...]:
    """The names of the guards that are broken."""
    return tuple(guard.name for guard, excess in zip(guards, found, strict=False) if excess > 0.0)
