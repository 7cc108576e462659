"""Eigenvalue problems and products of matrices in float64, on the device where that is a GPU.

A worker with a GPU often has one thread of a CPU, and a distance of 2,048 dimensions asks for the
eigenvalues of a matrix of that size: seconds there.  Small matrices stay with NumPy, and so does
everything where the device is a CPU or has no memory left; a GPU's numbers are those up to
rounding.  Arrays come and go, since moving one takes a fraction of what its eigenvalues do.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

LEAST = 512
"""Dimensions from which a matrix is sent to a GPU."""

_ROWS = 8192  # of a tall matrix, on the device at once


def eigenvalues_between(left: Array, matrix: Array, right: Array, device: torch.device) -> Array:
    """The eigenvalues (n,) of ``left matrix right``, which is symmetric, from the lowest: of
    (n, d), (d, d) and (d, n).
    """
    if goes_to(device, len(matrix)):
        found = _on(
            device, lambda a, m, b: (torch.linalg.eigvalsh(a @ m @ b),), left, matrix, right
        )
        if found is not None:
            return found[0]
    return np.asarray(np.linalg.eigvalsh(left @ matrix @ right))


def eigensystem(matrix: Array, device: torch.device) -> tuple[Array, Array]:
    """The eigenvalues (d,) of a symmetric matrix (d, d), from the lowest, and its eigenvectors,
    the columns of (d, d).
    """
    found = _on(device, torch.linalg.eigh, matrix) if goes_to(device, len(matrix)) else None
    values, vectors = np.linalg.eigh(matrix) if found is None else found
    return values, vectors


def gram(rows: Array, device: torch.device) -> Array:
    """The sum (d, d) of the outer products of rows (n, d) with themselves."""
    if not goes_to(device, rows.shape[1]):
        return np.asarray(rows.T @ rows)
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for part in _portions(rows):
        found = _on(device, lambda x: (x.T @ x,), part)
        total += part.T @ part if found is None else found[0]
    return total


def product(rows: Array, matrix: Array, device: torch.device) -> Array:
    """Rows (n, d) times a matrix (d, k)."""
    if not goes_to(device, len(matrix)):
        return np.asarray(rows @ matrix)
    made = []
    for part in _portions(rows):
        found = _on(device, lambda x, m: (x @ m,), part, matrix)
        made.append(part @ matrix if found is None else found[0])
    return np.concatenate(made)


def goes_to(device: torch.device, dimensions: int) -> bool:
    """Whether matrices of so many dimensions are computed with there, and not by NumPy."""
    return device.type == "cuda" and dimensions >= LEAST


def _portions(rows: Array) -> list[Array]:
    return np.array_split(rows, max(1, -(-len(rows) // _ROWS)))


@torch.inference_mode()
def _on(
    device: torch.device, compute: Callable[..., tuple[Tensor, ...]], *given: Array
) -> list[Array] | None:
    """What is computed of arrays on a device; None where its memory is full."""
    try:
        found = compute(*(torch.tensor(each, device=device) for each in given))
        return [each.cpu().numpy() for each in found]
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
