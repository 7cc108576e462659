"""What is drawn of videos, and said of samples that have no picture."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from s3search.cli import run
from s3search.errors import InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.run.launching import workers
from s3search.show.dashboard.artifacts import grids_made_here, grids_of_workers
from s3search.show.pictures import draw_samples, no_pictures, pictures_of
from s3search.show.report.samples import NoSamples, Samples, image_grid, make_samples
from s3search.study.database.store import open_study
from s3search.study.results.frame import evaluations_frame, validated
from tests.support.any_rank import loaded
from tests.support.studies import searched_study

VIDEOS = torch.linspace(-1, 1, 2 * 3 * 5 * 4 * 4).reshape(2, 3, 5, 4, 4)


def test_of_a_video_the_middle_frame_is_drawn(tmp_path: Path) -> None:
    assert torch.equal(pictures_of(VIDEOS), VIDEOS[:, :, 2])
    assert torch.equal(pictures_of(VIDEOS[:, :, 0]), VIDEOS[:, :, 0])
    of_video, of_frame = image_grid("a", VIDEOS), image_grid("a", VIDEOS[:, :, 2])
    assert of_video.source == of_frame.source
    assert (of_video.label, of_frame.label) == ("a, middle frames", "a")
    draw_samples([("a", VIDEOS), ("b", VIDEOS[:, :, 1])], tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as drawn:
        assert drawn.format == "PNG"


@pytest.mark.parametrize("shape", [(5,), (6, 3), (2, 2, 3, 4, 4)])
def test_what_has_no_picture_says_so(shape: tuple[int, ...], tmp_path: Path) -> None:
    samples = torch.zeros((3, *shape))
    for draw in (
        lambda: pictures_of(samples),
        lambda: image_grid("a", samples),
        lambda: draw_samples([("a", samples)], tmp_path / "grid.png"),
    ):
        with pytest.raises(InvalidConfig, match="have no picture"):
            draw()
    assert str(shape) in str(no_pictures(shape))
    assert not list(tmp_path.iterdir())


def _said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> str:
    monkeypatch.setattr(sys, "argv", ["s3search", *map(str, words)])
    capsys.readouterr()
    assert run() == 0
    return " ".join(capsys.readouterr().out.split())


def _grid(folder: Path, *more: object) -> list[object]:
    url = f"sqlite:///{folder}/study.db"
    drawn = ["--grid", folder / "grid.png", "--samples"]
    return ["compare", "t", "--storage", url, *drawn, *more]


def test_the_grid_of_a_video_model_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched_study(tmp_path, *loaded("video"))
    assert "wrote" in _said(monkeypatch, capsys, *_grid(tmp_path))
    with Image.open(tmp_path / "grid.png") as drawn:
        assert drawn.format == "PNG"


@pytest.mark.parametrize("rank", ["tokens", "sound", "vectors"])
def test_samples_without_a_picture_are_compared_without_a_grid(
    rank: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    searched_study(tmp_path, *loaded(rank))
    told = _said(monkeypatch, capsys, *_grid(tmp_path))
    assert "without --grid: samples of the shape" in told
    assert "wrote" not in told
    found = json.loads(_said(monkeypatch, capsys, *_grid(tmp_path, "--json")))
    assert found["grid"] is None
    assert "have no picture" in found["grid_without"]
    assert found["rows"]
    assert not (tmp_path / "grid.png").exists()


def test_the_report_shows_middle_frames_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {}
    for rank in ("video", "tokens"):
        folder = tmp_path / rank
        folder.mkdir()
        searched_study(folder, *loaded(rank))
        url, page = f"sqlite:///{folder}/study.db", folder / "report.html"
        asked = ["report", "t", "--storage", url, "-o", page, "--samples", 4]
        _said(monkeypatch, capsys, *asked)
        texts[rank] = page.read_text()
    assert "middle frames" in texts["video"] and "data:image/png" in texts["video"]
    assert "Samples of the shape (6, 3) have no picture" in texts["tokens"]


@pytest.mark.parametrize(("rank", "n"), [("video", 1), ("tokens", 0)])
def test_the_dashboard_has_samples_of_what_has_a_picture(
    rank: str, n: int, tmp_path: Path
) -> None:
    config = searched_study(tmp_path, *loaded(rank))
    with open_study(config.storage.url, "t") as store:
        best = validated(evaluations_frame(store), store.config)[0]
        schedule = store.schedule(best.schedule_id)
    assert len(grids_made_here(config, [schedule], 3)) == n
    with workers(config) as pool:
        assert len(grids_of_workers(pool, config, [schedule], 3)) == n
    made: Any = make_samples(config, {}, 3)
    assert isinstance(made, Samples if n else NoSamples)
    assert Evaluator(config.evaluator_spec).describe().image_shape == (
        (2, 4, 3, 3) if n else (6, 3)
    )
