"""Arrays of numbers as JSON holds them: lists of lists, one deep for each axis."""

import math
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, WithJsonSchema


def number_array(found: Any) -> tuple[Any, ...]:
    """``found``, an array or nested sequences of numbers, as nested tuples; raises `ValueError`
    unless it is a rectangular array of at least one axis.
    """
    values = found.tolist() if isinstance(found, np.ndarray) else found
    try:
        shape = np.shape(values)
    except ValueError as error:
        raise ValueError("is not a rectangular array of numbers") from error
    if not shape or 0 in shape:
        raise ValueError("is not a rectangular array of numbers")
    frozen: tuple[Any, ...] = _frozen(values)
    return frozen


def _frozen(values: Any) -> Any:
    """Floats in tuples; -0.0 becomes 0.0, as in a `Number`."""
    if isinstance(values, list | tuple):
        return tuple(map(_frozen, values))
    is_number = isinstance(values, int | float) and not isinstance(values, bool)
    if not is_number or not math.isfinite(values):
        raise ValueError(f"needs finite numbers, found {values!r:.40}")
    return float(values) + 0.0


NumberArray = Annotated[
    tuple[Any, ...],
    BeforeValidator(number_array),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "description": "nested lists of numbers, one deep for each axis of a sample",
            "items": {"type": ["array", "number"]},
        }
    ),
]
"""An array of any rank as nested tuples of numbers, which compare and hash by their content."""
