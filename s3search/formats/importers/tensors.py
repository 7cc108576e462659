"""Reading files that torch.save wrote, as data only.

Such a file is a pickle, which may name any function to call.  Here only tensors, plain containers
and numpy scalars exist; a file that names anything else is refused before it is called.
"""

import pickle
import warnings
from typing import Any

import numpy as np
import torch

from s3search.errors import InvalidConfig

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
            return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InvalidConfig(f"{source}: cannot be read ({error})") from error
    except pickle.UnpicklingError as error:
        raise InvalidConfig(
            f"{source}: refused, it holds more than tensors and numbers ({_first_sentence(error)})"
        ) from error
    except _DAMAGED as error:
        raise InvalidConfig(
            f"{source}: not a file that torch.save wrote ({_first_sentence(error)})"
        ) from error


# what a damaged archive or pickle makes the reader stumble over
_DAMAGED = (
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
)


def _first_sentence(error: BaseException) -> str:
    words = str(error).splitlines() or [type(error).__name__]
    for line in words:
        if "Unsupported" in line or "WeightsUnpickler error" in line:
            return line.strip()[:200]
    return words[0].strip()[:200]
