"""Modules beside the study file are found, from wherever a command runs and on workers too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3search.errors import InvalidConfig
from s3search.evaluation.plugins import importable_from
from s3search.run.launching import launch
from s3search.study.file.config import load_config
from tests.suites.pool_suite import start_ray
from tests.support.studies import FEWER, STUDY

ROOT = Path(__file__).parents[2]
LOADER = "from tests.support.plugins import gaussian as load\n"
FEW = ("--set", "search.evaluations=2", "--set", FEWER)


def _study(folder: Path, module: str) -> Path:
    """A study file whose loader, extractor and search lie beside it."""
    folder.mkdir()
    (folder / f"{module}.py").write_text(
        f"{LOADER}from tests.support.plugins import pixels\n"
        "from s3search.search.algorithms.sequential import Sequential\n"
        "from s3search.search.algorithms.evolution import RandomSearch\n"
        "def search(setup):\n"
        "    return Sequential(setup, lambda: RandomSearch(setup), n_seeds=len(setup.seeds))\n"
    )
    text = STUDY.format(folder=folder)
    text = text.replace("tests.support.plugins:gaussian", f"{module}:load")
    text = text.replace("tests.support.plugins:pixels", f"{module}:pixels")
    text = text.replace('algorithm = "evolution"', f'algorithm = "{module}:search"')
    path = folder / "study.toml"
    path.write_text(text)
    return path


def _command(here: Path, *words: str) -> str:
    """What the command prints that is run in another folder, which is not on the import path."""
    run = [sys.executable, "-P", "-c", "from s3search.cli import main; main()", *words]
    found = subprocess.run(
        run,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_study_finds_what_lies_beside_its_file_from_anywhere(tmp_path: Path) -> None:
    study, here = _study(tmp_path / "there", "lies_beside"), tmp_path / "here"
    here.mkdir()
    said = json.loads(_command(here, "launch", str(study), *FEW, "--json"))
    assert said["state"] == "done"
    database = ("--storage", f"sqlite:///{study.parent / 'study.db'}")
    schedule = str(here / "schedule.json")
    _command(here, "export", "t", "--nfe", "3", "-o", schedule, *database)
    _command(here, "evaluate", schedule, str(study), "--n-images", "20")
    _command(here, "report", "t", "--samples", "2", "-o", str(here / "report.html"), *database)
    assert "data:image" in (here / "report.html").read_text()  # made by the model, by name alone


@pytest.mark.cluster
def test_workers_on_ray_find_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_ray()  # whose processes know nothing of the folder
    monkeypatch.setattr(sys, "path", list(sys.path))
    study = _study(tmp_path / "there", "lies_beside_ray")
    local = ("cluster.address=local", "search.evaluations=2", FEWER)
    found = []
    launch(load_config(study, local), found.append)
    assert found[-1].stage == "validation"


def test_the_current_folder_is_looked_in_as_well(tmp_path: Path) -> None:
    study, here = _study(tmp_path / "there", "lies_here"), tmp_path / "here"
    here.mkdir()
    (study.parent / "lies_here.py").rename(here / "lies_here.py")
    assert "sample shape 1 x 3 x 3" in _command(here, "tools", "inspect-model", str(study))


def test_folders_are_taken_from_the_study_file(tmp_path: Path) -> None:
    study = _study(tmp_path / "there", "anything")
    config = load_config(study)
    assert config.cluster.import_from == (str(study.parent),)
    words = ['cluster.import_from=["../plugins", "/nfs/plugins"]', "cluster.address=auto"]
    other = load_config(study, words)
    own = (str(study.parent), f"{study.parent}/../plugins", "/nfs/plugins")
    assert other.cluster.import_from == own
    with pytest.raises(InvalidConfig, match="there is no folder '/nfs/plugins'"):
        load_config(study, ["cluster.import_from=['/nfs/plugins']"])
    assert other.identity == config.identity
    assert other.evaluator_spec == config.evaluator_spec


def test_a_module_that_bears_the_name_of_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "json.py").write_text("")
    importable_from([str(tmp_path)], ["digits", "tests.support.plugins:gaussian", "json5:load"])
    with pytest.raises(InvalidConfig, match=r"json:load: the study's folder has .*json\.py, and"):
        importable_from([str(tmp_path)], ["json:load"])
    importable_from([str(tmp_path / "none")], ["json:load"])
