"""Real processes that die: a killed worker, driver and database, Ctrl-C and SIGTERM."""

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

import s3search
from s3search.run.launching import launch, space_of
from s3search.study.database.store import create_or_resume, open_study
from s3search.study.file.config import StudyConfig
from s3search.study.results.progress import Progress
from tests.conftest import MortalServer
from tests.suites.pool_suite import start_ray
from tests.support.forked import Forked, command_line
from tests.support.studies import (
    FEWER,
    assert_same,
    content,
    evaluations,
    second_times,
    study_config,
    study_file,
    undisturbed,
)

ROOT = Path(s3search.__file__).parents[1]
SLOW = ("model.seconds=0.05", FEWER)  # a network call; an evaluation takes three
PATIENCE_SECONDS = 100.0

Cli = Callable[..., Forked]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Starts the command line in processes of their own, which end with the test."""
    processes = []

    def start(*arguments: str) -> Forked:
        process = Forked(command_line, *arguments, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _arguments(folder: Path, overrides: Sequence[str]) -> list[str]:
    sets = [word for override in overrides for word in ("--set", override)]
    return ["launch", str(study_file(folder)), *sets]


def _wait_for_evaluations(process: Forked, url: str, n: int) -> None:
    """Waits until the database holds ``n`` evaluations."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            if len(evaluations(url)) >= n:
                return
        except sa.exc.DBAPIError:  # no tables yet
            pass
        time.sleep(0.1)
    raise AssertionError(f"no {n} evaluations after {PATIENCE_SECONDS:.0f} s")


def _finish(process: Forked) -> None:
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, (out, err)


def _ignore(_: Progress) -> None:
    pass


def test_a_killed_driver_loses_nothing_and_counts_nothing_twice(
    url: str, tmp_path: Path, cli: Cli
) -> None:
    overrides = [*SLOW, f"storage.url='{url}'"]
    config = study_config(tmp_path, *overrides)
    process = cli(*_arguments(tmp_path, overrides))
    _wait_for_evaluations(process, url, 8)
    process.kill()
    process.communicate()
    kept = evaluations(url)
    with open_study(url, "t") as store:
        assert store.state == "searching"
    launch(config, _ignore)
    found = content(config)
    assert set(kept) <= set(found["evaluations"])
    assert_same(found, undisturbed(tmp_path, FEWER))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launch_says_how_to_resume_and_resumes(
    tmp_path: Path, cli: Cli, number: signal.Signals
) -> None:
    config = study_config(tmp_path, *SLOW)
    command = _arguments(tmp_path, SLOW)
    process = cli(*command)
    _wait_for_evaluations(process, config.storage.url, 3)
    _assert_interrupted(process, number, config, command)
    kept = evaluations(config.storage.url)
    launch(config, _ignore)
    found = content(config)
    assert set(kept) <= set(found["evaluations"])
    assert_same(found, undisturbed(tmp_path, FEWER))


def _assert_interrupted(
    process: Forked,
    number: signal.Signals,
    config: StudyConfig,
    command: list[str],
) -> None:
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    url = config.storage.url
    assert err.endswith(  # behind the note of who takes over whose lease
        f"interrupted; what was measured is saved in {url}. "
        f"Resume with: {shlex.join(['s3search', *command])}\n"
    )
    with open_study(url, "t") as store:
        assert store.state == "interrupted"
        assert len(store.rows()) == len(evaluations(url)) >= 3


def test_a_second_launch_is_refused_with_exit_code_2_unless_it_takes_over(
    tmp_path: Path, cli: Cli
) -> None:
    config = study_config(tmp_path, FEWER)
    command = _arguments(tmp_path, [FEWER])
    space = space_of(config).model_copy(update={"target": "any"})
    with create_or_resume(config, {**space.model_dump(mode="json"), "statistics": {}}):
        second = cli(*command)
        out, err = second.communicate(timeout=PATIENCE_SECONDS)
        assert (second.returncode, out) == (2, "")
        assert err.startswith(f"error: study 't' in {config.storage.url} is being run by another ")
        assert f"process {os.getpid()}," in err
        assert "--takeover" in err
        assert evaluations(config.storage.url) == []
        _finish(cli(*command, "--takeover"))
    assert_same(content(config), undisturbed(tmp_path, FEWER))


def test_a_search_rides_out_crashes_and_restarts_of_its_database(
    mortal_server: MortalServer, tmp_path: Path, cli: Cli
) -> None:
    url = mortal_server.url
    overrides = [*SLOW, f"storage.url='{url}'"]
    config = study_config(tmp_path, *overrides)
    process = cli(*_arguments(tmp_path, overrides))
    for n, end in ((3, mortal_server.crash), (7, mortal_server.stop)):
        _wait_for_evaluations(process, url, n)
        end()
        time.sleep(2.0)  # some evaluations long: the driver has something to write
        mortal_server.start()
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, (out, err)
    assert err.count("the database does not answer") == 2
    assert err.count("the database answers again") == 2
    assert_same(content(config), undisturbed(tmp_path, FEWER))


@pytest.mark.cluster
def test_a_driver_on_ray_that_is_killed_and_terminated_ends_with_the_same_study(
    tmp_path: Path, cli: Cli
) -> None:
    # random search proposes the same however its results overlap
    overrides = [*SLOW, "search.algorithm=random", "cluster.workers=2"]
    config = study_config(tmp_path, *overrides)
    command = [*_arguments(tmp_path, overrides), "--address", "local"]
    process = cli(*command)
    _wait_for_evaluations(process, config.storage.url, 4)
    process.kill()
    process.communicate()
    kept = evaluations(config.storage.url)
    process = cli(*command)
    _wait_for_evaluations(process, config.storage.url, len(kept) + 3)
    _assert_interrupted(process, signal.SIGTERM, config, command)
    launch(config, _ignore)  # not on Ray any more: the cluster is no part of a study
    found = content(config)
    assert set(kept) <= set(found["evaluations"])
    assert_same(found, undisturbed(tmp_path, "search.algorithm=random", FEWER))


@pytest.mark.cluster
def test_a_schedule_that_kills_its_workers_is_in_quarantine_with_the_reason(
    tmp_path: Path,
) -> None:
    """Measured among others and then alone: it costs two workers each time, and they nothing."""
    start_ray()
    expected = undisturbed(tmp_path, "search.algorithm=random", FEWER)
    poison = next(p for p in expected["proposals"] if not p[2].startswith("baseline"))[1]
    times = second_times(study_config(tmp_path / "undisturbed"))
    assert list(times.values()).count(times[poison]) == 1
    overrides = ["search.algorithm=random", FEWER, f"model.kill_at={times[poison]!r}"]
    config = study_config(tmp_path, *overrides, "cluster.address=local", "cluster.population=4")
    launch(config, _ignore)
    found = content(config)
    assert found["proposals"] == expected["proposals"]
    assert {row[1] for row in found["evaluations"] if row[4] == "failed"} == {poison}
    with open_study(config.storage.url, "t") as store:
        (error,) = {row["error"] for row in store.rows() if row["schedule_id"] == poison}
    assert error.startswith("WorkerDied: in quarantine: 2 worker processes died while they ran")


@pytest.mark.cluster
def test_a_worker_killed_in_an_evaluation_costs_that_evaluation_only(tmp_path: Path) -> None:
    start_ray()
    trap = tmp_path / "trap"
    overrides = [f"model.kill_once='{trap}'", "search.algorithm=random", FEWER]
    expected = undisturbed(tmp_path, *overrides)
    trap.touch()
    config = study_config(tmp_path, *overrides, "cluster.address=local")
    launch(config, _ignore)
    assert not trap.exists()
    assert_same(content(config), expected)


def _raylet_of(process: Forked) -> int:
    """The process of this name among the children of a driver."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    names = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
    return next(pid for pid, name in names.items() if name == "raylet")


@pytest.mark.cluster
def test_a_driver_whose_raylet_is_killed_says_so_in_seconds(tmp_path: Path, cli: Cli) -> None:
    overrides = [*SLOW, "search.algorithm=random", "cluster.workers=2"]
    config = study_config(tmp_path, *overrides)
    process = cli(*_arguments(tmp_path, overrides), "--address", "local")
    _wait_for_evaluations(process, config.storage.url, 2)
    os.kill(_raylet_of(process), signal.SIGKILL)
    began = time.monotonic()
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    assert process.returncode == 2, (out, err)
    assert "the raylet of the private Ray" in err and "was killed by signal 9" in err
    assert "run the same command to resume" in err
    with open_study(config.storage.url, "t") as store:
        assert store.state in {"failed", "interrupted"}
