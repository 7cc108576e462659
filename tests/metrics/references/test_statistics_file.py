"""Files of statistics: ours in pytorch-fid's format and back, those of others, and broken ones."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s3search.errors import InvalidConfig
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.references import StatisticsFile, npz


def _reference(d: int = 5, n: int = 40) -> FrechetReference:
    features = np.random.default_rng(0).normal(size=(n, d))
    return FrechetReference.of(FeatureStatistics.of(features))


def _written(path: Path, **changes: Any) -> Path:
    """A file as other tools write it, with some arrays changed or (None) left out."""
    reference = _reference()
    arrays = {"mu": reference.mean, "sigma": reference.covariance} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_our_file_is_one_of_pytorch_fid_and_comes_back_whole(tmp_path: Path) -> None:
    path, reference = tmp_path / "own.npz", _reference()
    StatisticsFile(reference=reference, extractor="pixels-1", source="abc").save(path)
    with np.load(path) as f:  # as pytorch-fid's compute_statistics_of_path reads it
        m, s = f["mu"][:], f["sigma"][:]
    assert (m.dtype, s.dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(m, reference.mean)
    np.testing.assert_array_equal(s, reference.covariance)
    again = StatisticsFile.load(path)
    assert again.reference.digest == reference.digest
    assert (again.reference.n, again.extractor, again.source) == (40, "pixels-1", "abc")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_others_are_read_without_count_and_extractor(tmp_path: Path, dtype: Any) -> None:
    reference = _reference()
    plain = {"mu": reference.mean.astype(dtype), "sigma": reference.covariance.astype(dtype)}
    extra = {"mu_s": np.zeros(3), "sigma_s": np.eye(3), "arr_0": np.zeros((2, 4, 4, 3), np.uint8)}
    for arrays in (plain, plain | extra):  # pytorch-fid and EDM; guided-diffusion
        path = _written(tmp_path / "theirs.npz", **arrays)
        assert npz.load(str(path)) == str(path)
        found = StatisticsFile.load(path)
        np.testing.assert_array_equal(found.reference.mean, plain["mu"])
        assert (found.reference.n, found.extractor, found.source) == (None, None, None)
        found.check(path, "any")


def test_a_batch_of_images_is_one(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=pixels)
    found = npz.load(str(path))
    assert isinstance(found, torch.Tensor)
    assert found.shape == (3, 3, 4, 6)
    assert found[1, 2, 3, 5].item() == pytest.approx(pixels[1, 3, 5, 2] / 127.5 - 1)
    np.savez(path, arr_0=pixels / 255.0)
    with pytest.raises(InvalidConfig, match=r"arr_0 .* uint8, found float64"):
        npz.load(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": None}, "holds no mu and sigma .found mu."),
        ({"mu": np.zeros(4)}, r"a mean \(d,\) and a covariance \(d, d\)"),
        ({"mu": np.zeros((5, 1))}, r"found \(5, 1\)"),
        ({"mu": np.zeros(5, dtype=np.int64)}, "mu of .* is int64, not floats"),
        ({"sigma": np.zeros((5, 5), dtype=complex)}, "sigma of .* is complex128"),
        ({"mu": np.full(5, np.nan)}, "not finite"),
        ({"n": np.zeros(2)}, r"n should be a number of images from 2, found \[0"),
        ({"digest": np.asarray("0" * 16)}, "changed after it was written"),
    ],
)
def test_wrong_content_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        StatisticsFile.load(_written(tmp_path / "wrong.npz", **changes))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_files_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"broken.npz holds no mu and sigma"):
        StatisticsFile.load(path)
    with pytest.raises(InvalidConfig, match=r"none.npz .* no such file; `s3search tools ref"):
        StatisticsFile.load(tmp_path / "none.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(InvalidConfig, match=r"a single array"):
        StatisticsFile.load(tmp_path / "single.npy")


def test_another_extractor_or_other_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    found = StatisticsFile(reference=_reference(), extractor="inception-v3-1", source="abc")
    with pytest.raises(InvalidConfig, match=r"made with the extractor inception-v3-1, the study"):
        found.check(path, "inception-v3-2")
    found.check_source(path, 40, "abc")
    found.check_source(path, 40, None)
    with pytest.raises(InvalidConfig, match="is of 40 images, the reference has 41"):
        found.check_source(path, 41, "abc")
    with pytest.raises(InvalidConfig, match="is of the images abc, the reference's are abd"):
        found.check_source(path, 40, "abd")


_HONEST = np.cov(np.random.default_rng(0).normal(size=(50, 6)), rowvar=False)
_LOPSIDED = _HONEST + np.triu(np.full((6, 6), 0.1), 1)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sigma": _LOPSIDED}, "sigma is no covariance: it is not symmetric"),
        ({"sigma": _HONEST - np.eye(6)}, "sigma is no covariance: it has negative eigenvalues"),
        ({"sigma": -_HONEST}, "sigma is no covariance: it has negative eigenvalues"),
        ({"n": 0}, "n should be a number of images from 2, found 0"),
        ({"n": -5}, "n should be a number of images from 2, found -5"),
        ({"n": 2.5}, "n should be a number of images from 2, found 2.5"),
        ({"n": [3, 4]}, "n should be a number of images from 2"),
    ],
)
def test_statistics_that_are_none_are_refused(
    changed: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, **{"mu": np.zeros(6), "sigma": _HONEST, "n": 50, **changed})
    with pytest.raises(InvalidConfig, match=re.escape(reason)):
        StatisticsFile.load(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [4, 300])
def test_the_rounding_of_honest_statistics_is_none(n: int, dtype: type, tmp_path: Path) -> None:
    features = np.random.default_rng(1).normal(size=(n, 64)) * np.geomspace(1e-3, 30.0, 64)
    path = tmp_path / "reference.npz"
    covariance = np.cov(features, rowvar=False).astype(dtype)
    np.savez(path, mu=features.mean(axis=0).astype(dtype), sigma=covariance, n=n)
    assert StatisticsFile.load(path).reference.n == n
