"""The examples run, in an empty folder and with little to do."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import s3search
from tests.suites.pool_suite import start_ray
from tests.support import pipelines

EXAMPLES = Path(__file__).parents[1] / "examples"
FEW = {"evaluations": 2, "n_images": 80}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_test() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    assert names
    assert [name for name in names if f'_example("{name}")' not in tested] == []


def test_a_live_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _example("live_model").main(steps=20, **FEW)
    assert found.schedule.nfe == 5
    assert {path.name for path in tmp_path.iterdir()} == {"schedule.json", "schedule.png"}
    assert "SearchResult of 'Denoiser-nfe5-" in capsys.readouterr().out


def test_an_own_metric(capsys: pytest.CaptureFixture[str]) -> None:
    found = _example("own_metric").main(**FEW)
    assert set(found.table["second_extractor"]) == {"digits-b"}
    assert "on other noise: " in capsys.readouterr().out


def test_an_own_search() -> None:
    algorithm = "examples.own_search:" + _example("own_search").Batches.__name__
    found = s3search.search(
        "digits", reference="digits", features="digits", algorithm=algorithm, **FEW
    )
    assert found.schedule.nfe == 5


@pytest.mark.cluster
def test_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_ray()
    found = _example("cluster").main(**FEW, database=tmp_path / "s.db")
    assert found.schedule.nfe == 5
    assert (tmp_path / "s.db").is_file()
    assert "s3search report 'digits on two workers'" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
def test_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    diffusers: Any = pytest.importorskip("diffusers", reason="needs diffusers")
    pipe = diffusers.DiffusionPipeline.from_pretrained(pipelines.ddpm(tmp_path / "pipe"))
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    image = _example("run_in_diffusers").main(
        pipe, pipelines.references(), pipelines.pooled(), evaluations=2, n_images=12
    )
    assert image.size == (8, 8)
