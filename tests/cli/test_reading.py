"""Commands that read somebody else's database run nothing that it names."""

import json
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from s3search.cli import run
from s3search.study.database.tables import EVALUATIONS, STUDIES
from s3search.study.database.upkeep import copy_studies
from s3search.study.file.config import StudyConfig
from tests.support.studies import EVIL_NAME

_TRAPS = (
    ("model", "loader"),
    ("metric", "features"),
    ("reference", "images"),
)


@pytest.fixture
def trapped(finished: StudyConfig, tmp_path: Path) -> tuple[str, Path]:
    """A database whose row names functions that leave a file behind, and that file."""
    url, trap = f"sqlite:///{tmp_path / 'theirs.db'}", tmp_path / "it ran"
    copy_studies(finished.storage.url, url, [], lambda _: None)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config = json.loads(connection.execute(sa.select(STUDIES.c.config)).scalar_one())
        for table, key in _TRAPS:
            config[table] |= {
                key: "tests.support.plugins:leave_file",
                "path": str(trap),
            }
        connection.execute(STUDIES.update().values(config=json.dumps(config)))
    engine.dispose()
    return url, trap


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("best",),
        ("compare",),
        ("compare", "--grid", "x.png"),
        ("veto",),
        ("export", "--nfe", "2", "-o", "x.json"),
        ("report", "-o", "x.html"),
        ("storage publish",),
    ],
)
def test_a_command_that_reads_runs_no_code_of_the_database(
    trapped: tuple[str, Path],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, trap = trapped
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        ["s3search", *words[0].split(), EVIL_NAME, *words[1:], "--storage", url],
    )
    is_refused = "--grid" in words
    assert run() == (2 if is_refused else 0)
    if is_refused:
        said = capsys.readouterr().err
        assert "model.loader = 'tests.support.plugins:leave_file'" in said
        assert "add --samples where you trust that" in said
    assert not trap.exists()


@pytest.mark.parametrize("words", [("report", "-o", "x.html"), ("storage publish",)])
def test_samples_say_whose_code_they_run(
    trapped: tuple[str, Path],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, trap = trapped
    monkeypatch.chdir(tmp_path)
    asked = [*words[0].split(), EVIL_NAME, *words[1:], "--storage", url, "--samples", "1"]
    monkeypatch.setattr(sys, "argv", ["s3search", *asked])
    run()
    assert trap.exists()
    found = capsys.readouterr().err
    assert found.startswith("running code that study")
    assert "reference.images = 'tests.support.plugins:leave_file'" in found


def test_a_damaged_value_of_a_database_is_a_sentence(
    finished: StudyConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"sqlite:///{tmp_path / 'damaged.db'}"
    copy_studies(finished.storage.url, url, [], lambda _: None)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        is_kept = EVALUATIONS.c.replicates.is_not(None)
        connection.execute(EVALUATIONS.update().where(is_kept).values(replicates="[0.1 0.2]"))
    engine.dispose()
    monkeypatch.setattr(sys, "argv", ["s3search", "best", EVIL_NAME, "--storage", url])
    assert run() == 2
    said = capsys.readouterr().err
    assert "the database holds a damaged value (" in said
    assert "s3search storage copy" in said
