"""EMS measured on closed-form models, where Jacobian and derivatives are known."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, IncompatibleStatistics
from s3search.models.gaussian import GaussianDenoiser, GaussianMixture
from s3search.models.statistics import NodeGrid, estimate_ems
from s3search.processes import NoiseProcess, vp_linear
from s3search.schedules import published
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, SHAPE, gaussian, max_abs, noise

# torch compiles parts of forward-mode differentiation with what it deprecated itself
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

_MEAN = torch.tensor([[[0.3, -0.5], [0.1, 0.8]]], dtype=torch.float64)
_VARIANCES = torch.tensor([0.04, 0.2, 0.7, 1.5], dtype=torch.float64)
_GRID = NodeGrid(lam_start=-3.5, lam_end=3.0, n_intervals=26)


def _diagonal(process: NoiseProcess) -> GaussianDenoiser:
    return GaussianDenoiser(process, _MEAN, _VARIANCES)


def _images(n: int, size: int = 8) -> Any:
    """n images of the diagonal Gaussian, in batches."""
    generator = torch.Generator().manual_seed(5)
    unit = torch.randn((n, 4), generator=generator, dtype=torch.float64)
    drawn = (_MEAN.flatten() + unit * _VARIANCES.sqrt()).reshape(-1, 1, 2, 2)
    return lambda: ((batch, {}) for batch in drawn.split(size))


@pytest.mark.parametrize("n_probes", [None, 2])
@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_statistics_of_a_diagonal_gaussian_are_exact(name: str, n_probes: int | None) -> None:
    process = PROCESSES[name]
    found = estimate_ems(_diagonal(process), _images(16), _GRID, n_probes=n_probes)
    ratio = np.exp(-2 * _GRID.lams)[:, None]  # (sigma / alpha)^2
    variances = _VARIANCES.numpy()
    l = ratio / (variances + ratio)  # noqa: E741
    assert found.l.reshape(-1, 4) == pytest.approx(l, abs=1e-12)
    # f = -l mean does not vary: s = 0 and b is its derivative, l' = -2 l (1 - l) on the nodes
    assert not found.s.any()
    slope = np.gradient(l, _GRID.lams, axis=0, edge_order=2)
    exact = 2 * l * (1 - l) * _MEAN.flatten().numpy()
    assert np.abs(slope + 2 * l * (1 - l)).max() < 0.04  # of the difference quotient
    assert found.b.reshape(-1, 4) == pytest.approx(exact, abs=0.04 * 2)


def test_v3_with_measured_statistics_solves_its_gaussian() -> None:
    process, z = vp_linear(), noise(64)
    denoiser = _diagonal(process)
    low, high = process.lam(1.0), process.lam(1e-3)
    errors = []
    for n in (40, 80, 160):
        grid = NodeGrid(lam_start=low, lam_end=high, n_intervals=n)
        ems = estimate_ems(denoiser, _images(4), grid)
        plan = compile_plan(published.dpm_solver_v3(process, ems, nfe=3), ems)
        exact = denoiser.exact_flow(z * plan.levels[0].sigma, 1.0, plan.levels[-1].t)
        errors.append(max_abs(sample(denoiser, plan, z) - exact))
    other = published.dpmpp_3m(process, nfe=3)
    exact = denoiser.exact_flow(z * process.sigma(1.0), 1.0, 1e-3)
    worst = max_abs(sample(denoiser, compile_plan(other), z) - exact)
    assert errors[-1] < 0.01 * worst
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (slopes > 1.7).all()


def test_s_and_b_are_the_least_squares_of_the_derivative() -> None:
    process = vp_linear()
    means = torch.tensor([-0.8, 0.9], dtype=torch.float64).reshape(2, 1, 1, 1)
    means = means.expand(2, 1, 2, 2) * torch.tensor([[1.0, 0.6], [0.8, 1.2]])
    model = GaussianMixture(
        process, means, torch.tensor([0.3, 0.2]).double(), torch.tensor([0.4, 0.6]).double()
    )
    images = _images(64, 64)
    grid = NodeGrid(lam_start=-0.4, lam_end=0.4, n_intervals=16)
    found = estimate_ems(model, images, grid, seed=3, n_probes=None)
    node, lam, step = 8, 0.0, 1e-4
    f = {d: _f_on_the_flow(model, images, found.l, grid, node, lam + d) for d in (-step, 0, step)}
    slope = (f[step] - f[-step]) / (2 * step)
    for pixel in range(4):
        s, b = np.polyfit(f[0][:, pixel], slope[:, pixel], 1)
        assert found.s[node].reshape(4)[pixel] == pytest.approx(s, rel=1e-4, abs=1e-4)
        assert found.b[node].reshape(4)[pixel] == pytest.approx(b, rel=1e-4, abs=1e-4)


def _f_on_the_flow(
    model: GaussianMixture,
    images: Any,
    l: Any,  # noqa: E741  # the paper's letter
    grid: NodeGrid,
    node: int,
    lam: float,
) -> Any:
    """f near the node, carried there from the job's own states by tiny Euler-midpoint steps."""
    process = model.process
    (clean, _), *_ = list(images())
    state = np.random.SeedSequence((3, node)).generate_state(1, dtype=np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) & (2**63 - 1))
    eps = torch.stack(
        [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in clean]
    )
    here, h = float(grid.lams[node]), lam - float(grid.lams[node])
    y = clean + np.exp(-here) * eps

    def answer(y: Tensor, lam: float) -> Tensor:
        t = process.time_of_lam(lam)
        return model(process.alpha(t) * y, torch.full((len(y),), t, dtype=torch.float64))

    middle = y + h / 2 * (answer(y, here) - y)
    y = y + h * (answer(middle, here + h / 2) - middle)
    gradient = np.gradient(l, grid.lams, axis=0, edge_order=2)[node]
    own = l[node] + h * gradient
    return ((1 - own) * y.numpy() - answer(y, lam).numpy()).reshape(-1, 4)


def test_batches_do_not_matter() -> None:
    grid = NodeGrid(lam_start=-2.0, lam_end=2.0, n_intervals=3)
    whole, parts = (
        estimate_ems(gaussian(vp_linear()), _images(24, size), grid, n_probes=1)
        for size in (24, 5)
    )
    for name in ("l", "s", "b"):
        assert getattr(whole, name) == pytest.approx(getattr(parts, name), abs=1e-9)


class _Interrupted(Exception):
    pass


def test_interrupted_job_goes_on_where_it_stopped(tmp_path: Path) -> None:
    denoiser, images = gaussian(vp_linear()), _images(8)
    exact = estimate_ems(denoiser, images, _GRID)
    calls = []

    def counted() -> Iterable[tuple[Tensor, Mapping[str, Any]]]:
        calls.append(1)
        if len(calls) == 11:
            raise _Interrupted
        return images()

    with pytest.raises(_Interrupted):
        estimate_ems(denoiser, counted, _GRID, folder=tmp_path)
    assert len(list(tmp_path.glob("*/node_*.safetensors"))) == 10
    found = estimate_ems(denoiser, counted, _GRID, folder=tmp_path)
    assert len(calls) == 11 + 27 - 10
    assert found.digest == exact.digest
    other = estimate_ems(denoiser, images, _GRID, folder=tmp_path, seed=1)
    assert other.digest == estimate_ems(denoiser, images, _GRID, seed=1).digest != exact.digest
    next(tmp_path.glob("*/node_*.safetensors")).write_text("half a file")
    with pytest.raises(IncompatibleStatistics, match="no node of an EMS job"):
        for seed in (0, 1):
            estimate_ems(denoiser, images, _GRID, folder=tmp_path, seed=seed)


def test_model_without_finite_answers_fails() -> None:
    broken = gaussian(vp_linear())
    broken.mean = broken.mean * float("nan")
    with pytest.raises(EvaluationFailed, match=r"not finite at lam = -3\.5"):
        estimate_ems(broken, _images(8), _GRID)


def test_no_images_are_refused() -> None:
    with pytest.raises(IncompatibleStatistics, match="none were given"):
        estimate_ems(gaussian(vp_linear()), lambda: (), _GRID)
    with pytest.raises(IncompatibleStatistics, match="two intervals or more"):
        NodeGrid(lam_start=0.0, lam_end=-1.0, n_intervals=10)
