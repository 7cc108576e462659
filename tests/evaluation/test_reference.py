"""References of folders: streamed or cached they are those of all images at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.evaluation import reference
from s3search.evaluation.evaluator import Evaluator
from s3search.metrics.references import FolderImages, StatisticsFile
from s3search.metrics.references.pictures import Preparation
from s3search.models import digits
from s3search.processes import edm
from s3search.schedules import published
from s3search.search.questions import Rung, Score, measure
from s3search.search.trial import Trial, seeded
from tests.support.specs import evaluator_spec

N = 150
SCHEDULE = published.unipc(edm(), nfe=4)


def _digits() -> Tensor:
    """Real digits as the 8 bits of a file hold them."""
    return ((digits.images()[:N] + 1) * 127.5).round() / 127.5 - 1


def tensor() -> Tensor:
    """The same images as a plug-in gives them."""
    return _digits()


class Wrong(FolderImages):
    """A source whose images are in [0, 255]."""

    def images(self, numbers: Any) -> Tensor:
        return (super().images(numbers) + 1) * 127.5


def wrong(path: str) -> Wrong:
    return Wrong(Path(path), Preparation(channels=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits")
    pixels = ((_digits()[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(path / f"{i:04}.png")
    return path


def _evaluator(images: str = "folder", network: str = "a", **options: Any) -> Evaluator:
    return Evaluator(
        evaluator_spec(
            model="digits",
            model_options={"labels": "none"},
            features="digits",
            features_options={"network": network},
            reference=images,
            reference_options=options,
            batch_size=40,
        )
    )


def _file(folder: Path, path: Path) -> Path:
    """What `s3search tools reference` writes."""
    made = _evaluator(path=str(folder), channels=1)
    source, extractor = made.real.digest, made.metric.view.name
    StatisticsFile(reference=made.reference, extractor=extractor, source=source).save(path)
    return path


def test_a_streamed_folder_is_the_tensor_of_its_images(folder: Path) -> None:
    streamed = _evaluator(path=str(folder), channels=1)
    whole = _evaluator("tests.evaluation.test_reference:tensor")
    assert streamed.reference.n == whole.reference.n == N
    np.testing.assert_allclose(streamed.reference.mean, whole.reference.mean, atol=1e-6)
    np.testing.assert_allclose(
        streamed.reference.covariance, whole.reference.covariance, atol=1e-5
    )
    assert streamed.reference_images is not None
    torch.testing.assert_close(streamed.reference_images, _digits())
    described = streamed.describe()
    np.testing.assert_allclose(described.mean_image, whole.describe().mean_image, atol=1e-6)


def test_written_statistics_are_read_instead_and_the_images_stay_at_hand(
    folder: Path, tmp_path: Path
) -> None:
    path = _file(folder, tmp_path / "ref.npz")
    measured = _evaluator(path=str(folder), channels=1)
    cached = _evaluator(path=str(folder), channels=1, statistics=str(path))
    assert cached.reference.digest == measured.reference.digest
    question = measure(SCHEDULE, rung=Rung.SEARCH, n_images=100, noise_seed=0)
    found = cached.evaluate(question).value
    assert found is not None
    assert found == measured.evaluate(question).value
    proxy = Score(proxy="gaussian", trials=(Trial.of(SCHEDULE, seeded("given")),))
    assert np.isfinite(cached(proxy).scores).all()
    alone = _evaluator("npz", path=str(path))
    assert alone.reference.digest == measured.reference.digest
    assert alone.reference_images is None


def test_statistics_of_other_images_or_another_extractor_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    path = _file(folder, tmp_path / "ref.npz")
    for images, options in (
        ("npz", {"path": str(path)}),
        ("folder", {"path": str(folder), "channels": 1, "statistics": str(path)}),
    ):
        with pytest.raises(InvalidConfig, match=r"made with the extractor digits-a, .* digits-b"):
            _evaluator(images, network="b", **options)
    with pytest.raises(
        InvalidConfig, match=r"reference.statistics: .*sizes or preparation differ"
    ):
        _evaluator(path=str(folder), channels=1, resize=8, statistics=str(path))
    with pytest.raises(InvalidConfig, match=r"none.npz holds no mu and sigma"):
        _evaluator(path=str(folder), channels=1, statistics=str(tmp_path / "none.npz"))


def test_few_large_images_are_kept_and_all_are_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "NUMBERS_KEPT", 64 * 10 + 5)
    few = _evaluator(path=str(folder), channels=1)
    assert few.reference_images is not None
    torch.testing.assert_close(few.reference_images, _digits()[::15])
    assert few.reference.n == N


def test_images_of_a_source_are_checked(folder: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"values must lie in \[-1, 1\], found 0 to 255"):
        _evaluator("tests.evaluation.test_reference:wrong", path=str(folder))


def test_batches_come_with_the_conditions_they_were_made_with() -> None:
    spec = evaluator_spec(model="digits", features="digits", reference="digits", batch_size=30)
    evaluator = Evaluator(spec)
    parts = list(evaluator.batches(SCHEDULE, 70, 3))
    images = torch.cat([images for images, _ in parts])
    torch.testing.assert_close(images, evaluator.images(SCHEDULE, 70, 3))
    labels = torch.cat([condition["labels"] for _, condition in parts])
    seen = digits.features("a").logits(images).argmax(1)
    assert (seen == labels).float().mean() > 0.8
