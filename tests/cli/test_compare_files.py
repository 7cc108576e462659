"""`compare A.json B.json`, and what stands between two files and a study's name."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from s3search.processes import flow
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from tests.cli.test_cli import Cli


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The best schedule of a study, and another one of a call more."""
    found = Schedule.load(folder / "best.json")
    other = tmp_path / "other.json"
    published.dpmpp_2m(found.process, nfe=4).save(other)
    return folder / "best.json", other


def test_two_files_are_set_side_by_side(
    cli: Cli, files: tuple[Path, Path], tmp_path: Path
) -> None:
    png = tmp_path / "both.png"
    said = cli("compare", *files, "--picture", png)
    assert (said.code, said.err) == (0, "")
    assert png.read_bytes().startswith(b"\x89PNG")
    for word in ("A  ", "B  ", "t of A", "lam of B", "≠", "NFE 3", "NFE 4", "times: "):
        assert word in said.out
    assert "…" not in said.out  # nothing is cut off at 80 columns
    same = cli("compare", files[0], files[0])
    assert "the same schedule: the same images" in same.out
    assert "≠" not in same.out


def test_the_comparison_in_plain_data(cli: Cli, files: tuple[Path, Path]) -> None:
    found = cli("compare", *files, "--json").json
    schedules = [Schedule.load(file) for file in files]
    assert [own["id"] for own in found["schedules"]] == [own.id for own in schedules]
    assert [own["nfe"] for own in found["schedules"]] == [3, 4]
    assert not found["same"]
    for side, schedule in enumerate(schedules):
        lines = [time["of_each"][side] for time in found["times"]]
        assert [line["t"] for line in lines if line is not None] == list(schedule.times)
    assert found["lam_distance"]["largest"] >= found["lam_distance"]["mean"] > 0
    assert cli("compare", files[0], files[0], "--json").json["same"]


def test_the_clean_end_and_pure_noise_are_null(cli: Cli, tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    published.ddim(flow(), nfe=3, spacing="uniform").save(one)
    published.ddim(flow(), nfe=2, spacing="uniform").save(other)
    times = cli("compare", one, other, "--json").json["times"]
    assert times[0]["of_each"][0]["t"] == 1.0
    assert times[0]["of_each"][0]["lam"] is None


def test_what_is_neither_a_study_nor_two_files_is_one_sentence(
    cli: Cli, files: tuple[Path, Path], storage: str, tmp_path: Path
) -> None:
    best, other = files
    there = ("--storage", storage)
    cases: list[tuple[Sequence[object], Sequence[str]]] = [
        ((best,), ("two schedule files", "best.json' alone")),
        ((best, "t"), ("one study's name or two schedule files", "'t', which is none")),
        (("t", other), ("other.json' and 't', which is none", "s3search export")),
        (("t", "u", *there), ("found 't' and 'u'", "no such files")),
        ((best, other, "--grid", "x.png"), ("--grid goes with a study's name",)),
        ((best, other, "--schedulers"), ("--schedulers goes with a study's name",)),
        ((best, other, *there), ("--storage goes with a study's name",)),
        ((best, other, "--address", "inline"), ("--address goes with a study's name",)),
        (("t", "--picture", "x.png", *there), ("--picture goes with two schedule files",)),
        ((best, tmp_path / "none.json"), ("none.json", "cannot be read")),
        ((best, other, "--picture", "/proc/x.png"), ("cannot write /proc/x.png",)),
    ]
    before = set(tmp_path.rglob("*"))
    for arguments, words in cases:
        said = cli("compare", *arguments)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), arguments
        for word in words:
            assert word in said.err
    assert set(tmp_path.rglob("*")) == before
