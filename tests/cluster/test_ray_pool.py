"""What only a real Ray can show: processes that die, clusters that are not there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import s3search
from s3search.cluster import Task, open_pool
from s3search.errors import InvalidConfig, WorkersUnavailable
from tests.suites.pool_suite import AnyPool, make_squarer, run_all, start_ray, tasks_of

pytestmark = pytest.mark.cluster

ROOT = Path(s3search.__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _running_ray() -> None:
    start_ray()


@pytest.fixture(scope="module")
def diary_of_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diary") / "starts"


@pytest.fixture
def diary(diary_of_module: Path) -> Path:
    diary_of_module.unlink(missing_ok=True)
    return diary_of_module


@pytest.fixture(scope="module")
def pool(diary_of_module: Path) -> Iterator[AnyPool]:
    with open_pool("local", partial(make_diarist, diary_of_module), 2, 0) as opened:
        yield opened


def make_diarist(diary: Path) -> Callable[[Any], Any]:
    """A worker that notes which task it starts, then does what the task says."""

    def work(request: tuple[str, str]) -> Any:
        name, what = request
        with diary.open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
        if what in ("die", "stop"):
            time.sleep(0.1)  # the reply of the task before it leaves the process first
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "generator":
            return (i for i in range(3))
        if what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        while what == "spin":  # never gives the interpreter's lock away
            re.match("(a*)*b", "a" * 40)
        while what == "wait":  # until the test lets it go
            what = "0" if go_file(diary).exists() else "wait"
            time.sleep(0.02)
        if what == "hang once":
            what = "600" if len(starts(diary)) == 1 else "0"
        time.sleep(float(what))
        return name

    return work


def die_while_loading() -> Callable[[Any], Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def go_file(diary: Path) -> Path:
    """What ends the wait of tasks that do."""
    return diary.with_name("go")


def starts(diary: Path) -> list[tuple[str, int]]:
    """(task, pid) of every start so far."""
    lines = diary.read_text().splitlines() if diary.exists() else []
    return [(name, int(pid)) for name, pid in (line.split() for line in lines)]


def all_here(pool: AnyPool, diary: Path) -> None:
    """Waits until the pool has both its workers."""
    for i in range(1000):
        if pool.n_workers == 2:
            break
        run_all(pool, [Task(id=f"first-{i}", request=(f"first-{i}", "0.05"))])
    diary.unlink(missing_ok=True)


def diary_tasks(**seconds: str) -> list[Task[tuple[str, str]]]:
    return [Task(id=name, request=(name, what)) for name, what in seconds.items()]


def test_tasks_of_a_killed_worker_run_again_and_have_one_outcome_each(
    pool: AnyPool, diary: Path
) -> None:
    all_here(pool, diary)
    tasks = diary_tasks(a="wait", b="wait", c="0.1", d="0.1", e="0.1")
    for task in tasks[:4]:
        pool.submit(task)
    outcomes = []
    while len(starts(diary)) < 2:  # a and b run, c and d wait behind them
        outcomes += pool.collect(timeout=0.1)
    assert outcomes == []
    killed, pid = starts(diary)[0]
    os.kill(pid, signal.SIGKILL)
    go_file(diary).touch()
    results = {o.task_id: o for o in run_all_pending(pool)} | run_all(pool, tasks[4:])
    assert {name: o.reply for name, o in results.items()} == {t.id: t.id for t in tasks}
    n_starts = Counter(name for name, _ in starts(diary))
    assert n_starts.pop(killed) == 2
    assert set(n_starts.values()) == {1}


def run_all_pending(pool: AnyPool) -> list[Any]:
    outcomes = []
    while pool.n_pending:
        outcomes += pool.collect()
    assert len({o.task_id for o in outcomes}) == len(outcomes)
    return outcomes


def test_a_task_that_kills_two_workers_is_in_quarantine_and_the_others_finish(
    pool: AnyPool, diary: Path
) -> None:
    outcomes = run_all(pool, diary_tasks(a="0", poison="die", b="0", c="0.2", d="0", e="0"))
    error = outcomes.pop("poison").error
    assert error is not None
    assert error.kind == "WorkerDied"
    assert "in quarantine: 2 worker processes died while they ran this task" in error.message
    assert {name: o.reply for name, o in outcomes.items()} == {n: n for n in "abcde"}
    assert Counter(name for name, _ in starts(diary))["poison"] == 2


def test_a_worker_killed_between_tasks_loads_its_model_again(pool: AnyPool, diary: Path) -> None:
    all_here(pool, diary)
    first = run_all(pool, diary_tasks(a="0.3", b="0.3"))
    pids = {int(o.worker.split("/")[1]) for o in first.values()}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(2.0)  # Ray notices and starts the processes again
    then = run_all(pool, diary_tasks(c="0", d="0"))
    assert {o.reply for o in then.values()} == {"c", "d"}
    assert not pids & {int(o.worker.split("/")[1]) for o in then.values()}


@pytest.mark.usefixtures("diary")
def test_a_reply_that_cannot_be_pickled_fails_its_task_only(pool: AnyPool) -> None:
    outcomes = run_all(pool, diary_tasks(bad="generator", good="0"))
    error = outcomes["bad"].error
    assert error is not None
    assert (error.kind, outcomes["good"].reply) == ("TypeError", "good")


def test_a_worker_that_dies_while_loading_stops_the_run() -> None:
    with open_pool("local", die_while_loading, 1, 0) as pool:
        pool.submit(Task(id="never", request=1))
        with pytest.raises(WorkersUnavailable, match="died 3 times in a row while it started"):
            pool.collect()


def test_gpus_that_the_cluster_has_not_are_refused_before_any_actor_waits_for_them() -> None:
    with pytest.raises(WorkersUnavailable, match=r"2 workers with 1 GPU each.* has 1 GPUs"):
        open_pool("local", make_squarer, 2, 1.0)


@pytest.mark.parametrize(("n_workers", "gpus_per_worker"), [(0, 0.0), (1, -1.0), (1, 1.5)])
def test_sizes_that_mean_nothing_are_refused(n_workers: int, gpus_per_worker: float) -> None:
    with pytest.raises(InvalidConfig, match=r"n_workers=0|gpus_per_worker=-?1"):
        open_pool("local", make_squarer, n_workers, gpus_per_worker)


@pytest.mark.parametrize("least", [-1, 3])
def test_a_search_waits_for_none_up_to_all_of_its_workers(least: int) -> None:
    with pytest.raises(InvalidConfig, match=f"min_workers={least} with n_workers=2"):
        open_pool("local", make_squarer, 2, 0, min_workers=least)


def test_a_pool_opens_with_the_workers_that_fit_and_leaves_the_others_pending() -> None:
    with open_pool("local", make_squarer, 3, 1.0, min_workers=1) as pool:
        assert len(run_all(pool, tasks_of([1, 2, 3]))) == 3
        assert pool.n_workers == 1
        pool.submit(Task(id="a", request=1))
        pool.submit(Task(id="b", request=1))
        assert not pool.has_room  # those who wait for a GPU make none


@pytest.mark.parametrize("how", ["stop", "spin"])
def test_a_task_that_hangs_costs_two_workers_and_has_one_outcome(tmp_path: Path, how: str) -> None:
    diary = tmp_path / "diary"
    make = partial(make_diarist, diary)
    with open_pool("local", make, 1, 0, task_seconds=2.0) as pool:
        outcomes = run_all(pool, diary_tasks(a="0", hangs=how, b="1.2", c="1.2"))
    error = outcomes["hangs"].error
    assert error is not None
    assert error.kind == "TaskTimedOut"
    assert "more than cluster.task_seconds=2 on" in error.message
    assert outcomes["hangs"].seconds > 4.0  # both times
    assert {name: outcomes[name].reply for name in "abc"} == {name: name for name in "abc"}
    begun = starts(diary)
    assert Counter(name for name, _ in begun) == {"a": 1, "hangs": 2, "b": 1, "c": 1}
    pids = {pid for name, pid in begun if name == "hangs"}
    assert len(pids) == 2
    deadline = time.monotonic() + 60.0  # Ray asks first, and then kills
    while any(Path("/proc", str(pid), "exe").exists() for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.1)


def test_a_worker_that_hung_once_is_replaced_and_its_task_measured(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with open_pool("local", partial(make_diarist, diary), 1, 0, task_seconds=2.0) as pool:
        (outcome,) = run_all(pool, diary_tasks(a="hang once")).values()
    assert outcome.reply == "a"
    assert len(starts(diary)) == 2


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379"]
)
def test_a_cluster_that_does_not_answer_is_told_at_once(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(WorkersUnavailable, match="no Ray cluster answers there"):
        open_pool(address, make_squarer, 1, 0)
    assert time.monotonic() - started < 30


def run_python(code: str, **environment: str) -> subprocess.Popen[str]:
    """A fresh process in "/", with s3search on its path only by PYTHONPATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHON"))}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd="/",
        env=kept | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a Ctrl-C reaches it, its Ray, and not pytest
    )


def test_auto_without_a_cluster_is_one_sentence_although_another_program_runs_a_ray(
    tmp_path: Path,
) -> None:
    code = """
from s3search.cluster import open_pool
from s3search.errors import WorkersUnavailable
try:
    open_pool("auto", int, 1, 0)
except WorkersUnavailable as error:
    print(error)
"""
    out, err = run_python(code, RAY_TMPDIR=str(tmp_path)).communicate(timeout=60)
    assert "no Ray cluster runs on this machine" in out
    assert err == ""


PRIVATE_RAY = """
import json, os, pathlib, signal, time
import s3search
from s3search.cluster import Task, open_pool

def make():
    def work(what):
        marker = pathlib.Path(os.environ["S3SEARCH_TEST_MARKER"])
        if what == "die once" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600 if what == "long" else 0)
        return os.getcwd(), s3search.__file__
    return work

def main():
    with open_pool("local", make, 1, 0) as pool:
        pool.submit(Task(id="killed", request="die once"))
        pool.submit(Task(id="behind", request="nothing"))
        outcomes = []
        while pool.n_pending:
            outcomes += pool.collect()
        import ray
        told = {o.task_id: o.reply or o.error.kind for o in outcomes}
        print(json.dumps([told, ray.nodes()[0]["RayletSocketName"]]), flush=True)
        pool.submit(Task(id="long", request="long"))
        pool.collect()

main()
"""


def test_a_private_ray_finds_s3search_prints_nothing_and_is_gone_after_ctrl_c(
    tmp_path: Path,
) -> None:
    process = run_python(PRIVATE_RAY, S3SEARCH_TEST_MARKER=str(tmp_path / "died"))
    assert process.stdout is not None
    told, raylet_socket = json.loads(process.stdout.readline())
    found = ["/", s3search.__file__]
    assert told == {"killed": found, "behind": found}
    assert raylet_socket in all_command_lines()
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert raylet_socket not in all_command_lines()


def all_command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text().replace("\0", " "))
        except OSError:  # the process has ended meanwhile
            continue
    return "\n".join(lines)
