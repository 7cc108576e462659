r"""Measuring DPM-Solver-v3's empirical model statistics (arXiv:2310.13268, sec. 3.2).

With y = x / alpha, D the network's clean image and ' = d/dlam along the probability flow,

    y' = D - y,     f = (1 - l) y - D,     f' = (1 - l)(D - y) - D' - (dl/dlam) y

which is the paper's f = (sigma eps - l x) / alpha in other letters: no factor e^-lam blows up.
Per pixel, with expectations over x = alpha x_0 + sigma eps,

    l    = 1 - E[dD/dy on the diagonal]             minimises E |sigma d eps/dx - diag(l)|^2
    s, b = the least squares of f' on f:            s = cov(f, f') / var(f),  b = E f' - s E f

D' and dD/dy are Jacobian-vector products in forward mode.  The diagonal is exact (one product per
pixel) or Hutchinson's estimate E[v * (J v)] with random signs v, unbiased, whose error per sample
is the length of the rest of the Jacobian's row.

l is known only when a node is done, and dl/dlam when its neighbours are.  So each node keeps the
moments of (D, D', y) up to second order, from which those of f and f' follow for any l: one pass,
mergeable over batches, in float64, one file per node to resume from.  Where f does not vary at all
(data that are one Gaussian with diagonal covariance) s is 0.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.files import write_bytes
from s3search.processes import NoiseProcess
from s3search.rules.ems import EmsStatistics
from s3search.solvers.sample import Denoiser

Array = npt.NDArray[np.float64]
CleanBatches = Callable[[], Iterable[tuple[Tensor, Mapping[str, Any]]]]
"""Gives the clean images (B, ...) and their conditions anew, the same in every call."""

_LEAST_VARIANCE = 1e-9  # of E f^2: below it f is constant but for rounding
_ROUNDING = 1e-12  # (1e-6)^2: float32 networks repeat six digits
_MOMENTS = ("diagonal", "d", "e", "y", "dd", "de", "dy", "ey", "yy")  # d: D, e: D'


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGrid:
    """Nodes uniform in lam, from noisy to clean."""

    lam_start: float
    lam_end: float
    n_intervals: int

    def __post_init__(self) -> None:
        if not self.lam_start < self.lam_end or self.n_intervals < 2:
            raise IncompatibleStatistics(
                f"nodes run from noisy to clean in two intervals or more, found {self}"
            )

    @property
    def lams(self) -> Array:
        """lam at every node."""
        return np.linspace(self.lam_start, self.lam_end, self.n_intervals + 1)


def estimate_ems(  # what is measured, where, how finely, kept where, told to whom
    denoiser: Denoiser,
    batches: CleanBatches,
    grid: NodeGrid,
    *,
    seed: int = 0,
    n_probes: int | None = 1,
    folder: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> EmsStatistics:
    """EMS of ``denoiser`` on ``grid``; each node draws its own noise for the same clean images.

    Costs n_probes + 1 Jacobian-vector products per image and node, C H W + 1 with None (exact
    diagonal). Nodes that an earlier run of the same job left in ``folder`` are not measured again;
    ``provenance`` names the model and the images and is part of the job.
    """
    own = None if folder is None else folder / _job(grid, seed, n_probes, provenance)
    total = grid.n_intervals + 1
    nodes = []
    for node, lam in enumerate(grid.lams):
        path = None if own is None else own / f"node_{node:05d}.safetensors"
        moments = None if path is None else _kept(path)
        if moments is None:
            moments = _measured(denoiser, batches, float(lam), (seed, node), n_probes)
            if path is not None:
                _keep(path, moments)
        nodes.append(moments)
        report(node + 1, total)
    stacked = {name: np.stack([moments[name] for moments in nodes]) for name in _MOMENTS}
    l, s, b = _fitted(stacked, grid.lams)  # noqa: E741  # the paper's letters
    return EmsStatistics(
        lam_start=grid.lam_start,
        lam_end=grid.lam_end,
        l=l,
        s=s,
        b=b,
        provenance={**(provenance or {}), "seed": seed, "n_probes": n_probes},
    )


def _fitted(m: Mapping[str, Array], lams: Array) -> tuple[Array, Array, Array]:
    """l, s and b from the moments at all nodes, by the formulas of the module's docstring."""
    c = m["diagonal"]  # 1 - l
    a = np.gradient(c, lams, axis=0, edge_order=2) - c  # f' = a y + c D - D'
    mean_f = c * m["y"] - m["d"]
    mean_slope = a * m["y"] + c * m["d"] - m["e"]
    square = c * c * m["yy"] - 2 * c * m["dy"] + m["dd"]
    product = c * (a * m["yy"] + c * m["dy"] - m["ey"]) - (a * m["dy"] + c * m["dd"] - m["de"])
    variance = square - mean_f**2
    # f is a difference of c y and D: what their rounding leaves is no variance either
    rounding = _ROUNDING * (c * c * m["yy"] + m["dd"])
    varies = variance > np.maximum(_LEAST_VARIANCE * square, rounding)
    s = np.where(varies, (product - mean_f * mean_slope) / np.where(varies, variance, 1.0), 0.0)
    return 1.0 - c, s, mean_slope - s * mean_f


def _measured(
    denoiser: Denoiser,
    batches: CleanBatches,
    lam: float,
    seed: tuple[int, int],
    n_probes: int | None,
) -> dict[str, Array]:
    """The means of all moments at one node."""
    state = np.random.SeedSequence(seed).generate_state(1, dtype=np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) & (2**63 - 1))
    at = _Node.of(denoiser.process, lam)
    sums: dict[str, Tensor] = {}
    n = 0
    for clean, condition in batches():
        n += len(clean)
        for name, value in _moments(denoiser, clean, condition, at, generator, n_probes).items():
            sums[name] = sums[name] + value if name in sums else value
    if n == 0:
        raise IncompatibleStatistics("EMS need clean images, none were given")
    means = {name: (total / n).cpu().numpy() for name, total in sums.items()}
    if not all(np.isfinite(values).all() for values in means.values()):
        raise EvaluationFailed(
            f"the model's answers or their derivatives are not finite at lam = {lam:.6g}"
        )
    return means


def _moments(
    denoiser: Denoiser,
    clean: Tensor,
    condition: Mapping[str, Any],
    at: "_Node",
    generator: torch.Generator,
    n_probes: int | None,
) -> dict[str, Tensor]:
    """Sums of the moments over one batch, of a sample's shape each, in float64."""
    # image by image, so that what one sees does not depend on its batch
    drawn = [_draw(clean.shape[1:], generator, n_probes or 0) for _ in clean]
    noise, *signs = (torch.stack(parts).to(clean) for parts in zip(*drawn, strict=True))
    x = at.alpha * clean + at.sigma * noise
    t = torch.full((len(x),), at.t, dtype=x.dtype, device=x.device)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return denoiser(x, t, **condition)

    diagonal = torch.zeros_like(x)
    answer = torch.zeros_like(x)
    with torch.no_grad():
        for probe in _unit_vectors(x) if n_probes is None else signs:
            answer, change = _product(network, (x, t), (probe, torch.zeros_like(t)))
            diagonal = diagonal + probe * change * (at.alpha / (n_probes or 1))
        y = x / at.alpha
        flow = at.alpha_slope * y + at.alpha * (answer - y)  # dx/dlam
        answer, slope = _product(network, (x, t), (flow, torch.full_like(t, at.t_slope)))
    d, e, y = answer.double(), slope.double(), y.double()
    values = (diagonal.double(), d, e, y, d * d, d * e, d * y, e * y, y * y)
    return {name: value.sum(0) for name, value in zip(_MOMENTS, values, strict=True)}


def _product(
    function: Callable[..., Tensor], at: tuple[Tensor, ...], along: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """The function's value and its Jacobian times ``along``."""
    value, change, *_ = torch.func.jvp(function, at, along)
    return value, change


def _draw(shape: torch.Size, generator: torch.Generator, n_probes: int) -> list[Tensor]:
    """The noise of one image and its probes of random signs."""
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    signs = [2.0 * torch.randint(0, 2, shape, generator=generator) - 1 for _ in range(n_probes)]
    return [noise, *signs]


def _unit_vectors(x: Tensor) -> Iterator[Tensor]:
    """Every pixel's unit vector, in the shape of x."""
    for pixel in range(x[0].numel()):
        unit = torch.zeros_like(x).flatten(1)
        unit[:, pixel] = 1.0
        yield unit.view_as(x)


@dataclass(frozen=True, slots=True)
class _Node:
    """A level and how fast time and alpha change with lam there."""

    t: float
    alpha: float
    sigma: float
    t_slope: float
    alpha_slope: float

    @staticmethod
    def of(process: NoiseProcess, lam: float) -> "_Node":
        t = torch.tensor(process.time_of_lam(lam), dtype=torch.float64)
        one = torch.ones_like(t)
        alpha, alpha_rate = _product(process.alpha, (t,), (one,))
        sigma, sigma_rate = _product(process.sigma, (t,), (one,))
        t_slope = float(1.0 / (alpha_rate / alpha - sigma_rate / sigma))  # dlam/dt inverted
        return _Node(float(t), float(alpha), float(sigma), t_slope, float(alpha_rate) * t_slope)


def _job(
    grid: NodeGrid, seed: int, n_probes: int | None, provenance: Mapping[str, Any] | None
) -> str:
    content = [grid.lam_start, grid.lam_end, grid.n_intervals, seed, n_probes]
    text = json.dumps([*content, dict(provenance or {})], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _kept(path: Path) -> dict[str, Array] | None:
    """The moments that an earlier run left in ``path``, None if there is no such file."""
    if not path.exists():
        return None
    try:
        found: dict[str, Array] = load(path.read_bytes())
        reason = _wrong_with(found)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        reason = str(error)
    if reason is not None:
        raise IncompatibleStatistics(f"{path}: no node of an EMS job ({reason}); remove it")
    return found


def _wrong_with(moments: Mapping[str, Array]) -> str | None:
    shapes = {moments[name].shape for name in _MOMENTS if name in moments}
    if set(moments) != {*_MOMENTS} or len(shapes) != 1:
        return f"it holds {', '.join(sorted(moments)) or 'nothing'} of the shapes {sorted(shapes)}"
    is_right = all(v.dtype == np.float64 and np.isfinite(v).all() for v in moments.values())
    return None if is_right else "its moments are no finite numbers in double precision"


def _keep(path: Path, moments: Mapping[str, Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save({k: np.ascontiguousarray(v) for k, v in moments.items()}))
