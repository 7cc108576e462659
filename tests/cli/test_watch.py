"""`status --watch` as a person sees it who sits at another machine."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

import s3search
from s3search.show.terminal.watching import only_changes
from s3search.study.database.store import open_study
from s3search.study.results.watching import Watched, look
from tests.cli.test_cli import Cli
from tests.support.forked import Forked, command_line
from tests.support.studies import evaluations, study_file

ROOT = Path(s3search.__file__).parents[1]
PATIENCE_SECONDS = 200.0


SCREEN = {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm"}
Start = Callable[..., Forked]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command line in processes of their own, which end with the test."""
    processes = []

    def started(*arguments: object) -> Forked:
        process = Forked(command_line, *map(str, arguments), cwd=tmp_path, env=SCREEN)
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def interrupted(folder: Path, tmp_path: Path) -> Iterator[str]:
    """The finished study, as if its driver had been stopped at its very end."""
    shutil.copy(folder / "study.db", tmp_path / "study.db")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    _set_state(url, "interrupted")
    yield url


def _set_state(url: str, state: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("update s3search_studies set state = :state"), {"state": state})
    engine.dispose()


def test_a_running_study_is_followed_to_its_end(cli: Cli, start: Start, tmp_path: Path) -> None:
    """From a database that another process fills."""
    driver = start("launch", study_file(tmp_path), "--set", "model.seconds=0.05", "--json")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    _wait_for_an_evaluation(driver, url)
    said = cli("status", "t", "--watch", "--every", 0.1, "--storage", url, "--json")
    assert (said.code, said.err) == (0, "")
    assert driver.wait(PATIENCE_SECONDS) == 0
    looks = [json.loads(line) for line in said.out.splitlines()]
    assert len({json.dumps(look["spend"]) for look in looks}) > 2
    running = [look for look in looks if look["state"] == "searching"]
    assert {(look["study"], look["workers"], look["workers_busy"]) for look in running} == {
        ("t", 1, 1)
    }
    assert max(look["images_per_second"] for look in running) > 0
    spent = [look["network_calls"] for look in looks]
    assert spent == sorted(spent)
    last = looks[-1]
    assert (last["state"], last["done"], last["workers"]) == ("done", last["total"], 0)
    assert last["spend"]["search"]["network_calls"] == last["total"] * 30 * 3
    assert last["held_out"].keys() == last["best"].keys() == {"3"}


def _wait_for_an_evaluation(driver: Forked, url: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert driver.poll() is None, driver.communicate()
        try:
            if evaluations(url):
                return
        except sa.exc.DBAPIError:  # no tables yet
            pass
        time.sleep(0.03)
    raise AssertionError(f"no evaluation after {PATIENCE_SECONDS:.0f} s")


def test_a_line_is_printed_for_each_change_alone(storage: str) -> None:
    with open_study(storage, "t") as store:
        first = look(store)
    later = replace(first, silent_seconds=9000.0)
    better = replace(later, progress=replace(later.progress, best={3: 0.0}))
    told: list[Watched] = []
    show = only_changes(told.append)
    for seen in (first, later, better, better, replace(better, state="failed")):
        show([seen])
    assert told == [first, better, replace(better, state="failed")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watching_ends_by_a_key_without_a_traceback(
    interrupted: str, start: Start, number: signal.Signals
) -> None:
    watch = start("status", "--watch", "--every", "60", "--storage", interrupted)
    first = watch.stdout.readline()  # it waits: whoever stopped the study may resume it
    assert "interrupted; the same `s3search launch` resumes it" in first
    watch.send_signal(number)
    out, err = watch.communicate(timeout=PATIENCE_SECONDS)
    assert (watch.returncode, out, err) == (130, "", "")


def test_a_terminal_shows_a_table_that_stays(interrupted: str) -> None:
    _set_state(interrupted, "done")
    leader, follower = pty.openpty()
    words = ["-m", "s3search", "status", "--watch", "--storage", interrupted]
    with subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, **SCREEN},
        stdout=follower,
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        os.close(follower)
        shown = b"".join(_read(leader))
        os.close(leader)
        _, err = watch.communicate(timeout=PATIENCE_SECONDS)
    assert (watch.returncode, err) == (0, "")
    for word in (
        b"t: done",
        b"100 %",
        b"17 schedules measured",
        b"best so far",
        b"today: k-diffusion dpmpp_2s",
        b"on unseen noise",
    ):
        assert word in shown
    assert b"\xe2\x80\xa6" not in shown  # nothing is cut off at 80 columns


def _read(leader: int) -> Iterator[bytes]:
    while True:
        try:
            block = os.read(leader, 4096)
        except OSError:  # Linux's way to say that the other side is closed
            return
        if not block:
            return
        yield block


def test_a_failed_study_ends_the_watch_with_1(cli: Cli, interrupted: str) -> None:
    _set_state(interrupted, "failed")
    said = cli("status", "t", "--watch", "--storage", interrupted)
    assert said.code == 1
    assert "t: failed: " in said.out
    assert said.err.startswith("error: t failed; ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("t", "--every", 1), ("--every", "--watch")),
        (("t", "--watch", "--every", 0), ("--every", "0.1")),
        (("nosuch", "--watch"), ("no study 'nosuch'", "known: t")),
    ],
)
def test_what_cannot_be_watched_is_one_sentence(
    cli: Cli, storage: str, arguments: Sequence[object], words: Sequence[str]
) -> None:
    said = cli("status", *arguments, "--storage", storage)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err
