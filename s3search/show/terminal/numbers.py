"""Numbers as people read them."""

import math
from collections.abc import Sequence


def number(value: float | None) -> str:
    """Four digits after the point; a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Minutes and seconds, from an hour on hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d} min"


def shape_text(shape: Sequence[int]) -> str:
    """3 x 32 x 32."""
    return " x ".join(map(str, shape))


def spent_words(share: float, budget: str) -> str:
    """How much of a budget is spent, in whole per cent: all of it only at the end."""
    return f"{math.floor(100 * share)} % of the budget of {budget}"


def rounded(n: float) -> str:
    """A large number in three digits: 1,200, 45.6 thousand, 2.35 million."""
    for least, unit, name in (
        (1e9, 1e9, "billion"),
        (1e6, 1e6, "million"),
        (1e4, 1e3, "thousand"),
    ):
        if n >= least:
            return f"{n / unit:.3g} {name}"
    return f"{n:,.0f}"
