"""Reading files that torch.save wrote, as data only.

Such a file is a pickle, which may name any function to call.  Here only tensors, plain containers
and numpy scalars exist; a file that names anything else is refused before it is called.
"""

import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.checkpoints import is_plain

_MOST_VALUES = 1_000_000
_DEEPEST = 20  # lists within lists; USF's decisions have five

_SCALAR = np.float64(0).__reduce__()[0]  # where numpy rebuilds a scalar
_ALLOWED: list[Any] = [
    # numpy 2 moved the function; files name the place of the numpy that wrote them
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)),
]


def load_tensors(source: str) -> Any:
    """The tensors, containers and numbers of ``source``; raises `InvalidConfig` for all else."""
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            found = torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InvalidConfig(f"{source}: cannot be read ({error})") from error
    except pickle.UnpicklingError as error:
        raise InvalidConfig(
            f"{source}: refused, it holds more than tensors and numbers ({_first_sentence(error)})"
        ) from error
    except Exception as error:  # a damaged archive or pickle can fail in any way
        raise InvalidConfig(
            f"{source}: not a file that torch.save wrote ({_first_sentence(error)})"
        ) from error
    _check(source, found)
    return found


def _check(source: str, found: Any) -> None:
    """Raises `InvalidConfig` for more than a schedule can be, and for tensors that are no plain
    numbers.

    Few bytes may say much: a tensor that repeats a number, a list that holds another one many
    times, or itself.
    """
    left, seen = [(found, 0)], 0
    while left:
        value, depth = left.pop()
        if isinstance(value, Tensor) and not is_plain(value):
            raise InvalidConfig(
                f"{source}: holds a tensor that is no plain list of real numbers ({value.layout}, "
                f"{value.dtype}, on {value.device}); save it as float32, from the CPU"
            )
        seen += value.numel() if isinstance(value, Tensor) else 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise InvalidConfig(
                f"{source}: holds more than {_MOST_VALUES} values, or lists more than {_DEEPEST} "
                "deep, which no schedule has"
            )
        if isinstance(value, Mapping):
            value = [*value.values()]
        if isinstance(value, list | tuple):
            left += [(own, depth + 1) for own in value]


def _first_sentence(error: BaseException) -> str:
    words = str(error).splitlines() or [type(error).__name__]
    for line in words:
        if "Unsupported" in line or "WeightsUnpickler error" in line:
            return line.strip()[:200]
    return words[0].strip()[:200]
