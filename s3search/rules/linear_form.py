"""Linear forms: what an update rule computes with.

A rule is written once, over forms, so that its code reads like the paper's formula; executing it
on forms yields the row of
coefficients that a plan stores.  A form is a sum of coefficients times symbols:

    state(k)   x_k, the k-th state of the trajectory
    data(j)    D_j, the result of the j-th network call
    noise(r)   xi_r, the unit noise that row r drew; FRESH is that of the row being computed
    CONSTANT   the schedule's constant image (the mean image of an analytic start)
    OFFSET     the number 1: a term without state, prediction or image

Coefficients are Python floats: at a few dozen terms per step, plain floats beat arrays by a factor
of ten.  A coefficient may also be a float64 array that broadcasts to a sample, one weight per
pixel, as DPM-Solver-v3 needs them.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Symbol = int
Coefficient: TypeAlias = "float | npt.NDArray[np.float64]"

CONSTANT: Symbol = -1
OFFSET: Symbol = -3
FRESH: Symbol = -2


def state(k: int) -> Symbol:
    """The symbol of x_k."""
    return 2 * k


def data(j: int) -> Symbol:
    """The symbol of D_j."""
    return 2 * j + 1


def noise(r: int) -> Symbol:
    """The symbol of xi_r, r > 0: row 0 is noise itself and draws none."""
    return -2 * r - 2


class LinearForm:
    """An immutable sum of coefficients times symbols; supports +, - and scaling by a number."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Symbol, Coefficient]) -> None:
        self.terms = terms

    @staticmethod
    def of(symbol: Symbol) -> "LinearForm":
        """The form that is one symbol."""
        return LinearForm({symbol: 1.0})

    def __add__(self, other: "LinearForm") -> "LinearForm":
        return combine(((1.0, self), (1.0, other)))

    def __sub__(self, other: "LinearForm") -> "LinearForm":
        return combine(((1.0, self), (-1.0, other)))

    def __mul__(self, factor: Coefficient) -> "LinearForm":
        return LinearForm({symbol: factor * c for symbol, c in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "LinearForm":
        return LinearForm({symbol: c / divisor for symbol, c in self.terms.items()})

    def substitute(self, symbol: Symbol, form: "LinearForm") -> "LinearForm":
        """This form with every occurrence of ``symbol`` written out as ``form``."""
        if symbol not in self.terms:
            return self
        rest = {key: c for key, c in self.terms.items() if key != symbol}
        return combine(((1.0, LinearForm(rest)), (self.terms[symbol], form)))


ZERO = LinearForm({})


def combine(weighted: Iterable[tuple[Coefficient, LinearForm]]) -> LinearForm:
    """Sum of weight times form, in one pass."""
    total: dict[Symbol, Coefficient] = {}
    for weight, form in weighted:
        for symbol, c in form.terms.items():
            total[symbol] = total.get(symbol, 0.0) + weight * c
    return LinearForm(total)
