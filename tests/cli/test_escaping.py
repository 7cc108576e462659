"""What others wrote does not act on the terminal of who reads it."""

import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from s3search.cli import run
from s3search.show.terminal.escaping import SafeConsole, escaped
from s3search.study import vetoes
from s3search.study.database.upkeep import copy_studies
from s3search.study.file.config import StudyConfig
from tests.support.studies import EVIL_NAME

ATTACK = "\x1b]0;owned\x07\x1b[2J\x9b2J \u202ereversed [red]b[/red] :warning: \r back"


def _acts(text: str) -> set[str]:
    turning = {"\u202e", "\u2066", "\u200f"}
    return {c for c in text if unicodedata.category(c) in {"Cc", "Cs"} or c in turning} - {"\n"}


@settings(deadline=None)
@given(st.text())
def test_nothing_that_acts_is_left_and_the_rest_stands_as_it_was(text: str) -> None:
    assert not _acts(escaped(text).replace("\t", ""))
    assert escaped(escaped(text)) == escaped(text)
    plain = "".join(c for c in text if c.isprintable())
    if plain == text:
        assert escaped(text) == text


def _terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[SafeConsole, io.StringIO]:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    console, written = SafeConsole(), io.StringIO()
    console.file = written
    return console, written


def test_tables_panels_and_live_views_write_no_control_character_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console, written = _terminal(monkeypatch)
    table = Table(ATTACK, title=ATTACK)
    table.add_row(ATTACK)
    console.print(Panel(table, title=Text(ATTACK)), ATTACK, style="red")
    with Live(table, console=console, auto_refresh=False) as live:
        live.update(Panel(ATTACK), refresh=True)
    found = written.getvalue()
    assert "\x1b[31m" in found  # its own colours are there
    assert "\\x1b]0;owned" in found
    assert "\x1b]0;" not in found and "\x1b[2J" not in found and "\x9b" not in found
    assert "\u202e" not in found
    assert "[red]b[/red]" in found and ":warning:" in found


@pytest.fixture
def vetoed(finished: StudyConfig, tmp_path: Path) -> str:
    """A database whose study has an evil name, and a veto with a reason like it."""
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    copy_studies(finished.storage.url, url, [], lambda _: None)
    vetoes.veto(url, EVIL_NAME, "3", ATTACK)
    return url


@pytest.mark.parametrize("words", [("veto",), ("best",), ("status",), ("compare",)])
def test_the_reason_of_a_veto_is_escaped(
    vetoed: str,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["s3search", *words, EVIL_NAME, "--storage", vetoed])
    assert run() == 0
    said = capsys.readouterr()
    assert not _acts(said.out + said.err)
    assert words == ("compare",) or "owned" in said.out


def test_errors_are_escaped_and_say_it_in_any_encoding(tmp_path: Path) -> None:
    head = '{"format": "s3search.schedule", "version": 1, '
    (tmp_path / "evil.json").write_text(head + '"\\u001b[2J owned \\u00e9": 1}')
    name = os.fsdecode(b"nothing \xff \x1b[2J.json")
    for file in ("evil.json", name):
        ended = subprocess.run(
            [sys.executable, "-m", "s3search", "show", file],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONIOENCODING": "ascii",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            check=False,
        )
        said = ended.stderr.decode("ascii")
        assert ended.returncode == 2, said
        assert said.startswith("error: ") and "\\x1b[2J" in said
        assert not _acts(said)
