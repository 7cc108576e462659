"""Large matrices on a device, here torch on the CPU in the place of a GPU, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s3search.metrics import symmetric
from s3search.metrics.frechet import FeatureStatistics, FrechetReference, frechet_estimate
from s3search.metrics.intervals import replicates

_CPU = torch.device("cpu")
_D = 300  # so many that intervals are linearised


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((700, _D)) * np.linspace(1.5, 0.2, _D) + 0.1


@pytest.fixture
def reference() -> FrechetReference:
    real = np.random.default_rng(0).standard_normal((900, _D))
    return FrechetReference.of(FeatureStatistics.of(real))


def test_only_large_matrices_go_to_a_gpu() -> None:
    gpu = torch.device("cuda")
    assert symmetric.goes_to(gpu, symmetric.LEAST)
    assert not symmetric.goes_to(gpu, symmetric.LEAST - 1)
    assert not symmetric.goes_to(_CPU, 2048)


def test_distances_and_intervals_are_the_same_on_a_device(
    features: np.ndarray, reference: FrechetReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(own: FrechetReference) -> list[np.ndarray]:
        few = own.distance_of_few(features[:50])
        many = frechet_estimate(own, features, n_blocks=3)
        between = replicates(own, features)
        assert between is not None
        return [own.root, np.array([few, many.value, many.standard_error]), between]

    by_numpy = found(reference)
    asked: list[int] = []

    def goes_to(device: torch.device, dimensions: int) -> bool:
        asked.append(dimensions)
        return True

    monkeypatch.setattr(symmetric, "goes_to", goes_to)
    monkeypatch.setattr(symmetric, "_ROWS", 256)
    on_device = found(replace(reference, device=_CPU))
    assert set(asked) == {_D}
    for one, other in zip(by_numpy, on_device, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-10)
    assert not all(map(np.array_equal, by_numpy, on_device))


def test_where_a_device_is_full_numpy_goes_on(
    features: np.ndarray, reference: FrechetReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("full")

    wanted = frechet_estimate(reference, features, n_blocks=3)
    monkeypatch.setattr(symmetric, "goes_to", lambda *_: True)
    monkeypatch.setattr(symmetric.torch, "tensor", full)
    found = frechet_estimate(replace(reference), features, n_blocks=3)
    assert found.value == pytest.approx(wanted.value, rel=1e-10)
