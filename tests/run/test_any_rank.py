"""Video, packed tokens, sound and vectors through the whole of a search."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import s3search
from s3search.cli import run
from s3search.errors import InvalidConfig
from s3search.evaluation.noise import NoiseBank
from s3search.metrics.statistic import FrechetStatistic
from s3search.models import digits
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.suites.pool_suite import start_ray
from tests.support.any_rank import digits_on_film, flat, loaded, of_rank, small_search_of, spread
from tests.support.studies import study_config, study_file

RANKS = ("video", "tokens", "sound", "vectors")
BY_SCORE: dict[str, Any] = {"metric": spread, "features": None, "reference": None}


@pytest.mark.parametrize("asked", [{}, BY_SCORE], ids=["distance", "score"])
@pytest.mark.parametrize("rank", RANKS)
def test_it_is_searched_polished_validated_and_sampled_again_from_its_file(
    rank: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    found = small_search_of(rank, **asked)
    assert any("polish" in name for name in found.table["name"])
    assert found.table["n_images"].eq(80).all()
    assert not found.warnings
    found.save(tmp_path / "schedule.json")

    again = Schedule.load(tmp_path / "schedule.json")
    assert again.id == found.schedule.id
    model = of_rank(rank).model
    (noise, _), *_ = NoiseBank(model, torch.device("cpu")).batches(7, 8, 8)
    assert noise.shape == (8, *model.sample_shape)
    with torch.inference_mode():
        made = sample(model, compile_plan(found.schedule), noise)
        assert torch.equal(sample(model, compile_plan(again), noise), made)
    assert made.shape == noise.shape


@pytest.mark.parametrize("rank", RANKS)
def test_a_schedule_is_measured_as_the_search_measured_it(rank: str, tmp_path: Path) -> None:
    found, own = small_search_of(rank), of_rank(rank)
    found.save(tmp_path / "schedule.json")
    winner = found.table[found.table["is_winner"]].iloc[0]
    again = s3search.evaluate(
        tmp_path / "schedule.json",
        own.model,
        reference=own.real,
        features=flat,
        n_images=80,
        seed=int(winner["noise_seed"]),
    )
    assert again.value == pytest.approx(winner["distance"], rel=1e-6)


@pytest.mark.cluster
@pytest.mark.parametrize("rank", ["video", "tokens", "sound"])
def test_two_ray_workers_find_what_this_process_finds(rank: str) -> None:
    start_ray()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two workers on two cores has
    try:
        alone = small_search_of(rank)
    finally:
        torch.set_num_threads(n_threads)
    together = small_search_of(rank, workers="local", cluster={"workers": 2})
    assert together.schedule.id == alone.schedule.id
    pd.testing.assert_frame_equal(together.table, alone.table)


@pytest.mark.parametrize("rank", RANKS)
def test_a_mean_of_any_rank_starts_a_schedule(rank: str, tmp_path: Path) -> None:
    """The space that has `average_x0` reads the mean of the real samples, whatever their rank."""
    kinds = {"starts": ["average_x0"], "preset": "usf"}
    found = small_search_of(
        rank,
        space=kinds,
        algorithm="evolution",
        validation={"n_images": 80, "finalists": 2, "baselines": False},
    )
    own = of_rank(rank)
    assert found.schedule.start.kind.value == "average_x0"
    image = torch.tensor(found.schedule.start.image)
    assert torch.allclose(image, own.real.mean(0), atol=1e-6)
    found.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json").id == found.schedule.id


@pytest.mark.parametrize(
    ("rank", "changes", "words"),
    [
        (
            "tokens",
            {"reference": torch.zeros(4, 3, 8, 8).uniform_(-1, 1)},
            r"reference: needs .* found torch.float32 \(4, 3, 8, 8\), the model makes \(6, 3\)",
        ),
        ("video", {"reference": 3 * of_rank("video").real}, r"values must lie in \[-1, 1\]"),
        ("tokens", {"reference": of_rank("tokens").real / 0.0}, "values must be finite"),
    ],
)
def test_real_samples_of_another_kind_are_refused(
    rank: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidConfig, match=words):
        small_search_of(rank, **changes)


def test_a_distance_of_pictures_is_of_the_mean_of_frames_and_says_so(tmp_path: Path) -> None:
    own = digits_on_film()
    found = s3search.search(
        own.model,
        reference=own.real,
        features="digits",
        metric={"guard": [{"kind": "kernel", "features": "digits", "worse_by": 9.0}]},
        nfe=4,
        evaluations=6,
        n_images=40,
        validation={"n_images": 80, "finalists": 2},
        progress=False,
    )
    assert set(found.table["extractor"]) == {"digits-a-frame-mean"}
    assert any("polish" in name for name in found.table["name"])
    winner = found.table[found.table["is_winner"]].iloc[0]
    bank = NoiseBank(own.model, torch.device("cpu"))
    with torch.inference_mode():
        ((noise, _),) = bank.batches(int(winner["noise_seed"]), 80, 80)
        made = sample(own.model, compile_plan(found.schedule), noise)
        seen, real = (_mean_of_frames(videos) for videos in (made, own.real))
    statistic = FrechetStatistic.of(real.double().numpy())
    assert statistic.value(seen.double().numpy()) == pytest.approx(winner["distance"], rel=1e-4)


def _mean_of_frames(videos: torch.Tensor) -> torch.Tensor:
    extractor = digits.features()
    return torch.stack([extractor(videos[:, :, k]) for k in range(videos.shape[2])]).mean(0)


def test_frames_are_asked_for_where_an_extractor_is_ones_own() -> None:
    own = digits_on_film()
    asked = {"kind": "score", "score": spread, "frames": "mean"}
    found = s3search.evaluate(
        s3search.published.ddim(own.model.process, nfe=3), own.model, metric=asked, n_images=40
    )
    whole = s3search.evaluate(
        s3search.published.ddim(own.model.process, nfe=3), own.model, metric=spread, n_images=40
    )
    assert found.extractor.endswith("-frame-mean")
    assert found.value != whole.value


def test_a_metric_that_cannot_see_the_rank_says_so_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file(tmp_path)
    for features in ("inception", "digits"):
        asked = [*loaded("tokens"), f"metric.features='{features}'"]
        words = [word for own in asked for word in ("--set", own)]
        monkeypatch.setattr(sys, "argv", ["s3search", "launch", str(study), *words])
        assert run() == 2
        told = capsys.readouterr().err
        assert "sees pictures (C, H, W) and, frame by frame, videos (C, T, H, W)" in told
        assert "this model makes (6, 3)" in told
    assert not (tmp_path / "study.db").exists()


def test_a_reference_of_another_rank_says_so_before_the_search(tmp_path: Path) -> None:
    here = "tests.support.any_rank"
    study = study_config(
        tmp_path,
        f"model.loader='{here}:model'",
        "model.rank='tokens'",
        f"metric.features='{here}:flattening'",
    )
    with pytest.raises(InvalidConfig, match="give real samples of the shape that the model makes"):
        launch(study, lambda _: None)
