"""Worker processes on a Ray cluster: one actor per worker slot, which holds the loaded model.

What Ray 2.60 does, measured, and what follows:

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
  still leaving the process is lost with it, and its task runs again). After two such deaths on
  nodes that live on (see ``deaths``) it is given up as "WorkerDied", so that a schedule that kills
  its worker cannot stop the search.
- A local worker's ``sys.path`` has the working directory, the script's and $PYTHONPATH, but not
  what the driver (pytest, a notebook) added to its own: that is sent along.
"""

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self

import ray
import ray.cloudpickle
import ray.exceptions

from s3search.cluster.deaths import Death, Deaths, Verdict
from s3search.cluster.pool import (
    TASKS_PER_WORKER,
    Outcome,
    Reply,
    Request,
    Task,
    check_submit,
)
from s3search.cluster.ray_cluster import (
    check_resources,
    check_sizes,
    connect,
    cores_of_process,
    first_sentence,
    living_nodes,
    lost_connection,
)
from s3search.cluster.ray_slots import Call, Slot, SlotState, Unloaded, is_restarting
from s3search.cluster.ray_worker import RayWorker
from s3search.cluster.versions import CodeVersion
from s3search.errors import Failure, WorkersUnavailable, failure_from_exception

_MAX_FAILED_STARTS = 3  # of one slot in a row
_PING_SECONDS = 0.25  # between two pings of an actor that does not answer
_LOOK_SECONDS = 1.0  # between two looks at the nodes while a task is under suspicion
_PATIENCE_SECONDS = 10.0  # of one wait for a call to end; then look around
_SILENCE_SECONDS = 300.0  # without any answering process, the pool gives up
_SETTLE_SECONDS = 10.0  # for the calls of a dead process to fail, after the first did
_CLOSE_SECONDS = 20.0


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
        check_sizes(n_workers, gpus_per_worker)
        self.n_workers = n_workers
        self._n_threads = threads_per_worker
        if threads_per_worker is None and address == "local":
            self._n_threads = max(1, cores_of_process() // n_workers)
        self._path = list(sys.path) if address == "local" else []
        self._version = CodeVersion.of_this_process()
        self._queue: deque[Task[Request]] = deque()
        self._finished: list[Outcome[Reply]] = []
        self._pending_ids: set[str] = set()
        self._deaths = Deaths()
        self._suspects: list[Call[Request]] = []  # until their deaths are understood
        self._look_at = 0.0
        self._slots: list[Slot[Request]] = []
        self._silent_seconds = 0.0
        self._is_closed = False
        self._factory: bytes = ray.cloudpickle.dumps(make_worker)  # type: ignore[no-untyped-call]  # Ray's
        n_cpus = 0 if gpus_per_worker else 1
        self._owns_connection = connect(address, n_workers)
        try:
            check_resources(n_workers, n_cpus, gpus_per_worker)
            self._actor_class: Any = ray.remote(RayWorker).options(
                num_cpus=n_cpus,
                num_gpus=gpus_per_worker,
                max_restarts=-1,
                max_task_retries=0,
            )
            self._slots = [Slot(actor=self._actor_class.remote()) for _ in range(n_workers)]
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
            self._judge_suspects()
            self._dispatch()
            remaining = deadline - time.monotonic()
            waited_from = time.monotonic()
            self._wait(max(0.0, min(remaining, self._seconds_to_next_look())))
            self._check_silence(time.monotonic() - waited_from)
            self._dispatch()  # before the driver thinks: the workers go on
            if remaining <= 0:
                break
        outcomes, self._finished = self._finished, []
        for outcome in outcomes:
            self._pending_ids.discard(outcome.task_id)
            self._deaths.forget(outcome.task_id)
        return outcomes

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.clear()
        self._suspects.clear()
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
            if slot.state is SlotState.WAKING and slot.start is None and slot.wake_at <= now:
                slot.start = slot.actor.ping.remote()

    def _check_silence(self, waited_seconds: float) -> None:
        """Raise when waiting has been in vain for long: the nodes are gone, and none comes."""
        if any(slot.state is not SlotState.WAKING for slot in self._slots):
            self._silent_seconds = 0.0
            return
        self._silent_seconds += waited_seconds
        if self._silent_seconds > _SILENCE_SECONDS:
            raise WorkersUnavailable(
                f"none of {self.n_workers} workers has answered for {_SILENCE_SECONDS:.0f} s; "
                "look at the cluster with `ray status`, then run the same command to resume"
            )

    def _seconds_to_next_look(self) -> float:
        asleep = [s for s in self._slots if s.state is SlotState.WAKING and s.start is None]
        looks = [self._look_at] if self._suspects else []
        moments = [*looks, *(s.wake_at for s in asleep)]
        return min((at - time.monotonic() for at in moments), default=_PATIENCE_SECONDS)

    def _dispatch(self) -> None:
        ready = [slot for slot in self._slots if slot.state is SlotState.READY]
        while self._queue and ready:
            slot = min(ready, key=lambda slot: len(slot.calls))
            if len(slot.calls) >= TASKS_PER_WORKER:
                break
            task = self._queue.popleft()
            ref = slot.actor.run.remote(task)
            slot.calls.append(Call(task=task, ref=ref, started=time.monotonic()))

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
            raise lost_connection(error) from error
        for ref in ended:
            slot = slot_of[ref]
            if ref == slot.start:
                self._settle_start(slot)
            elif any(ref == call.ref for call in slot.calls):  # not yet settled with its slot
                self._settle_calls(slot, ref)

    def _settle_start(self, slot: Slot[Request]) -> None:
        ref, slot.start = slot.start, None
        try:
            answer = ray.get(ref)
        except ray.exceptions.RayError as error:
            if slot.state is SlotState.LOADING or not is_restarting(error):
                self._count_failed_start(slot, error)
            self._restart(slot, error)
            return
        if slot.state is SlotState.WAKING:
            slot.worker, slot.node = answer
            slot.state = SlotState.LOADING
            slot.start = slot.actor.load.remote(
                self._factory, self._n_threads, self._path, self._version
            )
        elif answer is not None:
            raise answer
        else:
            slot.state = SlotState.READY
            slot.failed_starts.clear()

    def _settle_calls(self, slot: Slot[Request], ref: Any) -> None:
        """Settle one call; when it tells that the process died, settle all calls of the slot."""
        call = next(call for call in slot.calls if call.ref == ref)
        death = self._settle_call(slot, call)
        if death is None:
            slot.calls.remove(call)
            return
        calls, slot.calls = list(slot.calls), deque()
        ray.wait([c.ref for c in calls], num_returns=len(calls), timeout=_SETTLE_SECONDS)
        lost = [c for c in calls if c is call or self._settle_call(slot, c) is not None]
        if not isinstance(death, Unloaded):
            self._suspect(slot, lost.pop(0), death)
        self._queue.extendleft(c.task for c in reversed(lost))
        self._restart(slot, death)

    def _settle_call(self, slot: Slot[Request], call: Call[Request]) -> Exception | None:
        """Record the outcome of a call that has one; otherwise what befell its process."""
        try:
            outcome: Outcome[Reply] | None = ray.get(call.ref, timeout=0)
        except ray.exceptions.RayTaskError as error:  # e.g. a reply that cannot be pickled
            failure = failure_from_exception(error.cause or error)
            self._finish(call, failure, slot.worker, time.monotonic())
            return None
        except ray.exceptions.RayError as error:  # GetTimeoutError is one
            return error
        if outcome is None:
            return Unloaded("the process was restarted")
        self._finished.append(outcome)
        return None

    def _suspect(self, slot: Slot[Request], call: Call[Request], death: Exception) -> None:
        """Note the death under a task that was running; what becomes of it is judged apart."""
        cause, now = first_sentence(death), time.monotonic()
        self._deaths.add(
            call.task.id, Death(node=slot.node, worker=slot.worker, cause=cause, at=now)
        )
        self._suspects.append(call)
        self._look_at = now

    def _judge_suspects(self) -> None:
        """Run the tasks under which a worker died again, after the others; or give them up."""
        now = time.monotonic()
        if not self._suspects or now < self._look_at:
            return
        living = living_nodes()
        suspects, self._suspects = self._suspects, []
        for call in suspects:
            match self._deaths.verdict(call.task.id, living, now):
                case Verdict.RETRY:
                    self._queue.append(call.task)
                case Verdict.WAIT:
                    self._suspects.append(call)
                case Verdict.QUARANTINE:
                    message = self._deaths.reason(call.task.id)
                    failure = Failure(kind="WorkerDied", message=message, traceback="")
                    last = self._deaths.last(call.task.id)
                    self._finish(call, failure, last.worker, last.at)
        self._look_at = now + _LOOK_SECONDS

    def _finish(self, call: Call[Request], failure: Failure, worker: str, ended: float) -> None:
        self._finished.append(
            Outcome(
                task_id=call.task.id,
                reply=None,
                error=failure,
                worker=worker,
                seconds=ended - call.started,
            )
        )

    def _restart(self, slot: Slot[Request], death: Exception) -> None:
        if not is_restarting(death):
            slot.actor = self._actor_class.remote()  # Ray gave it up
        slot.state, slot.node = SlotState.WAKING, ""
        slot.wake_at = time.monotonic() + _PING_SECONDS

    def _count_failed_start(self, slot: Slot[Request], error: Exception) -> None:
        slot.failed_starts.append(slot.node)
        blameless = set(slot.failed_starts) - living_nodes() - {""}
        if sum(node not in blameless for node in slot.failed_starts) >= _MAX_FAILED_STARTS:
            raise WorkersUnavailable(
                f"{slot.worker} died {_MAX_FAILED_STARTS} times in a row while it started "
                f"({first_sentence(error)}); look for an out-of-memory kill (dmesg), and check "
                "that every node has the same s3search and the same RAY_AUTH_MODE"
            ) from error
