r"""Mean and leading eigenpairs of the covariance of images, from one pass.

The first k eigenpairs are kept as the factor F = diag(sqrt(n l)) U^T of the scatter matrix.  A
batch of b images with mean m updates it by the singular value decomposition of the rows

    F,     x_i - m  (b rows),     sqrt(n b / (n + b)) (mean - m)

(Ross et al. 2008, sec. 3), cut to k rows: exact while the data have at most k modes, and otherwise
short of the spectrum's tail, whose variance is kept as one number.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from s3search.errors import IncompatibleStatistics
from s3search.files import write_bytes
from s3search.schedules.jump import MOST_SKEWED, GaussianJump, skewness

Array = npt.NDArray[np.float64]

FORMAT = "s3search.gaussian"
VERSION = "1"


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianStatistics:
    """N(mean, Sigma): the leading eigenpairs, and the variance that all other modes share."""

    mean: Array  # of the samples' shape
    eigenvalues: Array  # (k,), falling
    eigenvectors: Array  # (M, k), M numbers in a sample
    rest: float  # total variance outside the k modes
    n: int  # images
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {
            "mean": (self.mean.shape, self.mean.ndim >= 1),
            "eigenvalues": (self.eigenvalues.shape, self.eigenvalues.ndim == 1),
            "eigenvectors": (
                self.eigenvectors.shape,
                self.eigenvectors.shape == (self.mean.size, self.eigenvalues.size),
            ),
        }
        for name, (shape, fits) in shapes.items():
            if not fits:
                raise IncompatibleStatistics(
                    "Gaussian statistics have a mean of M numbers, k eigenvalues and "
                    f"eigenvectors (M, k), found {name} of shape {shape}"
                )
            values = getattr(self, name)
            if values.dtype.kind != "f" or not np.isfinite(values).all():
                raise IncompatibleStatistics(f"Gaussian statistics: {name} are no finite floats")
        error = skewness(self.eigenvectors.T)
        if not error <= MOST_SKEWED:
            raise IncompatibleStatistics(
                f"Gaussian statistics: the eigenvectors are not orthonormal (off by {error:.1e})"
            )
        least = min(self.rest, self.eigenvalues.min(initial=0.0))
        if not (math.isfinite(self.rest) and least >= 0.0):
            raise IncompatibleStatistics(
                f"variances are 0 or more, found eigenvalues from {least:g} and the rest "
                f"{self.rest:g}"
            )

    @cached_property
    def digest(self) -> str:
        """Hash of mean, eigenpairs and rest; 32 hexadecimal digits."""
        content = hashlib.sha256(repr((self.mean.shape, self.rest)).encode())
        for values in (self.mean, self.eigenvalues, self.eigenvectors):
            content.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
        return content.hexdigest()[:32]

    def jump(self, from_time: float, n_modes: int) -> GaussianJump:
        """The jump with the leading ``n_modes`` eigenpairs; all other directions share the rest of
        the variance.
        """
        kept, left = self.eigenvalues[:n_modes], self.eigenvalues[n_modes:]
        n_others = max(self.mean.size - len(kept), 1)
        return GaussianJump(
            from_time=from_time,
            mean=self.mean.tolist(),
            eigenvalues=kept.tolist(),
            eigenvectors=self.eigenvectors[:, :n_modes].T.tolist(),
            rest=float(self.rest + left.sum()) / n_others,
        )

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file; it appears complete or not at all."""
        arrays = {
            "mean": np.ascontiguousarray(self.mean),
            "eigenvalues": np.ascontiguousarray(self.eigenvalues),
            "eigenvectors": np.ascontiguousarray(self.eigenvectors),
        }
        header = {
            "format": FORMAT,
            "version": VERSION,
            "rest": repr(self.rest),
            "n": str(self.n),
            "provenance": json.dumps(dict(self.provenance), sort_keys=True, allow_nan=False),
        }
        write_bytes(Path(path), save(arrays, metadata=header))

    @staticmethod
    def load(path: str | Path) -> "GaussianStatistics":
        """Reads a file that `save` wrote; raises `IncompatibleStatistics` for any other."""
        try:
            with safe_open(str(path), framework="numpy") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT or header.get("version") != VERSION:
                    raise IncompatibleStatistics(
                        f"expected {FORMAT} version {VERSION}, found "
                        f"{header.get('format')} version {header.get('version')}"
                    )
                return GaussianStatistics(
                    mean=file.get_tensor("mean"),
                    eigenvalues=file.get_tensor("eigenvalues"),
                    eigenvectors=file.get_tensor("eigenvectors"),
                    rest=float(header["rest"]),
                    n=int(header["n"]),
                    provenance=dict(json.loads(header["provenance"])),
                )
        except IncompatibleStatistics as error:
            raise IncompatibleStatistics(f"{path}: {error}") from error
        except (
            OSError,
            SafetensorError,
            KeyError,
            ValueError,
            TypeError,
            RecursionError,
        ) as error:
            raise IncompatibleStatistics(f"{path}: no Gaussian statistics ({error})") from error


def gaussian_statistics(
    batches: Iterable[Tensor], n_modes: int, provenance: Mapping[str, Any] | None = None
) -> GaussianStatistics:
    """The statistics of all images in ``batches``, (B, ...) each; at least two images."""
    n, total = 0, 0.0
    mean, factor, shape = torch.zeros(0), torch.zeros(0), torch.Size()
    for images in batches:
        rows = images.detach().double().cpu().flatten(1)
        if n == 0:
            shape = images.shape[1:]
            mean, factor = torch.zeros(rows.shape[1]).double(), rows[:0]
        b, own = len(rows), rows.mean(0)
        between = (n * b / (n + b)) ** 0.5 * (mean - own)
        stack = torch.cat([factor, rows - own, between[None]])
        total += float((stack[len(factor) :] ** 2).sum())
        _, values, vectors = torch.linalg.svd(stack, full_matrices=False)
        factor = values[:n_modes, None] * vectors[:n_modes]
        mean = mean + (own - mean) * (b / (n + b))
        n += b
    if n < 2:
        raise IncompatibleStatistics(f"a covariance needs at least 2 images, found {n}")
    sizes = factor.norm(dim=1)
    kept = sizes > 1e-12 * sizes[0].clamp(min=1e-300)
    sizes, factor = sizes[kept], factor[kept]
    eigenvalues = (sizes**2 / (n - 1)).numpy()
    return GaussianStatistics(
        mean=mean.reshape(shape).numpy(),
        eigenvalues=eigenvalues,
        eigenvectors=(factor / sizes[:, None]).T.contiguous().numpy(),
        rest=max(0.0, total / (n - 1) - float(eigenvalues.sum())),
        n=n,
        provenance=provenance or {},
    )
