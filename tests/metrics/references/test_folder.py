"""Pictures of a folder: order, preparation, digest, and what may be wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s3search.errors import InvalidConfig
from s3search.metrics.references import evenly_chosen, folder, in_batches


def _picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven grey pictures of 4 x 4 in two classes, of levels 0, 40, 80, ..., and one text."""
    for i in range(7):
        _picture(tmp_path / ("a" if i < 3 else "b") / f"{i}.png", np.full((4, 4), 40 * i))
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_come_in_the_order_of_their_names(pictures: Path) -> None:
    source = folder.load(str(pictures), channels=1)
    assert source.n == 7
    found = source.images(range(7))
    assert (found.shape, found.dtype) == ((7, 1, 4, 4), torch.float32)
    expected = torch.arange(7) * 40 / 127.5 - 1
    torch.testing.assert_close(found[:, 0, 0, 0], expected)
    torch.testing.assert_close(torch.cat(list(in_batches(source, 3))), found)
    assert folder.load(str(pictures)).images([0]).shape == (1, 3, 4, 4)


def test_a_few_of_many_are_spread_over_all_of_them(pictures: Path) -> None:
    source = folder.load(str(pictures), channels=1)
    few = evenly_chosen(source, 3)[:, 0, 0, 0]
    torch.testing.assert_close(few, torch.tensor([0, 2, 4]) * 40 / 127.5 - 1)
    assert len(evenly_chosen(source, 100)) == 7


def test_the_centre_square_is_cut_out_and_resized(tmp_path: Path) -> None:
    wide = np.zeros((8, 20, 3))
    wide[:, 6:14] = 255  # the centre
    _picture(tmp_path / "0.png", wide)
    _picture(tmp_path / "1.png", wide.transpose(1, 0, 2))
    found = folder.load(str(tmp_path), resize=4).images([0, 1])
    assert torch.equal(found, torch.ones(2, 3, 4, 4))


def test_the_digest_names_files_and_preparation(pictures: Path) -> None:
    digest = folder.load(str(pictures)).digest
    assert digest == folder.load(str(pictures)).digest
    assert digest != folder.load(str(pictures), resize=2).digest
    (pictures / "a" / "0.png").unlink()
    assert digest != folder.load(str(pictures)).digest


def test_wrong_folders_and_options_are_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"reference.path: .*none is not a folder"):
        folder.load(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidConfig, match="holds 0 pictures"):
        folder.load(str(tmp_path / "empty"))
    with pytest.raises(InvalidConfig, match=r"reference.channels: .*found 4"):
        folder.load(str(pictures), channels=4)
    with pytest.raises(InvalidConfig, match=r"reference.resize: .*found 0"):
        folder.load(str(pictures), resize=0)


def test_a_broken_picture_and_one_of_another_size_are_named(pictures: Path) -> None:
    _picture(pictures / "b" / "9.png", np.zeros((5, 4)))
    source = folder.load(str(pictures))
    with pytest.raises(InvalidConfig, match=r"b/9.png is 5x4, a/0.png 4x4; set reference.resize"):
        source.images([0, 7])
    assert folder.load(str(pictures), resize=4).images([0, 7]).shape == (2, 3, 4, 4)
    (pictures / "b" / "9.png").write_bytes(b"no picture")
    with pytest.raises(InvalidConfig, match=r"b/9.png cannot be read as a picture"):
        source.images([7])


_DEPTHS = {
    "8 bit": lambda levels: (levels, "png"),
    "16 bit png": lambda levels: (levels.astype(np.uint16) * 257, "png"),
    "16 bit tif": lambda levels: (levels.astype(np.uint16) * 257, "tif"),
    "float tif": lambda levels: ((levels / 255).astype(np.float32), "tif"),
}


@pytest.mark.parametrize("depth", _DEPTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_of_16_bits_and_floats_are_those_of_8_bits(
    tmp_path: Path, depth: str, channels: int
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8)
    for i, level in enumerate(levels):
        pixels, suffix = _DEPTHS[depth](level)
        Image.fromarray(pixels).save(tmp_path / f"{i}.{suffix}")
    found = folder.load(str(tmp_path), channels=channels).images(range(4))
    expected = torch.from_numpy(levels)[:, None].float() / 127.5 - 1
    assert torch.equal(found, expected.expand(-1, channels, -1, -1))


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.full((4, 4), 200.0, np.float32), "floats from 200 to 200, whose scale"),
        (np.full((4, 4), -0.5, np.float32), "floats from -0.5"),
        (np.full((4, 4), 2**20, np.int32), "levels .* of 32 bits, whose scale cannot be told"),
    ],
)
def test_levels_of_no_known_scale_are_refused(
    tmp_path: Path, pixels: np.ndarray, problem: str
) -> None:
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"{i}.tif")
    with pytest.raises(InvalidConfig, match=rf"0\.tif has {problem}"):
        folder.load(str(tmp_path)).images([0])


def test_hidden_files_are_no_pictures(pictures: Path) -> None:
    expected = folder.load(str(pictures)).digest
    (pictures / "a" / "._0.png").write_bytes(b"resource fork")
    _picture(pictures / ".thumbnails" / "0.png", np.zeros((2, 2)))
    _picture(pictures / "__MACOSX" / "0.png", np.zeros((2, 2)))
    assert folder.load(str(pictures)).digest == expected


def test_a_picture_is_opened_as_its_suffix_says_and_as_nothing_else(pictures: Path) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n"
    (pictures / "a" / "0.png").write_bytes(script)
    Image.new("L", (4, 4)).save(pictures / "a" / "1.png", format="BMP")
    for number in (0, 1):
        with pytest.raises(InvalidConfig, match="in the format that its suffix says"):
            folder.load(str(pictures)).images([number])
