"""Searches whose steps may add noise: from the first schedule to the validated winner."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import s3search
from s3search.rules import StepNoise
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.search.space import load_space
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig
from tests.support.live import Net, pixels, real_images, small_search
from tests.support.studies import FEWER, assert_same, content, study_config

NOISY = (
    "space.nfe=[4]",
    "space.noise={gamma = [0.1, 0.6]}",
    "space.mutation={times = 1.0, noise = 20.0}",
    "search.evaluations=24",
    FEWER,
)


def _config(folder: Path, *overrides: str) -> StudyConfig:
    folder.mkdir()
    return study_config(folder, *NOISY, *overrides)


def _noisy_trials(config: StudyConfig) -> list[str]:
    with open_study(config.storage.url, config.study.name) as store:
        return [trial.id for trial in store.trials() if trial.schedule.is_stochastic]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a search inside this process finds, one schedule after another."""
    config = _config(tmp_path_factory.mktemp("noise") / "alone", "cluster.population=1")
    launch(config, lambda _: None)
    assert len(_noisy_trials(config)) > 3
    return content(config)


def test_a_space_with_noise_is_searched_from_python() -> None:
    space = {"preset": "usf", "noise": {"eta": [0, 1], "gamma": [0, 1]}}
    found = small_search(Net(), space=space, evaluations=20)
    assert found.schedule.nfe == 5


@pytest.mark.parametrize("algorithm", ["evolution", "s3"])
def test_a_winner_with_noise_is_validated_compared_saved_and_found_again(
    tmp_path: Path, algorithm: str
) -> None:
    """Of first-order steps, whose states have too little variance on a Gaussian: noise helps."""
    rates = dict.fromkeys(load_space("usf").mutation.model_dump(), 0.0) | {"noise": 1.0}
    asked: dict[str, Any] = {
        "algorithm": algorithm,
        "space": {
            "preset": "usf",
            "noise": {"eta": [0.05, 1.0], "s_noise": [0.9, 1.3]},
            "mutation": rates,
            "end_rules": ["denoise"],
            "orders": [1],
            "families": [],
        },
        "search": {"batch": 4, "baselines": False},
        "evaluations": 30,
        "n_images": 100,
        "validation": {"n_images": 200, "finalists": 3},
        "storage": f"sqlite:///{tmp_path / 'study.db'}",
        "name": "noisy",
    }
    found = small_search(Net(), **asked)
    assert found.schedule.is_stochastic
    table = found.table
    assert len(table) == 3
    assert (table["low"] < table["distance"]).all() and (table["distance"] < table["high"]).all()
    others = table[~table["is_winner"]]  # by a ratio to the winner, of pairs of images
    assert (others["times_low"] <= others["times_winner"]).all()
    assert (others["times_winner"] <= others["times_high"]).all()
    found.save(tmp_path / "winner.json")
    loaded = Schedule.load(tmp_path / "winner.json")
    assert loaded.id == found.schedule.id
    assert json.loads((tmp_path / "winner.json").read_text())["version"] == 2
    again = small_search(Net(), **asked)
    assert again.schedule.id == found.schedule.id
    pd.testing.assert_frame_equal(again.table, found.table)


@pytest.mark.parametrize("is_on", [False, True], ids=["without", "with"])
def test_samplers_with_noise_seed_a_search_and_are_beaten_where_the_space_has_noise(
    tmp_path: Path, is_on: bool
) -> None:
    noise = "space.noise={eta = [0.0, 1.0]}" if is_on else "space.noise={}"
    config = study_config(tmp_path, noise, "search.evaluations=20")
    launch(config, lambda _: None)
    with open_study(config.storage.url, config.study.name) as store:
        noisy = [t for t in store.trials() if t.origin.is_baseline and t.schedule.is_stochastic]
        validated = {row["schedule_id"] for row in store.rows() if row["rung"] == "validation"}
    assert bool(noisy) is is_on
    assert bool({trial.id for trial in noisy} & validated) is is_on


def test_another_seed_is_other_noise_in_the_steps() -> None:
    plain = s3search.published.ddim(Net.process, nfe=4)
    noise = StepNoise(amount=0.8)
    steps = [plain.steps[0].model_copy(update={"noise": noise}), *plain.steps[1:]]
    schedule = plain.changed(steps=steps)
    values = [
        s3search.evaluate(
            schedule, Net(), reference=real_images(), features=pixels, n_images=200, seed=seed
        ).value
        for seed in (1, 1, 2)
    ]
    assert values[0] == values[1] != values[2]


def test_a_killed_search_with_noise_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    config = _config(tmp_path / "killed", "cluster.population=1")
    n_reports = 0

    def interrupt(_: Any) -> None:
        nonlocal n_reports
        n_reports += 1
        if n_reports == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, interrupt)
    launch(config, lambda _: None)
    assert content(config) == undisturbed


def test_schedules_with_noise_together_find_what_they_find_alone(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    config = _config(tmp_path / "together", "cluster.population=4")
    launch(config, lambda _: None)
    assert_same(content(config), undisturbed)


def test_a_killed_polish_of_noise_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Schedules that draw noise are polished, those without begin with some as well.

    Without the mixture, whose share of the schedules two whole runs decide by seconds.
    """
    ladder = "search.ladder=['gaussian','race','predictor','polish']"
    changes = ("search.algorithm=s3", "search.evaluations=200", "search.n_images=60", ladder)
    config = _config(tmp_path / "whole", *changes)
    n_before: list[int] = []  # reports when the first polished schedule was measured
    n_reports = 0

    def count(_: Any) -> None:
        nonlocal n_reports
        n_reports += 1
        if not n_before and _polished_with_noise(config):
            n_before.append(n_reports)

    launch(config, count)
    assert _polished_with_noise(config)
    killed, n_reports = _config(tmp_path / "killed", *changes), 0

    def interrupt(_: Any) -> None:
        nonlocal n_reports
        n_reports += 1
        if n_reports == n_before[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(killed, interrupt)
    launch(killed, lambda _: None)
    assert content(killed) == content(config)


def _polished_with_noise(config: StudyConfig) -> list[str]:
    with open_study(config.storage.url, config.study.name) as store:
        return [
            trial.id
            for trial in store.trials()
            if "polished_from" in trial.schedule.provenance and trial.schedule.is_stochastic
        ]


@pytest.mark.cluster
def test_two_workers_find_what_one_finds(tmp_path: Path) -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two workers on two cores has
    try:
        alone = _config(tmp_path / "alone")
        launch(alone, lambda _: None)
    finally:
        torch.set_num_threads(n_threads)
    both = _config(tmp_path / "both", "cluster.address=local", "cluster.workers=2")
    launch(both, lambda _: None)
    assert content(both) == content(alone)
