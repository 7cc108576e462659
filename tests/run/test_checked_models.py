"""A model that is not what the study takes it for is named at every door, before anything is
written.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3search
from s3search.cli import run
from s3search.errors import InvalidConfig
from s3search.run.launching import launch
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, load_config
from s3search.study.results.progress import Progress
from tests.evaluation.test_sanity import NAMED
from tests.support import slips

STUDY = """\
[study]
name = "t"
[model]
loader = "tests.support.slips:load"
slip = "{slip}"
[space]
nfe = [3]
[metric]
features = "tests.support.slips:pixels"
[reference]
images = "tests.support.slips:images"
[search]
algorithm = "evolution"
batch = 4
evaluations = 6
n_images = 30
[validation]
n_images = 60
finalists = 1
baselines = false
[storage]
url = "sqlite:///{folder}/study.db"
[cluster]
address = "inline"
workers = 1
"""

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Said:
    """Exit code, output and error of a command."""
    monkeypatch.delenv("S3SEARCH_STORAGE", raising=False)

    def typed(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["s3search", *map(str, words)])
        capfd.readouterr()
        code = run()
        return code, *capfd.readouterr()

    return typed


def study(folder: Path, slip: str = "") -> Path:
    path = folder / "study.toml"
    path.write_text(STUDY.format(folder=folder, slip=slip))
    return path


def config(folder: Path, *overrides: str) -> StudyConfig:
    return load_config(study(folder), overrides)


def asked(slip: str) -> dict[str, Any]:
    """The keywords of a search of the model with a slip."""
    return {
        "model": slips.load(slip),
        "reference": slips.images(),
        "features": slips.pixels(),
        "nfe": 3,
        "evaluations": 4,
        "n_images": 20,
        "algorithm": "evolution",
        "validation": {"n_images": 20, "finalists": 1, "baselines": False},
        "progress": False,
    }


@pytest.mark.parametrize("slip", NAMED)
def test_launch_and_check_name_a_slip_and_write_nothing(
    said: Said, tmp_path: Path, slip: str
) -> None:
    file = study(tmp_path, slip)
    code, out, error = said("launch", file)
    assert (code, out) == (2, "")
    assert NAMED[slip] in error
    code, out, error = said("check", file, "--json")
    assert (code, error) == (2, "")
    found = json.loads(out)
    assert not found["valid"]
    (message,) = [each["message"] for each in found["checks"] if each["status"] == "error"]
    assert NAMED[slip] in message
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


@pytest.mark.parametrize("slip", [each for each in NAMED if each != "dropout"])
def test_a_search_from_python_names_a_slip(tmp_path: Path, slip: str) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    with pytest.raises(InvalidConfig) as refused:
        s3search.search(**asked(slip), storage=url, name="t")
    assert NAMED[slip] in str(refused.value)
    assert str(refused.value).startswith("model: ")
    assert list(tmp_path.iterdir()) == []


def test_a_live_module_is_in_evaluation_mode_anyway() -> None:
    found = s3search.search(**asked("dropout"))
    assert found.warnings == ()


def test_an_extractor_of_the_wrong_size_is_named_at_every_door(said: Said, tmp_path: Path) -> None:
    flat = slips.images().flatten(1).double().numpy()
    statistics = tmp_path / "real.npz"
    np.savez(statistics, mu=flat.mean(0), sigma=np.cov(flat, rowvar=False))
    text = study(tmp_path).read_text()
    text = text.replace('"tests.support.slips:images"', f'"npz"\npath = "{statistics}"')
    (tmp_path / "study.toml").write_text(text.replace("slips:pixels", "slips:maps"))
    words = "metric.features: expected (B, d) features for"
    for command, place in (("launch", 2), ("check", 1)):
        found = said(command, tmp_path / "study.toml")
        assert found[0] == 2
        assert words in found[place]
    keywords = {**asked(""), "reference": statistics, "features": slips.pixels(3)}
    with pytest.raises(InvalidConfig, match="makes 61 features of an image, the statistics of"):
        s3search.search(**keywords)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.npz", "study.toml"]


def test_who_knows_better_searches_all_the_same(said: Said, tmp_path: Path) -> None:
    code, _, _ = said("launch", study(tmp_path, "epsilon"), "--set", "search.check=false")
    assert code == 0
    found = s3search.search(**asked("epsilon"), search={"check": False})
    assert found.status["state"] == "done"


def test_a_good_study_passes_every_check(said: Said, tmp_path: Path) -> None:
    code, out, error = said("check", study(tmp_path))
    assert (code, error) == (0, "")
    assert out.count("ok      ") + out.count("absent  ") == 13
    assert out.endswith("study.toml: valid (kind study, name t)\n")


def test_check_without_loading_reads_the_file_alone(said: Said, tmp_path: Path) -> None:
    file = study(tmp_path, "epsilon")
    code, out, _ = said("check", file, "--no-load", "--json")
    assert code == 0
    expected = {"valid": True, "file": str(file), "kind": "study", "name": "t", "checks": []}
    assert json.loads(out) == expected
    assert said("check", file, "--no-load", "--set", "search.n_images=nan")[0] == 2


def test_check_says_what_a_preset_still_wants(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said("preset", "cifar10-edm", "-o", "study.toml")[0] == 0
    words = (
        "fill in model.path (what `s3search tools checkpoint convert X.pkl -o X.safetensors` "
        "wrote), "
        "reference.path (fid-refs/cifar10-32x32.npz, published beside the checkpoints)"
    )
    code, out, _ = said("check", "study.toml", "--no-load")
    assert code == 0
    assert f"warning filled in: {words}" in out
    code, out, _ = said("check", "study.toml")
    assert code == 2
    assert f"error   filled in: {words}" in out
    (tmp_path / "cifar10-32x32.npz").touch()
    out = said("check", "study.toml", "--no-load", "--set", "model.path=path/to/mine.pt")[1]
    assert "warning filled in: fill in model.path: " in out


# --- warnings ---


def test_a_warning_is_shown_kept_and_returned(said: Said, tmp_path: Path) -> None:
    sets = ("--set", "reference.images=tests.run.test_checked_models:others")
    code, out, _ = said("launch", study(tmp_path), *sets)
    words = "warning: at little noise its answer is farther from the clean image than x is"
    assert code == 0
    assert out.count(words) == 2  # before the search, and after its result
    with open_study(f"sqlite:///{tmp_path}/study.db", "t") as store:
        ((_, content),) = store.notes("check")
    assert f"warning: {content['messages'][0]}" in out


def others() -> Any:
    """Images that the model has never seen."""
    return slips.images().flip(3).roll(2, 2)


def test_a_result_says_its_warnings() -> None:
    seen: list[Progress] = []
    keywords = {**asked(""), "reference": others(), "progress": seen.append}
    found = s3search.search(**keywords)
    (warning,) = found.warnings
    assert f"warning: {warning}" in repr(found)
    assert all(now.warnings == found.warnings for now in seen)


def test_a_study_that_has_measured_is_not_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[object] = []

    def count(pool: Any) -> tuple[Any, ...]:
        asked_for.append(pool)
        return ()

    monkeypatch.setattr("s3search.run.checking.findings_by", count)
    launch(config(tmp_path), lambda _: None)
    launch(config(tmp_path, "search.evaluations=8"), lambda _: None)
    launch(config(tmp_path, "search.check=false", "search.evaluations=9"), lambda _: None)
    assert len(asked_for) == 1
