"""Worker processes on a Ray cluster: one actor per worker slot, which holds the loaded model.

What Ray 2.60 does, measured, and what follows (the only module that imports Ray):

- kill -9 of an actor's process fails its running call *and* the calls queued behind it with
  ActorUnavailableError, though only the first was executing. So Ray restarts the process
  (``max_restarts=-1``) but never repeats a call (``max_task_retries=0``, which would repeat one
  that had half run); the pool puts both tasks back in its own queue. A task has one live call at
  most, and a call given up is never looked at again: hence one outcome per task.
- Calls to a restarting actor fail at once, so a slot is pinged until it answers.
- The restarted process holds no model: a slot is WAKING (ping under way), then LOADING (factory
  under way), then READY. An idle worker that dies comes back unnoticed and unloaded; it answers
  None to the next task, and the slot starts again.
- Only the first unfinished task of a dead slot was running (or had just ended: a reply that is
  still leaving the process is lost with it, and its task runs again). After two such deaths it
  is given up as "WorkerDied", so that a schedule that kills its worker cannot stop the search.
- An actor that fits nowhere stays pending for ever without an exception: count before asking.
- A local worker's ``sys.path`` has the working directory, the script's and $PYTHONPATH, but not
  what the driver (pytest, a notebook) added to its own: that is sent along.
- ``ray.init`` on a dead address hangs for 30 s (client) or minutes (GCS): probe the port first.
- "auto" in Ray joins *any* Ray process of this machine, a private one of another user's program
  too, and caches what it found: resolve the address here.
- A driver that joined a cluster as "host:port" is *ended* by Ray (exit status 1, no exception)
  60 s after the head is gone; what must survive has to be in the database by then.
- Ray prints a worker's death on stdout, whatever ``log_to_driver`` says.
- A private Ray listens on every interface, whatever ``_node_ip_address`` says; its token
  authentication (on by default) is what protects it.
"""

import enum
import logging
import math
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self
from urllib.parse import urlsplit

import ray
import ray.cloudpickle
import ray.exceptions

from s3search.cluster.pool import (
    TASKS_PER_WORKER,
    Failure,
    Outcome,
    Reply,
    Request,
    Task,
    check_submit,
    failure_from_exception,
    run_task,
    stopping_error,
    worker_name,
)
from s3search.errors import InvalidConfig, S3SearchError, WorkersUnavailable

MAX_DEATHS = 2  # of workers under one task; then it is in quarantine
_MAX_FAILED_STARTS = 3  # of one slot in a row
_PING_SECONDS = 0.25  # between two pings of an actor that does not answer
_PATIENCE_SECONDS = 10.0  # of one wait for a call to end; then look around
_SILENCE_SECONDS = 300.0  # without any answering process, the pool gives up
_SETTLE_SECONDS = 10.0  # for the calls of a dead process to fail, after the first did
_PROBE_SECONDS = 5.0
_RESOURCES_SECONDS = 10.0  # for nodes to join and for a closed pool's actors to go
_CLOSE_SECONDS = 20.0
_OBJECT_STORE_BYTES = 256 * 2**20


class _Worker:
    """What lives in the worker process."""

    def __init__(self) -> None:
        self._work: Callable[[Any], Any] | None = None

    def ping(self) -> str:
        return worker_name()

    def load(self, factory: bytes, n_threads: int | None, path: list[str]) -> S3SearchError | None:
        """Make the worker; the error that stops the run, or None.

        Apart from ``__init__``, so that an error keeps its type and a death here is told from a
        death while Ray starts the process; as bytes, so that an import error is reported too.
        ``path`` is the driver's ``sys.path``, where the factory's module was found.
        """
        sys.path.extend(entry for entry in path if entry not in sys.path)
        try:
            if n_threads is not None:
                import torch  # noqa: PLC0415  the driver's side of this module needs no torch

                torch.set_num_threads(n_threads)
            self._work = ray.cloudpickle.loads(factory)()
        except Exception as error:  # the border where a plug-in's exception gets its name
            return stopping_error(error)
        return None

    def run(self, task: Task[Any]) -> Outcome[Any] | None:
        """The outcome; None from a process that was restarted and has not loaded its model."""
        return None if self._work is None else run_task(self._work, task, worker_name())


class _State(enum.Enum):
    WAKING = enum.auto()
    LOADING = enum.auto()
    READY = enum.auto()


@dataclass(slots=True, kw_only=True, eq=False)
class _Call(Generic[Request]):
    task: Task[Request]
    ref: Any
    started: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot(Generic[Request]):
    """One actor, and what the driver knows of it. ``start`` is the ping or load under way."""

    actor: Any
    state: _State = _State.WAKING
    start: Any = None
    wake_at: float = 0.0
    n_failed_starts: int = 0
    worker: str = "a worker"
    calls: deque[_Call[Request]] = field(default_factory=deque)


class RayPool(Generic[Request, Reply]):
    """``n_workers`` processes on a Ray cluster; see ``WorkerPool`` for the contract.

    ``address``: "local" starts a private Ray (or uses the one this process has), "auto" joins the
    cluster of this machine or $RAY_ADDRESS, "ray://host:port" is the Ray client, "host:port" a
    cluster. ``threads_per_worker`` is torch's; by default a local Ray shares the cores out.
    """

    def __init__(
        self,
        make_worker: Callable[[], Callable[[Request], Reply]],
        *,
        address: str,
        n_workers: int,
        gpus_per_worker: float,
        threads_per_worker: int | None = None,
    ) -> None:
        _check_sizes(n_workers, gpus_per_worker)
        self.n_workers = n_workers
        self._n_threads = threads_per_worker
        if threads_per_worker is None and address == "local":
            self._n_threads = max(1, _n_cpus() // n_workers)
        self._path = list(sys.path) if address == "local" else []
        self._queue: deque[Task[Request]] = deque()
        self._finished: list[Outcome[Reply]] = []
        self._pending_ids: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._slots: list[_Slot[Request]] = []
        self._silent_seconds = 0.0
        self._is_closed = False
        self._factory: bytes = ray.cloudpickle.dumps(make_worker)  # type: ignore[no-untyped-call]  # Ray's
        n_cpus = 0 if gpus_per_worker else 1
        self._owns_connection = _connect(address, n_workers)
        try:
            _check_resources(n_workers, n_cpus, gpus_per_worker)
            self._actor_class: Any = ray.remote(_Worker).options(
                num_cpus=n_cpus,
                num_gpus=gpus_per_worker,
                max_restarts=-1,
                max_task_retries=0,
            )
            self._slots = [_Slot(actor=self._actor_class.remote()) for _ in range(n_workers)]
        except BaseException:
            self.close()
            raise

    @property
    def n_pending(self) -> int:
        return len(self._pending_ids)

    @property
    def has_room(self) -> bool:
        return not self._is_closed and self.n_pending < TASKS_PER_WORKER * self.n_workers

    def submit(self, task: Task[Request]) -> None:
        check_submit(self, task, self._pending_ids)
        self._pending_ids.add(task.id)
        self._queue.append(task)
        self._dispatch()

    def collect(self, timeout: float | None = None) -> list[Outcome[Reply]]:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._pending_ids and not self._finished:
            self._wake_slots()
            self._dispatch()
            remaining = deadline - time.monotonic()
            waited_from = time.monotonic()
            self._wait(max(0.0, min(remaining, self._seconds_to_next_wake())))
            self._check_silence(time.monotonic() - waited_from)
            self._dispatch()  # before the driver thinks: the workers go on
            if remaining <= 0:
                break
        outcomes, self._finished = self._finished, []
        for outcome in outcomes:
            self._pending_ids.discard(outcome.task_id)
            self._deaths.pop(outcome.task_id, None)
        return outcomes

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.clear()
        self._pending_ids.clear()
        # A thread, because a cluster that is gone would keep Ray's calls waiting for it.
        release = threading.Thread(target=self._release, name="s3search-release-ray", daemon=True)
        release.start()
        release.join(_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _release(self) -> None:
        try:
            for slot in self._slots:
                ray.kill(slot.actor, no_restart=True)
        except (ray.exceptions.RayError, ConnectionError, RuntimeError):
            pass  # the cluster is gone, and the actors with it
        finally:
            if self._owns_connection:
                ray.shutdown()  # stops a private Ray; only leaves a cluster

    # The loop: waking slots, sending tasks, settling what has finished.

    def _wake_slots(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.state is _State.WAKING and slot.start is None and slot.wake_at <= now:
                slot.start = slot.actor.ping.remote()

    def _check_silence(self, waited_seconds: float) -> None:
        """Raise when waiting has been in vain for long: the nodes are gone, and none comes."""
        if any(slot.state is not _State.WAKING for slot in self._slots):
            self._silent_seconds = 0.0
            return
        self._silent_seconds += waited_seconds
        if self._silent_seconds > _SILENCE_SECONDS:
            raise WorkersUnavailable(
                f"none of {self.n_workers} workers has answered for {_SILENCE_SECONDS:.0f} s; "
                "look at the cluster with `ray status`, then run the same command to resume"
            )

    def _seconds_to_next_wake(self) -> float:
        asleep = [s for s in self._slots if s.state is _State.WAKING and s.start is None]
        return min((s.wake_at - time.monotonic() for s in asleep), default=_PATIENCE_SECONDS)

    def _dispatch(self) -> None:
        ready = [slot for slot in self._slots if slot.state is _State.READY]
        while self._queue and ready:
            slot = min(ready, key=lambda slot: len(slot.calls))
            if len(slot.calls) >= TASKS_PER_WORKER:
                break
            task = self._queue.popleft()
            ref = slot.actor.run.remote(task)
            slot.calls.append(_Call(task=task, ref=ref, started=time.monotonic()))

    def _wait(self, seconds: float) -> None:
        """Sleep until a call ends, then settle every call that has ended."""
        slot_of = {call.ref: slot for slot in self._slots for call in slot.calls}
        slot_of |= {slot.start: slot for slot in self._slots if slot.start is not None}
        if not slot_of:
            time.sleep(seconds)
            return
        refs = list(slot_of)
        try:
            ended, _ = ray.wait(refs, num_returns=1, timeout=seconds)
            if ended:
                ended, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        except ConnectionError as error:
            raise WorkersUnavailable(
                f"the connection to the Ray cluster was lost ({error}); when the cluster is back, "
                "run the same command to resume"
            ) from error
        for ref in ended:
            slot = slot_of[ref]
            if ref == slot.start:
                self._settle_start(slot)
            elif any(ref == call.ref for call in slot.calls):  # not yet settled with its slot
                self._settle_calls(slot, ref)

    def _settle_start(self, slot: _Slot[Request]) -> None:
        ref, slot.start = slot.start, None
        try:
            answer = ray.get(ref)
        except ray.exceptions.RayError as error:
            if slot.state is _State.LOADING or not _is_restarting(error):
                self._count_failed_start(slot, error)
            self._restart(slot, error)
            return
        if slot.state is _State.WAKING:
            slot.worker = answer
            slot.state = _State.LOADING
            slot.start = slot.actor.load.remote(self._factory, self._n_threads, self._path)
        elif answer is not None:
            raise answer
        else:
            slot.state = _State.READY
            slot.n_failed_starts = 0

    def _settle_calls(self, slot: _Slot[Request], ref: Any) -> None:
        """Settle one call; when it tells that the process died, settle all calls of the slot."""
        call = next(call for call in slot.calls if call.ref == ref)
        death = self._settle_call(slot, call)
        if death is None:
            slot.calls.remove(call)
            return
        calls, slot.calls = list(slot.calls), deque()
        ray.wait([c.ref for c in calls], num_returns=len(calls), timeout=_SETTLE_SECONDS)
        lost = [c for c in calls if c is call or self._settle_call(slot, c) is not None]
        if not isinstance(death, _Unloaded):
            self._suspect(slot, lost.pop(0), death)
        self._queue.extendleft(c.task for c in reversed(lost))
        self._restart(slot, death)

    def _settle_call(self, slot: _Slot[Request], call: _Call[Request]) -> Exception | None:
        """Record the outcome of a call that has one; otherwise what befell its process."""
        try:
            outcome: Outcome[Reply] | None = ray.get(call.ref, timeout=0)
        except ray.exceptions.RayTaskError as error:  # e.g. a reply that cannot be pickled
            failure = failure_from_exception(error.cause or error)
            self._finish(slot, call, failure)
            return None
        except ray.exceptions.RayError as error:  # GetTimeoutError is one
            return error
        if outcome is None:
            return _Unloaded("the process was restarted")
        self._finished.append(outcome)
        return None

    def _suspect(self, slot: _Slot[Request], call: _Call[Request], death: Exception) -> None:
        """Run the task that was running at a death again, after the others; or give it up."""
        self._deaths[call.task.id] += 1
        if self._deaths[call.task.id] < MAX_DEATHS:
            self._queue.append(call.task)
            return
        message = (
            f"in quarantine: {MAX_DEATHS} worker processes died while they ran this task, the "
            f"last was {slot.worker} ({_first_sentence(death)}); look for an out-of-memory kill "
            "(dmesg) or a crash in native code"
        )
        self._finish(slot, call, Failure(kind="WorkerDied", message=message, traceback=""))

    def _finish(self, slot: _Slot[Request], call: _Call[Request], failure: Failure) -> None:
        self._finished.append(
            Outcome(
                task_id=call.task.id,
                reply=None,
                error=failure,
                worker=slot.worker,
                seconds=time.monotonic() - call.started,
            )
        )

    def _restart(self, slot: _Slot[Request], death: Exception) -> None:
        if not _is_restarting(death):
            slot.actor = self._actor_class.remote()  # Ray gave it up
        slot.state = _State.WAKING
        slot.wake_at = time.monotonic() + _PING_SECONDS

    def _count_failed_start(self, slot: _Slot[Request], error: Exception) -> None:
        slot.n_failed_starts += 1
        if slot.n_failed_starts >= _MAX_FAILED_STARTS:
            raise WorkersUnavailable(
                f"{slot.worker} died {_MAX_FAILED_STARTS} times in a row while it started "
                f"({_first_sentence(error)}); look for an out-of-memory kill (dmesg), and check "
                "that every node has the same s3search and the same RAY_AUTH_MODE"
            ) from error


class _Unloaded(Exception):
    """Never raised: a process was restarted between two tasks and holds no model."""


def _is_restarting(error: Exception) -> bool:
    """Whether Ray brings the actor back by itself (or we only lost sight of it)."""
    return isinstance(error, ray.exceptions.ActorUnavailableError | ray.exceptions.GetTimeoutError)


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()[:300]


# Reaching a cluster, and counting what it has.


def _check_sizes(n_workers: int, gpus_per_worker: float) -> None:
    if n_workers < 1:
        raise InvalidConfig(f"{n_workers=}: a pool needs at least one worker")
    if gpus_per_worker < 0 or (gpus_per_worker > 1 and gpus_per_worker != int(gpus_per_worker)):
        raise InvalidConfig(f"{gpus_per_worker=}: use 0, a share of one GPU, or a whole number")


def _n_cpus() -> int:
    """Cores this process may use; a container or SLURM job often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _connect(address: str, n_workers: int) -> bool:
    """Connect this process to Ray; whether it was not yet, so that it is ours to disconnect."""
    if address in ("local", "auto") and ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # for the user to switch on, not us
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {
            "include_dashboard": False,
            "num_cpus": max(n_workers, _n_cpus()),
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    else:
        address = _running_cluster() if address == "auto" else address
        _probe(address)
    try:
        ray.init(address=address, **options)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise WorkersUnavailable(
            f"{address=}: Ray could not be {'started' if address == 'local' else 'joined'} "
            f"({type(error).__name__}: {_first_sentence(error)}); a cluster needs the same Ray "
            "and Python versions, and the same RAY_AUTH_TOKEN"
        ) from error
    ray._private.worker._worker_logs_enabled = False  # a death would be told on our stdout
    return True


def _running_cluster() -> str:
    """The address that "auto" stands for: $RAY_ADDRESS, else what ``ray start`` left here."""
    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    written = Path(temporary, "ray", "ray_current_cluster")
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "auto", "local"):
        address = written.read_text().strip() if written.exists() else ""
    if not address:
        raise WorkersUnavailable(
            "address='auto': no Ray cluster runs on this machine ($RAY_ADDRESS is not set and "
            f"`ray start` left no {written}); run `ray start --head`, give 'host:6379' or "
            "'ray://host:10001', or use 'local'"
        )
    return address


def _probe(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=_PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        port_hint = "10001 is the usual client port" if parts.scheme else "6379 is the usual port"
        raise WorkersUnavailable(
            f"{address=}: no Ray cluster answers there ({error}); check that its head runs and "
            f"that this machine reaches it ({port_hint}), or use 'local'"
        ) from error


def _check_resources(n_workers: int, n_cpus: int, n_gpus: float) -> None:
    """Raise unless the workers fit now: Ray would let an actor that does not wait for ever."""
    deadline = time.monotonic() + _RESOURCES_SECONDS
    while True:
        known = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
        nodes = [node["Resources"] for node in known if node["Alive"]]
        room = sum(_room(node, n_cpus, n_gpus) for node in nodes)
        unit, each = ("GPU", n_gpus) if n_gpus else ("CPU", n_cpus)
        idle = ray.available_resources()  # type: ignore[no-untyped-call]  # Ray's
        free = idle.get(unit, 0.0)
        if room >= n_workers and free >= n_workers * each - 1e-6:
            return
        if time.monotonic() > deadline or (room < n_workers and len(nodes) == 1):
            break
        time.sleep(0.25)
    total = sum(node.get(unit, 0.0) for node in nodes)
    raise WorkersUnavailable(
        f"asked for {n_workers} workers with {each:g} {unit} each; the Ray cluster has {total:g} "
        f"{unit}s on {len(nodes)} nodes, {free:g} of them free, with room for {room} such workers "
        "in all; ask for fewer workers, set gpus_per_worker (0 runs on CPUs, 0.5 shares a GPU), "
        "or start more nodes"
    )


def _room(node: dict[str, float], n_cpus: int, n_gpus: float) -> int:
    """Workers that fit on an idle node; a share of a GPU is never cut from two GPUs."""
    if not n_gpus:
        return int(node.get("CPU", 0.0) // n_cpus)
    gpus = node.get("GPU", 0.0)
    return int(gpus // n_gpus) if n_gpus >= 1 else int(gpus) * int(1 / n_gpus + 1e-6)
