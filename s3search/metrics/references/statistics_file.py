"""Statistics of real images in a ``.npz``: pytorch-fid's keys, and what else makes them mean
something.

    mu (d,), sigma (d, d)   float64; all that pytorch-fid, EDM and guided-diffusion know
    n                       images behind them
    extractor               name of the extractor with the digest of its weights
    source                  digest of the images (`ImageSource.digest`)
    digest                  of mu, sigma and n, as every evaluation stores it

The other tools ignore the last four; files of theirs are read without them.  ``mu_s``, ``sigma_s``
and ``arr_0`` of guided-diffusion are ignored where ``mu`` is.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s3search.errors import IncompatibleStatistics, InvalidConfig
from s3search.files import arrays_in, write_bytes
from s3search.metrics.frechet import FrechetReference

_ROUNDING = 1e-5  # of the largest entry: files of float32 are off by less
_LEAST = 1e-300  # of images that are all alike


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsFile:
    """A reference with what is known of its making."""

    reference: FrechetReference
    extractor: str | None = None
    source: str | None = None

    def save(self, path: Path) -> None:
        """Writes the file whole."""
        arrays: dict[str, Any] = {
            "mu": self.reference.mean,
            "sigma": self.reference.covariance,
            "digest": self.reference.digest,
        }
        optional = {"n": self.reference.n, "extractor": self.extractor, "source": self.source}
        arrays |= {key: value for key, value in optional.items() if value is not None}
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_bytes(path, content.getvalue())

    @staticmethod
    def load(path: Path) -> "StatisticsFile":
        """The content of ``path``; raises `InvalidConfig`."""
        data = arrays_of(path)
        if "mu" not in data or "sigma" not in data:
            raise InvalidConfig(
                f"reference.images: {path} holds no mu and sigma (found "
                f"{', '.join(sorted(data)) or 'nothing'}); pytorch-fid, EDM (.npz), "
                "guided-diffusion and `s3search tools reference` write files that do"
            )
        for key in ("mu", "sigma"):
            if data[key].dtype.kind != "f":
                raise InvalidConfig(
                    f"reference.images: {key} of {path} is {data[key].dtype}, not floats"
                )
        try:
            reference = FrechetReference(
                mean=data["mu"].astype(np.float64),
                covariance=data["sigma"].astype(np.float64),
                n=_count(data["n"]) if "n" in data else None,
            )
            _check_covariance(reference.covariance)
        except (IncompatibleStatistics, TypeError, ValueError) as error:
            raise InvalidConfig(f"reference.images: {path}: {error}") from error
        written = _text(data, "digest")
        if written is not None and written != reference.digest:
            raise InvalidConfig(
                f"reference.images: {path} says it is {written} and is {reference.digest}; it was "
                "changed after it was written, write it again with `s3search tools reference`"
            )
        return StatisticsFile(
            reference=reference,
            extractor=_text(data, "extractor"),
            source=_text(data, "source"),
        )

    def check(self, path: Path, extractor: str) -> None:
        """Raises `InvalidConfig` if another extractor made it."""
        if self.extractor is not None and self.extractor != extractor:
            raise InvalidConfig(
                f"reference.images: {path} was made with the extractor {self.extractor}, the "
                f"study's is {extractor}; write it again with `s3search tools reference`, or name "
                "that extractor in [metric]"
            )

    def check_source(self, path: Path, n: int, source: str | None) -> None:
        """Raises `InvalidConfig` if it is of other images."""
        if self.reference.n is not None and self.reference.n != n:
            raise InvalidConfig(
                f"reference.statistics: {path} is of {self.reference.n} images, the reference has "
                f"{n}; write it again with `s3search tools reference`"
            )
        if source is not None and self.source is not None and self.source != source:
            raise InvalidConfig(
                f"reference.statistics: {path} is of the images {self.source}, the reference's "
                f"are {source} (files, sizes or preparation differ); write it again with "
                "`s3search tools reference`"
            )


def arrays_of(path: Path) -> dict[str, Any]:
    """The arrays of a .npz but for guided-diffusion's images; raises `InvalidConfig`."""
    try:
        found = arrays_in(path, _light)
        if "" in found:
            raise ValueError("a single array")
        return found
    except FileNotFoundError as error:
        raise InvalidConfig(
            f"reference.images: {path} holds no mu and sigma: there is no such file; "
            "`s3search tools reference` writes one"
        ) from error
    except ValueError as error:
        raise InvalidConfig(
            f"reference.images: {path} holds no mu and sigma ({error}); a .npz is needed, a "
            "pickle (.pkl) must be saved as one with numpy.savez(file, mu=..., sigma=...)"
        ) from error


def _light(names: list[str]) -> list[str]:
    return [name for name in names if name != "arr_0" or "mu" not in names]


def _count(n: Any) -> int:
    value = np.asarray(n)
    if value.shape != () or value.dtype.kind not in "iu" or value < 2:
        raise IncompatibleStatistics(f"n should be a number of images from 2, found {value}")
    return int(value)


def _check_covariance(sigma: Any) -> None:
    """Raises `IncompatibleStatistics` for a matrix that is no covariance, rounding aside."""
    largest = float(np.abs(sigma).max(initial=0.0))
    uneven = float(np.abs(sigma - sigma.T).max(initial=0.0))
    if uneven > _ROUNDING * largest:
        raise IncompatibleStatistics(
            f"sigma is no covariance: it is not symmetric (sigma and its transpose differ by "
            f"{uneven:.3g}, its largest entry is {largest:.3g})"
        )
    try:  # fails unless every eigenvalue is above -tolerance
        np.linalg.cholesky(sigma + _ROUNDING * max(largest, _LEAST) * np.eye(len(sigma)))
    except np.linalg.LinAlgError as error:
        raise IncompatibleStatistics(
            "sigma is no covariance: it has negative eigenvalues; was something else saved under "
            "its name?"
        ) from error


def _text(data: dict[str, Any], key: str) -> str | None:
    return str(data[key]) if key in data else None
