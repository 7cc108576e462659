"""Principal axes: the spectrum of images, and the same distance with fewer eigenvectors."""

import numpy as np
import pytest
import torch

from s3search.errors import IncompatibleStatistics
from s3search.models.gaussian import gaussian_distance
from s3search.models.principal import principal_axes, principal_distance
from s3search.processes import NoiseProcess
from s3search.schedules import published
from s3search.schedules.schedule import Start, StartKind
from s3search.solvers.plan import compile_plans
from tests.support.helpers import PROCESSES

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def _images(n: int, seed: int = 0) -> torch.Tensor:
    """Images (n, 1, 3, 3) with a falling spectrum."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -1.5, 9).double()
    rotation, _ = torch.linalg.qr(torch.randn((9, 9), generator=generator).double())
    rows = torch.randn((n, 9), generator=generator).double() * scales @ rotation.T
    return (rows + 0.3).reshape(n, 1, 3, 3)


@pytest.mark.parametrize("n", [200, 6])
def test_axes_are_the_eigenpairs_of_the_covariance(n: int) -> None:
    images = _images(n)
    covariance = torch.cov(images.flatten(1).T)
    axes = principal_axes(images, 9)
    p = len(axes.variances)
    assert p == min(9, n - 1)
    rebuilt = axes.directions @ torch.diag(axes.variances) @ axes.directions.T
    torch.testing.assert_close(rebuilt, covariance, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(axes.directions.T @ axes.directions, torch.eye(p).double())
    assert axes.rest == pytest.approx(0.0, abs=1e-12)


def test_what_is_left_shares_its_variance() -> None:
    images = _images(200)
    axes = principal_axes(images, 4)
    total = float(torch.cov(images.flatten(1).T).trace())
    assert float(axes.variances.sum()) + 5 * axes.rest == pytest.approx(total)
    outside = axes.outside(images.flatten(1))
    torch.testing.assert_close(outside @ axes.directions, torch.zeros(200, 4).double())


@_EACH
@pytest.mark.parametrize("n", [9, 4])
def test_the_distance_is_that_with_every_eigenvector(process: NoiseProcess, n: int) -> None:
    axes = principal_axes(_images(200), n)
    rest, _ = torch.linalg.qr(torch.cat([axes.directions, torch.eye(9).double()], 1))
    vectors = torch.cat([axes.directions, rest[:, n:]], 1)
    values = torch.cat([axes.variances, torch.full((9 - n,), axes.rest, dtype=torch.float64)])
    schedules = [published.ddim(process, nfe=3), published.unipc(process, nfe=6, order=3)]
    if process.alpha(process.time_range[1]) > 0:
        image = (0.1 * np.arange(9.0)).reshape(1, 3, 3).tolist()
        start = Start(kind=StartKind.AVERAGE_X0, image=image)
        schedules.append(schedules[0].model_copy(update={"start": start}))
    batch = compile_plans(schedules)
    full = gaussian_distance(batch, axes.mean.numpy(), values.numpy(), vectors.numpy())
    np.testing.assert_allclose(principal_distance(batch, axes), full, rtol=1e-9)


@pytest.mark.parametrize("images", [_images(1), torch.zeros(3, 1, 3, 3)])
def test_images_that_do_not_differ_have_no_axes(images: torch.Tensor) -> None:
    with pytest.raises(IncompatibleStatistics, match=f"that differ, found {len(images)}"):
        principal_axes(images, 4)
