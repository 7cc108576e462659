"""Statistics of the embedded model, from a study file to the file that schedules name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s3search.errors import InvalidConfig
from s3search.models import digits
from s3search.models.statistics import GaussianStatistics
from s3search.processes import edm
from s3search.rules import EmsStatistics
from s3search.schedules import published
from s3search.solvers.plan import compile_plan
from s3search.study.file.config import StudyConfig, parse_config
from s3search.tasks.statistics import CleanSource, measure_ems, measure_gaussian

# torch compiles parts of forward-mode differentiation with what it deprecated itself
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def _config(reference: dict[str, Any] | None = None, **model: Any) -> StudyConfig:
    return parse_config(
        {
            "study": {"name": "measured"},
            "model": {"loader": "digits", **model},
            "space": {"nfe": [5]},
            "metric": {"features": "digits"},
            "reference": reference or {"images": "digits"},
            "cluster": {"address": "inline", "batch_size": 8},
        }
    )


def test_measured_ems_run_dpm_solver_v3(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = measure_ems(
        _config(),
        tmp_path / "ems.safetensors",
        n_intervals=10,
        n_images=12,
        n_probes=1,
        source=CleanSource.MODEL,
        seed=0,
        report=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (11, 11)
    assert list(tmp_path.iterdir()) == [tmp_path / "ems.safetensors"]
    again = EmsStatistics.load(tmp_path / "ems.safetensors")
    assert again.digest == found.digest
    assert again.provenance["n_images"] == 12
    assert again.provenance["source"] == "model"
    schedule = published.dpm_solver_v3(edm(), again, nfe=3)
    assert compile_plan(schedule, again).pixel_shape == (1, 8, 8)


def test_measured_gaussian_counts_its_images(tmp_path: Path) -> None:
    path = tmp_path / "gaussian.safetensors"
    measure_gaussian(
        _config(labels="none"),
        path,
        n_images=40,
        n_modes=5,
        source=CleanSource.REFERENCE,
        seed=0,
        report=lambda done, total: None,
    )
    found = GaussianStatistics.load(path)
    assert found.n == 40 == found.provenance["n_images"]
    assert found.eigenvectors.shape == (64, 5)
    assert found.rest > 0


def test_images_of_a_folder_are_measured_as_the_tensor_of_them(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    levels = ((digits.images()[:30, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    for i, picture in enumerate(levels):
        Image.fromarray(picture).save(pictures / f"{i:02}.png")
    folder = {"images": "folder", "path": str(pictures), "channels": 1}
    found = [
        measure_gaussian(
            _config(reference, labels="none"),
            tmp_path / "gaussian.safetensors",
            n_images=20,
            n_modes=5,
            source=CleanSource.REFERENCE,
            seed=0,
            report=lambda done, total: None,
        )
        for reference in (folder, None)
    ]
    assert found[0].n == found[1].n == 20
    np.testing.assert_allclose(found[0].mean, found[1].mean, atol=1 / 255)


@pytest.mark.parametrize(
    ("model", "n_images", "message"),
    [({}, 8, "takes conditions"), ({"labels": "none"}, 10**6, "1000000 asked, the reference has")],
)
def test_unfit_reference_images_are_refused(
    tmp_path: Path, model: dict[str, str], n_images: int, message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        measure_gaussian(
            _config(**model),
            tmp_path / "none.safetensors",
            n_images=n_images,
            n_modes=5,
            source=CleanSource.REFERENCE,
            seed=0,
            report=lambda done, total: None,
        )
    assert not list(tmp_path.iterdir())
