"""What is printed: no password, and brackets as they are."""

import sys

import pytest

from s3search.cli.output import OUT, this_command
from s3search.study.database.engine import redacted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a b.db", "sqlite:///a b.db"),
        ("postgresql+psycopg://me:secret@host/x", "postgresql+psycopg://me:***@host/x"),
        ("postgresql+psycopg://h/x?password=secret", "postgresql+psycopg://h/x?password=hidden"),
        ("no url: secret", "the storage URL"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize("head", [[], ["--storage"], ["--set"]])
def test_a_command_is_repeated_without_the_password(
    head: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql+psycopg://me:secret@host/x?password=secret"
    word = {"--storage": url, "--set": f"storage.url={url}"}.get("".join(head), f"--storage={url}")
    monkeypatch.setattr(sys, "argv", ["s3search", "launch", "a study.toml", *head, word, "--json"])
    said = this_command()
    assert said.startswith("s3search launch 'a study.toml' ")
    assert said.endswith("--json")
    assert "secret" not in said and "me:***@host/x" in said


def test_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    OUT.print("study [b] of [red]mine[/red]")
    assert capsys.readouterr().out == "study [b] of [red]mine[/red]\n"
