"""Files are written whole and are on the disk before they take another's place."""

import errno
import os
import sys
from pathlib import Path

import pytest

from s3search.cli import run
from s3search.files import write_text, written_through
from s3search.processes import edm
from s3search.schedules import published


def test_what_is_written_is_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")
    seen: list[tuple[str, str]] = []
    sync = os.fsync

    def watched(handle: int) -> None:
        seen.append((Path(f"/proc/self/fd/{handle}").readlink().name, target.read_text()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write_text(target, "after")
    assert seen == [(".a.txt.part", "before"), (tmp_path.name, "after")]


def test_a_failure_leaves_what_was_there_and_no_part(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")

    def fail() -> None:
        with written_through(target) as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        fail()
    assert caught.value.filename == str(target)
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "before"


def test_a_full_disk_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, output = tmp_path / "a.json", tmp_path / "b.json"
    published.ddim(edm(), nfe=3).save(made)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    words = ["export", "--schedule", str(made), "-o", str(output)]
    monkeypatch.setattr(sys, "argv", ["s3search", *words])
    assert run() == 1
    assert capsys.readouterr().err == (
        f"error: {output}: No space left on device; nothing of it was kept\n"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.json"]
