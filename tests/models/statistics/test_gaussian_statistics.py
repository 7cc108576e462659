"""Mean and eigenpairs of images against numpy's covariance."""

from pathlib import Path

import numpy as np
import pytest
import torch

from s3search.errors import IncompatibleStatistics
from s3search.models.statistics import GaussianStatistics, gaussian_statistics


def _images(n: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1]).double()
    flat = torch.randn((n, 6), generator=generator, dtype=torch.float64) * spread
    return (flat + torch.arange(6)).reshape(n, 1, 2, 3)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_full_statistics_are_those_of_numpy(size: int) -> None:
    images = _images()
    found = gaussian_statistics(images.split(size), n_modes=6)
    flat = images.flatten(1).numpy()
    assert found.n == 50
    assert found.mean.reshape(6) == pytest.approx(flat.mean(0))
    u, values = found.eigenvectors, found.eigenvalues
    assert u * values @ u.T == pytest.approx(np.cov(flat.T), abs=1e-12)
    assert found.rest == pytest.approx(0.0, abs=1e-12)


def test_leading_modes_keep_the_total_variance() -> None:
    images = _images()
    found = gaussian_statistics(images.split(10), n_modes=3)
    exact = np.linalg.eigvalsh(np.cov(images.flatten(1).numpy().T))[::-1]
    assert found.eigenvectors.shape == (6, 3)
    assert found.eigenvalues == pytest.approx(exact[:3], rel=0.01)
    assert found.eigenvalues.sum() + found.rest == pytest.approx(exact.sum())


def test_statistics_survive_their_file(tmp_path: Path) -> None:
    found = gaussian_statistics([_images()], n_modes=4, provenance={"model": "none"})
    found.save(tmp_path / "data.safetensors")
    again = GaussianStatistics.load(tmp_path / "data.safetensors")
    assert np.array_equal(again.eigenvectors, found.eigenvectors)
    assert (again.n, again.rest, again.provenance) == (50, found.rest, {"model": "none"})
    with pytest.raises(IncompatibleStatistics, match="no Gaussian statistics"):
        GaussianStatistics.load(tmp_path / "missing.safetensors")


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(IncompatibleStatistics, match="at least 2 images"):
        gaussian_statistics([_images()[:1]], n_modes=2)
