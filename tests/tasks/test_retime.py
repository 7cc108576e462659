"""`s3search tools retime` as a user types it."""

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
from s3search.solvers.coefficients import as_coefficients
from tests.support.studies import study_file

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
    code, out, err = cli("tools", "retime", *words, "--json")
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
    code, out, err = cli("tools", "retime", schedule, "-o", output, "--nfe", 8)
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
    free = as_coefficients(published.unipc(edm(), nfe=5, end=published.End(rule="denoise")))
    free.save(path)
    code, _, err = cli("tools", "retime", path, "-o", output, "--nfe", 8)
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
    code, _, err = cli("tools", "retime", path, "-o", output, "--process", "sd")
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
    code, out, err = cli("tools", "retime", schedule, "-o", tmp_path / "there.json", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "there.json").exists()


def test_a_file_that_is_no_schedule_and_a_folder_that_is_not_there(
    cli: Cli, schedule: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    assert "format: expected" in cli("tools", "retime", wrong, "-o", wrong, "--nfe", 7)[2]
    assert wrong.read_text() == "{}"
    nowhere = tmp_path / "no" / "there.json"
    assert "there is no folder" in cli("tools", "retime", schedule, "-o", nowhere, "--nfe", 7)[2]


# -- robustness ----------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study whose model's parameter stands in a file: 1 is right, others are fine-tuned."""
    path = study_file(tmp_path)
    (tmp_path / "one").write_text("1.0")
    (tmp_path / "two").write_text("0.9")
    text = path.read_text().replace(
        'loader = "tests.support.plugins:gaussian"',
        f'loader = "tests.support.plugins:trained"\nweights = "{tmp_path / "one"}"',
    )
    path.write_text(text)
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A very good and a very bad schedule, of 20 and of 3 calls."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    end = published.End(rule="denoise")
    published.dpmpp_2m(edm(), nfe=3, spacing="logsnr", end=end).save(bad)
    published.dpmpp_2m(edm(), nfe=4, spacing="karras", end=end).save(good)
    return good, bad


def test_every_schedule_stands_beside_the_best_published_one_in_every_variant(
    cli: Cli, study: Path, two: tuple[Path, Path], tmp_path: Path
) -> None:
    good, bad = two
    tuned = f"model.weights={tmp_path / 'two'}"
    words = ("tools", "robustness", good, bad, study, "--set", tuned, "--n-images", 200)
    code, out, err = cli(*words, "--seed", 1, "--seed", 2, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    rows = found["rows"]
    places = [(row["variant"], row["noise_seed"]) for row in rows[::2]]
    assert places == [(v, s) for v in ("study.toml", tuned) for s in (1, 2)]
    assert len({row["model_fingerprint"] for row in rows}) == 2
    for row in rows:
        own, other = row["value"], row["published"]["value"]
        assert row["ratio"] == pytest.approx(own / other)
        low, high = row["interval_95"]
        assert low < own < high
        held = row["ratio_95"] is not None and row["ratio_95"][1] < 1.0
        assert (row["verdict"] == "holds") == held
    assert [each["schedule"] for each in found["held"]] == ["good.json", "bad.json"]
    worst = max(row["ratio"] for row in rows[1::2])
    assert found["held"][1]["worst_ratio"] == worst > 1.2
    assert found["held"][1]["fails"] == sum(row["verdict"] == "fails" for row in rows[1::2]) > 0
    assert sum(found["held"][1][key] for key in ("holds", "fails", "undecided")) == 4

    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    assert f"measuring {tuned}, noise seed 1" in out
    assert "bad.json: holds in 0 of 2 variants" in out
    assert "best published of" in out


def test_the_value_is_that_of_evaluate(cli: Cli, study: Path, two: tuple[Path, Path]) -> None:
    found = cli("tools", "robustness", two[0], study, "--n-images", 60, "--seed", 5, "--json")[1]
    alone = cli("evaluate", two[0], study, "--n-images", 60, "--seed", 5, "--json")[1]
    row, own = json.loads(found)["rows"][0], json.loads(alone)
    assert row["value"] == own["value"]
    assert row["model_fingerprint"] == own["model_fingerprint"]


def test_a_model_that_fails_says_so(cli: Cli, tmp_path: Path, two: tuple[Path, Path]) -> None:
    study = study_file(tmp_path)
    words = ("--set", "model.fail=true", "--n-images", 60)
    code, _, err = cli("tools", "robustness", two[0], study, *words)
    assert code == 1
    assert "model.fail=true: none of" in err
    assert "not finite" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "modl.path=x"], "modl"),
        (["--study", "none.toml"], "none.toml: cannot be read"),
        (["--n-images", "1"], "--n-images"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_variants_are_told_in_a_sentence(
    cli: Cli, study: Path, two: tuple[Path, Path], words: list[str], sentence: str
) -> None:
    code, out, err = cli("tools", "robustness", two[0], study, *words)
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_schedule_of_another_process_is_sent_to_retime(
    cli: Cli, study: Path, tmp_path: Path
) -> None:
    path = tmp_path / "vp.json"
    published.ddim(vp_linear(), nfe=3).save(path)
    code, _, err = cli("tools", "robustness", path, study, "--n-images", 60)
    assert code == 2
    assert "vp.json: process: this is a schedule for" in err
    assert "`s3search tools retime`" in err


def test_guidance_is_refused_by_a_model_without_it(cli: Cli, study: Path, tmp_path: Path) -> None:
    path = tmp_path / "guided.json"
    published.with_guidance(published.ddim(edm(), nfe=2), [1.0, 2.0]).save(path)
    code, _, err = cli("tools", "robustness", path, study, "--n-images", 60)
    assert code == 2
    assert "no null condition" in err
