"""Numbers as people read them."""

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
