"""What every worker pool must do; a new pool is done when it passes.

A test module collects the suite by deriving a class from ``PoolSuite`` and giving it a fixture
``open_pool(make_worker) -> WorkerPool`` that closes what it opened.
"""

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from s3search.cluster import Outcome, Task, WorkerPool
from s3search.errors import EvaluationFailed, InvalidConfig, WorkersUnavailable

AnyPool = WorkerPool[Any, Any]
OpenPool = Callable[[Callable[[], Callable[[Any], Any]]], AnyPool]

A_LONG_TIME = 60.0  # for a pool that has to start a process first


def start_ray() -> None:
    """One Ray for the whole test session: RayPool("local") uses it, Ray's exit hook stops it."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray  # noqa: PLC0415  a second, which the in-process tests do not need

    if not ray.is_initialized():
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=4,
            num_gpus=1,  # a number to schedule by, no device
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config={"kill_worker_timeout_milliseconds": 500},  # not 5 s, before signal 9
        )


class PluginError(InvalidConfig):
    """A subclass of ours that a plug-in brings; its constructor cannot be unpickled."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")


def square_or_fail(request: Any) -> Any:
    match request:
        case "fail":
            raise EvaluationFailed("64 images hold NaN; lower the order of step 0")
        case "crash":
            raise KeyError("missing")
        case "pid":
            return os.getpid()
        case "sleep":
            time.sleep(1.0)
            return "slept"
    return request * request


def make_squarer() -> Callable[[Any], Any]:
    return square_or_fail


def make_counter() -> Callable[[Any], Any]:
    """A worker that tells how often it was called: it is made once and kept."""
    calls: list[Any] = []

    def count(request: Any) -> int:
        calls.append(request)
        return len(calls)

    return count


def fail_to_make(kind: str) -> Callable[[Any], Any]:
    if kind == "config":
        raise InvalidConfig("[model] loader='digitz': did you mean 'digits'?")
    if kind == "plugin":
        raise PluginError("[model] path", "no such file")
    raise FileNotFoundError("weights.safetensors")


def run_all(pool: AnyPool, tasks: list[Task[Any]]) -> dict[str, Outcome[Any]]:
    """Feed the pool as the driver does; the outcomes by task, of which there is one each."""
    waiting, outcomes = list(tasks), {}
    give_up = time.monotonic() + A_LONG_TIME
    while waiting or pool.n_pending:
        while waiting and pool.has_room:
            pool.submit(waiting.pop(0))
        for outcome in pool.collect(timeout=A_LONG_TIME):
            assert outcome.task_id not in outcomes
            outcomes[outcome.task_id] = outcome
        assert time.monotonic() < give_up, f"pending after {A_LONG_TIME} s: {pool.n_pending}"
    return outcomes


def collect_some(pool: AnyPool) -> list[Outcome[Any]]:
    """The next outcomes; workers may join while they are waited for."""
    outcomes: list[Outcome[Any]] = []
    while not outcomes:
        outcomes = pool.collect()
    return outcomes


def tasks_of(requests: list[Any]) -> list[Task[Any]]:
    return [Task(id=f"task-{i}", request=request) for i, request in enumerate(requests)]


class PoolSuite:
    def test_every_task_has_one_outcome_with_its_own_reply(self, open_pool: OpenPool) -> None:
        outcomes = run_all(open_pool(make_squarer), tasks_of(list(range(20))))
        assert {key: o.reply for key, o in outcomes.items()} == {
            f"task-{i}": i * i for i in range(20)
        }
        assert all(o.error is None and o.seconds >= 0 for o in outcomes.values())

    def test_an_outcome_names_the_host_and_process_of_its_worker(
        self, open_pool: OpenPool
    ) -> None:
        (outcome,) = run_all(open_pool(make_squarer), tasks_of(["pid"])).values()
        host, pid = outcome.worker.split("/")
        assert host
        assert int(pid) == outcome.reply

    def test_a_failing_task_is_an_outcome_and_the_others_go_on(self, open_pool: OpenPool) -> None:
        outcomes = run_all(open_pool(make_squarer), tasks_of([2, "fail", "crash", 3]))
        assert (outcomes["task-0"].reply, outcomes["task-3"].reply) == (4, 9)
        failed, crashed = outcomes["task-1"].error, outcomes["task-2"].error
        assert failed is not None
        assert crashed is not None
        assert failed.kind == "EvaluationFailed"
        assert failed.message == "64 images hold NaN; lower the order of step 0"
        assert (crashed.kind, crashed.message) == ("KeyError", "'missing'")
        assert "square_or_fail" in crashed.traceback
        assert outcomes["task-1"].reply is None

    def test_a_worker_is_made_once_and_kept(self, open_pool: OpenPool) -> None:
        pool = open_pool(make_counter)
        n_tasks = 6
        by_worker: dict[str, list[Any]] = {}
        for outcome in run_all(pool, tasks_of(list(range(n_tasks)))).values():
            by_worker.setdefault(outcome.worker, []).append(outcome.reply)
        assert len(by_worker) <= pool.n_workers
        for counts in by_worker.values():
            assert sorted(counts) == list(range(1, len(counts) + 1))

    def test_room_is_two_tasks_per_worker_and_comes_back_when_collected(
        self, open_pool: OpenPool
    ) -> None:
        pool = open_pool(make_squarer)
        n_room = 2 * max(1, pool.n_workers)  # none may be there yet
        for task in tasks_of(list(range(n_room))):
            assert pool.has_room
            pool.submit(task)
        assert not pool.has_room
        assert pool.n_pending == n_room
        with pytest.raises(RuntimeError, match="has_room"):
            pool.submit(Task(id="one too many", request=1))
        finished = collect_some(pool)
        assert pool.has_room
        assert pool.n_pending == n_room - len(finished)

    def test_a_task_id_that_is_pending_is_refused(self, open_pool: OpenPool) -> None:
        pool = open_pool(make_squarer)
        pool.submit(Task(id="twice", request=1))
        with pytest.raises(ValueError, match="twice"):
            pool.submit(Task(id="twice", request=2))

    def test_collecting_from_an_idle_pool_returns_nothing_at_once(
        self, open_pool: OpenPool
    ) -> None:
        assert open_pool(make_squarer).collect() == []

    def test_a_factory_error_of_our_family_keeps_its_type_and_message(
        self, open_pool: OpenPool
    ) -> None:
        pool = open_pool(partial(fail_to_make, "config"))
        pool.submit(Task(id="never", request=1))
        with pytest.raises(InvalidConfig, match="did you mean 'digits'"):
            pool.collect(timeout=A_LONG_TIME)

    def test_a_plugins_subclass_of_our_error_arrives_as_ours(self, open_pool: OpenPool) -> None:
        pool = open_pool(partial(fail_to_make, "plugin"))
        pool.submit(Task(id="never", request=1))
        with pytest.raises(InvalidConfig, match=r"\[model\] path: no such file"):
            pool.collect(timeout=A_LONG_TIME)

    def test_any_other_factory_error_is_named_and_brings_its_traceback(
        self, open_pool: OpenPool
    ) -> None:
        pool = open_pool(partial(fail_to_make, "other"))
        pool.submit(Task(id="never", request=1))
        with pytest.raises(WorkersUnavailable, match="FileNotFoundError: weights") as caught:
            pool.collect(timeout=A_LONG_TIME)
        assert "fail_to_make" in caught.value.__notes__[0]

    def test_a_closed_pool_takes_and_gives_nothing(self, open_pool: OpenPool) -> None:
        pool = open_pool(make_counter)
        pool.submit(Task(id="dropped", request=1))
        with pool:
            pass
        pool.close()
        assert not pool.has_room
        assert pool.collect(timeout=A_LONG_TIME) == []
        with pytest.raises(RuntimeError, match="closed"):
            pool.submit(Task(id="late", request=1))
