r"""Empirical model statistics (EMS) of DPM-Solver-v3 (arXiv:2310.13268, sec. 3 and app. A).

Per pixel, at n + 1 nodes uniform in lam:

    l, s, b    f = (sigma eps - l x) / alpha  and its best affine law  df/dlam = s f + b
    L, S, B    int l,  int s,  int e^(-S) b        cumulative trapezoid integrals from node 0

A step from node i to node j needs them only relative to node i.  With
w(lam) = e^((L + S) - (L_i + S_i)) and beta(lam) = e^(S_i) (B - B_i) it uses

    E_k = int_i^j w (lam - lam_i)^k / k! dlam,     drift = int_i^j w beta dlam

by the trapezoid rule on the nodes.  They are the paper's I and C written so that nothing cancels:
E_0 = e^(-L_i - S_i) (I_j - I_i) and drift = e^(-L_i) (C_j - C_i - B_i (I_j - I_i)).

lam, f and x / alpha are the same for a model whatever its process is called, so statistics survive
a change of process.  They belong to one checkpoint and one guidance scale.

Shapes: (n + 1, ...) float64, behind the nodes that of a sample; one number for each node,
(n + 1, 1, 1, 1), holds for samples of any shape.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from s3search.errors import IncompatibleStatistics
from s3search.files import write_bytes

Array = npt.NDArray[np.float64]

FORMAT = "s3search.ems"
VERSION = "1"
MAX_POWER = 4  # E_0 to E_4: the integrals of a fifth-order step
_CACHED_INTERVALS = 256


class EmsNodes(NamedTuple):
    """Which statistics, and where their nodes lie: what a search must know of them."""

    digest: str
    lam_start: float
    lam_end: float
    n_intervals: int

    @property
    def spacing(self) -> float:
        """Distance of neighbouring nodes in lam."""
        return (self.lam_end - self.lam_start) / self.n_intervals

    def covers(self, lam: float) -> bool:
        """Whether ``lam`` lies at a node or within half an interval of one."""
        half = 0.5 * self.spacing
        return self.lam_start - half <= lam <= self.lam_end + half

    def nearest(self, lam: float) -> int:
        """The node nearest to ``lam``, the first or last one if it lies outside."""
        place = (lam - self.lam_start) / self.spacing
        return math.floor(min(max(place, 0.0), float(self.n_intervals)) + 0.5)


class EmsInterval(NamedTuple):
    """The integrals of a step from node i to node j."""

    gain: Array  # e^(L_i - L_j)
    powers: tuple[Array, ...]  # E_0 .. E_4
    drift: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class EmsStatistics:
    """l, s and b between ``lam_start`` (noisy) and ``lam_end``; compared by `digest`.

    ``provenance`` says what they were measured with (plain JSON); it is no part of the digest.
    """

    lam_start: float
    lam_end: float
    l: Array  # (n + 1, ...)  # noqa: E741  # the paper's letter
    s: Array
    b: Array
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lam_start) and math.isfinite(self.lam_end)):
            raise IncompatibleStatistics(
                f"EMS nodes lie at finite lam, found {self.lam_start} to {self.lam_end}"
            )
        if not self.lam_start < self.lam_end:
            raise IncompatibleStatistics(
                f"EMS nodes run from noisy to clean, found lam {self.lam_start} to {self.lam_end}"
            )
        for name in ("l", "s", "b"):
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.ndim < 2 or len(values) < 2:
                raise IncompatibleStatistics(
                    f"EMS {name} has shape (nodes, ...) with two nodes or more, "
                    f"found {values.shape}"
                )
            if values.shape != np.shape(self.l):
                raise IncompatibleStatistics(
                    f"EMS l and {name} differ in shape: {np.shape(self.l)} and {values.shape}"
                )
            if not np.isfinite(values).all():
                raise IncompatibleStatistics(f"EMS {name} holds NaN or infinity")
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    @staticmethod
    def degenerate(lam_start: float, lam_end: float, n: int) -> "EmsStatistics":
        """l = 1, s = b = 0 on n intervals, for images of any shape.

        With them v3 is DPM-Solver++ but for the trapezoid rule: they differ by O(1 / n^2).
        """
        shape = (n + 1, 1, 1, 1)
        return EmsStatistics(
            lam_start=lam_start,
            lam_end=lam_end,
            l=np.ones(shape),
            s=np.zeros(shape),
            b=np.zeros(shape),
        )

    @property
    def n_intervals(self) -> int:
        """One less than the nodes."""
        return len(self.l) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the samples the statistics are for."""
        return self.l.shape[1:]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether they are for samples of this ``shape``, or for all."""
        return math.prod(self.shape) == 1 or self.shape == shape

    @cached_property
    def lams(self) -> Array:
        """lam at every node."""
        return self.lam_start + self.nodes.spacing * np.arange(
            self.n_intervals + 1, dtype=np.float64
        )

    @cached_property
    def digest(self) -> str:
        """Hash of range and arrays; 32 hexadecimal digits."""
        content = hashlib.sha256(repr((self.lam_start, self.lam_end, self.l.shape)).encode())
        for values in (self.l, self.s, self.b):
            content.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
        return content.hexdigest()[:32]

    @cached_property
    def nodes(self) -> EmsNodes:
        """The digest and the nodes alone."""
        return EmsNodes(self.digest, self.lam_start, self.lam_end, self.n_intervals)

    def node(self, lam: float) -> int:
        """The node nearest to ``lam``; raises `IncompatibleStatistics` outside the nodes."""
        if not self.nodes.covers(lam):
            raise IncompatibleStatistics(
                f"lam = {lam:.6g} lies outside the EMS nodes, {self.lam_start:.6g} to "
                f"{self.lam_end:.6g}; use statistics of a wider range, or 'data' or 'noise' there"
            )
        return self.nearest_node(lam)

    def nearest_node(self, lam: float) -> int:
        """The node nearest to ``lam``, the first or last one if it lies outside."""
        return self.nodes.nearest(lam)

    def growth(self, i: int, q: int) -> Array:
        """e^(S_i - S_q)."""
        _, s, _ = self._integrals
        result: Array = np.exp(s[i] - s[q])
        return result

    def bias(self, i: int, q: int) -> Array:
        """beta(lam_q) relative to node i: e^(S_i) (B_q - B_i)."""
        _, s, b = self._integrals
        result: Array = np.exp(s[i]) * (b[q] - b[i])
        return result

    @cached_property
    def _integrals(self) -> tuple[Array, Array, Array]:
        big_l, big_s = (_cumulative(values, self.nodes.spacing) for values in (self.l, self.s))
        return big_l, big_s, _cumulative(np.exp(-big_s) * self.b, self.nodes.spacing)

    @cached_property
    def interval(self) -> Callable[[int, int], EmsInterval]:
        """The integrals from node i to node j >= i, 0 if they are one; the latest 256 are kept."""
        return lru_cache(maxsize=_CACHED_INTERVALS)(self._integrate)

    def _integrate(self, i: int, j: int) -> EmsInterval:
        big_l, big_s, big_b = self._integrals
        own = slice(i, j + 1)
        w = np.exp((big_l[own] - big_l[i]) + (big_s[own] - big_s[i]))
        trapezoid = np.full(j - i + 1, self.nodes.spacing)
        trapezoid[0] -= self.nodes.spacing / 2
        trapezoid[-1] -= self.nodes.spacing / 2
        steps = self.nodes.spacing * np.arange(j - i + 1)
        powers = tuple(
            np.tensordot(trapezoid * steps**k / math.factorial(k), w, axes=1)
            for k in range(MAX_POWER + 1)
        )
        beta = np.exp(big_s[i]) * (big_b[own] - big_b[i])
        drift = np.tensordot(trapezoid, w * beta, axes=1)
        return EmsInterval(np.exp(big_l[i] - big_l[j]), powers, drift)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: caches hold functions, and workers make their own."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file; it appears complete or not at all."""
        header = {
            "format": FORMAT,
            "version": VERSION,
            "lam_start": repr(self.lam_start),
            "lam_end": repr(self.lam_end),
            "digest": self.digest,
            "provenance": json.dumps(dict(self.provenance), sort_keys=True, allow_nan=False),
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ("l", "s", "b")}
        write_bytes(Path(path), save(arrays, metadata=header))

    @staticmethod
    def load(path: str | Path) -> "EmsStatistics":
        """Reads a file that `save` wrote; raises `IncompatibleStatistics` for any other."""
        try:
            with safe_open(str(path), framework="numpy") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT or header.get("version") != VERSION:
                    raise IncompatibleStatistics(
                        f"{path}: expected {FORMAT} version {VERSION}, found "
                        f"{header.get('format')} version {header.get('version')}"
                    )
                l, s, b = (file.get_tensor(name) for name in ("l", "s", "b"))  # noqa: E741
            found = EmsStatistics(
                lam_start=float(header["lam_start"]),
                lam_end=float(header["lam_end"]),
                l=l,
                s=s,
                b=b,
                provenance=dict(json.loads(header["provenance"])),
            )
        except IncompatibleStatistics:
            raise
        except (
            OSError,
            SafetensorError,
            KeyError,
            ValueError,
            TypeError,
            RecursionError,
        ) as error:
            raise IncompatibleStatistics(f"{path}: no EMS statistics ({error})") from error
        if found.digest != header.get("digest"):
            raise IncompatibleStatistics(
                f"{path}: the arrays have digest {found.digest}, the header says "
                f"{header.get('digest')}; the file was changed, measure or copy it again"
            )
        return found


def _cumulative(values: Array, spacing: float) -> Array:
    """Cumulative trapezoid integral along the nodes, 0 at node 0."""
    total = np.zeros_like(values)
    np.cumsum((values[1:] + values[:-1]) * (spacing / 2), axis=0, out=total[1:])
    return total
