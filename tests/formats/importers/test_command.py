"""`s3search import`, and the page that describes it."""

import json
from pathlib import Path

import pytest

from s3search import cli
from s3search.formats.importers import FORMATS
from s3search.schedules.schedule import Schedule
from tests.formats.importers.files import text_file

_DOCS = Path(__file__).resolve().parents[3] / "docs" / "importers.md"


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["s3search", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_import_writes_a_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = text_file(tmp_path, "80 3 0.1"), tmp_path / "schedule.json"
    words = ("import", "sigmas", source, "-o", str(output), "--process", "edm", "--json")
    assert _run(monkeypatch, *words) == 0
    schedule = Schedule.load(output)
    found = json.loads(capsys.readouterr().out)
    assert found["schedule_id"] == schedule.id
    assert found["imported"]["format"] == "sigmas"
    assert _run(monkeypatch, "check", str(output)) == 0
    assert _run(monkeypatch, "show", str(output)) == 0


def test_notes_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = text_file(tmp_path, "cand: [900, 900, 20], fid: 3.0\n")
    words = ("import", "autodiffusion", source, "-o", str(tmp_path / "s.json"))
    assert _run(monkeypatch, *words) == 0
    assert "note: 3 timesteps of which 1 repeat others" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sigmas", "absent.txt", "--process", "edm"), "absent.txt: cannot be read"),
        (("sigmas", "absent.txt", "--process", "sdd"), "did you mean 'sd'?"),
        (("sigmas", "absent.txt", "--process", '{"type": "edn"}'), "--process"),
        (("usff", "absent.pth"), "did you mean 'usf'?"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_two(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    assert _run(monkeypatch, "import", *words, "-o", str(tmp_path / "s.json")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_documented(form: str) -> None:
    text = _DOCS.read_text(encoding="utf-8")
    assert f"s3search import {form} " in text
    for option in FORMATS[form].options:
        assert f"--{option.replace('_', '-')}" in text
