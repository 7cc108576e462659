"""`s3search retime` as a user types it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3search.cli import run
from s3search.processes import edm, vp_linear
from s3search.rules import Taylor
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.freed import freed
from tests.studies import study_file

Cli = Callable[..., tuple[int, str, str]]


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
def schedule(tmp_path: Path) -> Path:
    path = tmp_path / "schedule.json"
    published.unipc(edm(sigma_min=0.05, sigma_max=10.0), nfe=5).save(path)
    return path


def _notes(cli: Cli, *words: object) -> tuple[Any, list[str]]:
    code, out, err = cli("retime", *words, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    return found, found["notes"]


def test_another_process_is_exact_and_comes_back(cli: Cli, schedule: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there.json", tmp_path / "back.json"
    found, notes = _notes(cli, schedule, "-o", there, "--process", "score_sde")
    assert [note[:5] for note in notes] == ["exact"]
    assert Schedule.load(there).process == vp_linear()
    assert found["schedule_id"] == Schedule.load(there).id
    assert found["from"] == Schedule.load(schedule).id
    _notes(cli, there, "-o", back, "--process", "edm")
    assert Schedule.load(back).times == pytest.approx(Schedule.load(schedule).times)


def test_another_nfe_says_what_is_approximated(cli: Cli, schedule: Path, tmp_path: Path) -> None:
    output = tmp_path / "there.json"
    code, out, err = cli("retime", schedule, "-o", output, "--nfe", 8)
    assert (code, err) == (0, "")
    assert "edm, NFE 8" in out
    assert "note: approximated: the levels" in out
    made = Schedule.load(output)
    assert made.nfe == 8
    assert made.provenance["retimed"]["nfe"] == 5
    assert f"note: {made.provenance['retimed']['notes'][0]}" in out


def test_the_process_may_be_that_of_a_studys_model(
    cli: Cli, schedule: Path, tmp_path: Path
) -> None:
    vp, output = tmp_path / "vp.json", tmp_path / "there.json"
    _notes(cli, schedule, "-o", vp, "--process", "score_sde", "--nfe", 7)
    found, _ = _notes(cli, vp, "-o", output, "--study", study_file(tmp_path))
    assert found["nfe"] == 7
    assert Schedule.load(output).process == edm()


def test_free_steps_keep_their_levels_under_a_published_solver(cli: Cli, tmp_path: Path) -> None:
    path, output = tmp_path / "free.json", tmp_path / "there.json"
    free = freed(published.unipc(edm(), nfe=5, end=published.End(rule="denoise")))
    free.save(path)
    code, _, err = cli("retime", path, "-o", output, "--nfe", 8)
    assert code == 2
    assert "--solver unipc" in err
    assert not output.exists()
    _, notes = _notes(cli, path, "-o", output, "--solver", "dpmpp_2m")
    made = Schedule.load(output)
    assert made.times == free.times
    assert notes[0] == "exact: the levels"
    assert all(isinstance(step.predictor, Taylor) for step in made.steps)
    _, notes = _notes(cli, path, "-o", output, "--solver", "heun", "--nfe", 7)
    assert Schedule.load(output).nfe == 7
    assert notes[0].startswith("approximated: the levels")


def test_levels_beyond_a_model_are_refused_or_fitted(cli: Cli, tmp_path: Path) -> None:
    path, output = tmp_path / "wide.json", tmp_path / "there.json"
    published.unipc(edm(), nfe=5).save(path)
    code, _, err = cli("retime", path, "-o", output, "--process", "sd")
    assert code == 2
    assert "outside what a 'vp_discrete' model was trained for" in err
    _, notes = _notes(cli, path, "-o", output, "--process", "sd", "--fit")
    assert Schedule.load(output).times[0] == pytest.approx(999.0)
    assert [note.split(":")[0] for note in notes] == ["approximated", "exact"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to do: give --nfe"),
        (["--fit", "--nfe", "7"], "--fit needs the process"),
        (["--process", "edn"], "did you mean 'edm'?"),
        (["--process", "edm", "--study", "x.toml"], "give one"),
        (["--study", "x.toml"], "x.toml: cannot be read"),
        (["--set", "model.path=x", "--nfe", "7"], "give --study"),
        (["--solver", "unipcc"], "did you mean 'unipc'?"),
        (["--nfe", "0"], "--nfe"),
        (["--nfe", "1"], "no number of this schedule's steps makes 1"),
        (["--nfe", "3", "--solver", "heun"], "--solver heun: no number of its steps"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    cli: Cli, schedule: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    code, out, err = cli("retime", schedule, "-o", tmp_path / "there.json", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "there.json").exists()


def test_a_file_that_is_no_schedule_and_a_folder_that_is_not_there(
    cli: Cli, schedule: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    assert "format: expected" in cli("retime", wrong, "-o", wrong, "--nfe", 7)[2]
    assert wrong.read_text() == "{}"
    nowhere = tmp_path / "no" / "there.json"
    assert "there is no folder" in cli("retime", schedule, "-o", nowhere, "--nfe", 7)[2]
