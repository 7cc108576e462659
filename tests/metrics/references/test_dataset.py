"""Datasets of torch and of `datasets`: every kind of item, splits, and what may be wrong."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from s3search.errors import InvalidConfig
from s3search.metrics.references import DatasetImages, ImageSource, dataset
from s3search.metrics.references.dataset import Values
from s3search.metrics.references.pictures import Preparation

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 127.5 - 1


def _source(items: Sequence[Any], channels: int = 3, **options: Any) -> DatasetImages:
    resize = options.pop("resize", None)
    return DatasetImages(items, Preparation(channels=channels, resize=resize), **options)


@pytest.mark.parametrize(
    "items",
    [
        list(PIXELS),
        [Image.fromarray(p) for p in PIXELS],
        [(Image.fromarray(p), 3) for p in PIXELS],
        [{"image": Image.fromarray(p), "label": 3} for p in PIXELS],
        TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)),
    ],
    ids=["arrays", "pictures", "tuples", "mappings", "byte tensors"],
)
def test_every_kind_of_item_is_the_same_image(items: Any) -> None:
    source = _source(items)
    assert isinstance(source, ImageSource)
    torch.testing.assert_close(source.images(range(4)), EXPECTED)


def test_float_tensors_say_what_their_numbers_mean() -> None:
    unit = TensorDataset((EXPECTED + 1) / 2)
    torch.testing.assert_close(_source(unit, values=Values.UNIT).images(range(4)), EXPECTED)
    signed = TensorDataset(EXPECTED)
    torch.testing.assert_close(_source(signed, values=Values.SIGNED).images(range(4)), EXPECTED)
    with pytest.raises(InvalidConfig, match=r"reference.values: .*say which"):
        _source(unit).images([0])


def test_grey_pictures_have_one_channel_or_three() -> None:
    grey = [p[..., 0] for p in PIXELS]
    assert _source(grey, channels=1).images([0, 1]).shape == (2, 1, 6, 6)
    assert _source([p[..., None] for p in grey]).images([0, 1]).shape == (2, 3, 6, 6)


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ([PIXELS[0]], {}, "has 1 images"),
        (["a", "b"], {}, "found a str"),
        ([PIXELS[0] / 255.0] * 2, {}, r"uint8 \(H, W\).*found float64"),
        ([{"picture": PIXELS[0]}] * 2, {"column": "pictur"}, "did you mean 'picture'"),
        (TensorDataset(EXPECTED), {"values": "unit", "resize": 4}, "reference.resize"),
        (TensorDataset(EXPECTED), {"values": "unit", "channels": 1}, "reference.channels: 1"),
        ([PIXELS[0], PIXELS[1][:4]], {}, "item 1 is 4x6, item 0 6x6"),
    ],
)
def test_wrong_items_are_refused(items: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        _source(items, **options).images([0, 1])


def test_a_dataset_on_disk_is_read_by_split_and_column(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")
    pictures = [Image.fromarray(p) for p in PIXELS]
    features = datasets.Features({"picture": datasets.Image()})
    train = datasets.Dataset.from_dict({"picture": pictures}, features=features)
    train.save_to_disk(str(tmp_path / "one"))
    both = datasets.DatasetDict({"train": train, "test": train.select([0, 1])})
    both.save_to_disk(str(tmp_path / "two"))
    one = dataset.load(str(tmp_path / "one"), column="picture")
    torch.testing.assert_close(one.images(range(4)), EXPECTED)
    assert one.digest == dataset.load(str(tmp_path / "one"), column="picture").digest
    assert one.digest != dataset.load(str(tmp_path / "one"), resize=3).digest
    assert dataset.load(str(tmp_path / "two"), split="test", column="picture").n == 2
    with pytest.raises(InvalidConfig, match=r"has the splits test, train, found None"):
        dataset.load(str(tmp_path / "two"))
    with pytest.raises(InvalidConfig, match=r"without splits"):
        dataset.load(str(tmp_path / "one"), split="train")
    with pytest.raises(InvalidConfig, match=r"no dataset that save_to_disk wrote"):
        dataset.load(str(tmp_path))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InvalidConfig, match=r"pip install datasets"):
        dataset.load("somewhere")
