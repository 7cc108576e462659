"""`s3search compare --schedulers --grid`: diffusers' schedulers beside what a study found."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3search.cli import run
from s3search.cluster.asking import described
from s3search.run.launching import launch, validate_schedulers, workers
from s3search.show.pictures.grids import draw_comparison
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig
from s3search.study.results.comparison import comparison_of
from tests.support import pipelines
from tests.support.studies import evaluations, searched_study

Cli = Callable[..., tuple[int, str, str]]

STOCK = {f"k-diffusion {name}" for name in ("euler", "heun", "dpmpp_2m", "dpm_2", "lms")}
ALIKE = {
    "diffusers EDMDPMSolverMultistepScheduler": "it makes the images of 'k-diffusion dpmpp_2m'",
    "diffusers EDMEulerScheduler": "it makes the images of 'k-diffusion euler'",
}
WITHOUT_BASELINES = ("search.baselines=false",)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process: exit code, stdout, stderr."""

    def said(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["s3search", *map(str, words)])
        capfd.readouterr()
        code = run()
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return said


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    """A finished study, of an EDM model that is no pipeline, which was compared with nothing."""
    return searched_study(tmp_path, *WITHOUT_BASELINES)


def _names(found: dict[str, Any]) -> set[str]:
    return {row["name"].split(",")[0] for row in found["rows"]}


def test_schedulers_are_measured_once_and_stored_beside_the_others(
    cli: Cli, config: StudyConfig, tmp_path: Path
) -> None:
    url, grid = config.storage.url, tmp_path / "grid.png"
    words = ("compare", "t", "--storage", url)
    before = json.loads(cli(*words, "--json")[1])
    assert not _names(before) & STOCK
    code, out, err = cli(*words, "--schedulers", "--grid", grid, "--json")
    assert code == 0, err
    after = json.loads(out)
    assert _names(after) >= STOCK
    assert after["schedulers_without"] == ALIKE
    of_validation = {
        (row["n_images"], row["noise_seed"], row["extractor"]) for row in after["rows"]
    }
    assert len(of_validation) == 1
    assert grid.read_bytes()[:4] == b"\x89PNG"
    stored = evaluations(url)
    assert cli(*words, "--schedulers")[0] == 0
    assert evaluations(url) == stored
    assert json.loads(cli(*words, "--json")[1])["rows"] == after["rows"]
    launch(config, lambda _: None)  # resuming a finished study changes nothing
    assert evaluations(url) == stored


def test_the_table_names_every_scheduler(cli: Cli, config: StudyConfig) -> None:
    code, out, err = cli("compare", "t", "--storage", config.storage.url, "--schedulers")
    assert code == 0
    assert err.startswith("running code that study 't' names: model.loader = 'tests.support.")
    joined = "".join(out.split())
    assert all(name.split()[-1] in joined for name in STOCK)
    assert all("".join(f"without {name}: {why}".split()) in joined for name, why in ALIKE.items())


def test_a_study_that_measured_baselines_has_them_all_already(cli: Cli, tmp_path: Path) -> None:
    config = searched_study(tmp_path)
    stored = evaluations(config.storage.url)
    words = ("compare", "t", "--storage", config.storage.url, "--schedulers", "--json")
    assert _names(json.loads(cli(*words)[1])) >= STOCK
    assert evaluations(config.storage.url) == stored


def test_what_is_wrong_is_said_before_anything_is_measured(
    cli: Cli, config: StudyConfig, tmp_path: Path
) -> None:
    url = config.storage.url
    stored = evaluations(url)
    nowhere = tmp_path / "no" / "grid.png"
    code, _, err = cli("compare", "t", "--storage", url, "--schedulers", "--grid", nowhere)
    assert code == 2
    assert "there is no folder" in err
    code, _, err = cli("compare", "u", "--storage", url, "--schedulers")
    assert code == 2
    assert "there is no study 'u'" in err
    assert evaluations(url) == stored


def test_a_study_without_validation_is_told_to_finish(
    cli: Cli, config: StudyConfig, tmp_path: Path
) -> None:
    with open_study(config.storage.url, "t") as store:
        other = config.model_copy(
            update={"validation": config.validation.model_copy(update={"n_images": 61})}
        )
        store.set_config(other)
    code, _, err = cli("compare", "t", "--storage", config.storage.url, "--schedulers")
    assert code == 2
    assert "no validated schedule yet" in err


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
def test_a_pipelines_own_scheduler_has_a_row_of_the_sheet(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    folder = pipelines.stock_ddim(tmp_path / "pipe")
    config = pipelines.study(tmp_path, {"path": str(folder)})
    launch(config, lambda _: None)
    with open_study(config.storage.url, "t") as store, workers(config) as pool:
        own = described(pool).own_sampler
        assert own is not None and own.scheduler == "DDIMScheduler"
        missing = validate_schedulers(store, pool, lambda _: None)
        labels = draw_comparison(store, pool, tmp_path / "grid.png")
        names = _names(comparison_of(store))
    assert {"DDIMScheduler of the pipeline", "diffusers HeunDiscreteScheduler"} <= names
    for name in ("DDIMScheduler", "EulerDiscreteScheduler"):
        assert missing[f"diffusers {name}"].endswith("'DDIMScheduler of the pipeline'")
    assert not names & set(missing)
    assert [label.split(",")[0] for label in labels] == [
        "s3search",
        "best published",
        "pipeline's own",
    ]
    assert "DDIMScheduler" in labels[2]
