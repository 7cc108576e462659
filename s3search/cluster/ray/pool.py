"""Worker processes on a Ray cluster: one actor per worker slot, which holds the loaded model.

What Ray 2.60 does, measured, and what follows:

- kill -9 of an actor's process fails its running call *and* the calls queued behind it with
  ActorUnavailableError, though only the first was executing. So Ray restarts the process
  (``max_restarts=-1``) but never repeats a call (``max_task_retries=0``, which would repeat one
  that had half run); the pool puts both tasks back in its own queue. A task has one live call at
  most, and a call given up is never looked at again: hence one outcome per task.
- Only the first unfinished task of a dead slot was running (or had just ended: a reply that is
  still leaving the process is lost with it, and its task runs again). After two such deaths on
  nodes that live on (see ``deaths``) it is given up as "WorkerDied", so that a schedule that kills
  its worker cannot stop the search; and as "TaskTimedOut" after it ran too long twice (see
  ``timeouts``), so that one that hangs cannot either.

The address "local" starts a private Ray (or uses the one this process has), "auto" joins the
cluster of this machine or $RAY_ADDRESS, "ray://host:port" is the Ray client, "host:port" a
cluster.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic

import ray
import ray.exceptions

from s3search.cluster.pool import (
    TASKS_PER_WORKER,
    ClosesItself,
    Outcome,
    Reply,
    Request,
    Task,
    check_submit,
)
from s3search.cluster.ray.actors import Actors
from s3search.cluster.ray.cluster import (
    connect,
    living_nodes,
    lost_connection,
    settled,
)
from s3search.cluster.ray.deaths import Death, Deaths, DeathVerdict
from s3search.cluster.ray.own_node import LOOK_SECONDS, check_own_node
from s3search.cluster.ray.packed import packed
from s3search.cluster.ray.reaching import first_sentence
from s3search.cluster.ray.slots import Call, Slot, Unloaded
from s3search.cluster.ray.timeouts import Timeouts
from s3search.cluster.sizes import AskedSizes
from s3search.errors import Failure, failure_from_exception

_LOOK_SECONDS = 1.0  # between two looks at the nodes while a task is under suspicion
_PATIENCE_SECONDS = 10.0  # of one wait for a call to end; then look around
_SETTLE_SECONDS = 10.0  # for the calls of a dead process to fail, after the first did
_CLOSE_SECONDS = 20.0


class RayPool(ClosesItself, Generic[Request, Reply]):
    """As many processes on a Ray cluster as are asked for; see ``WorkerPool`` for the contract.

    ``threads_per_worker`` is torch's, by default a share of a local Ray's cores; a task that runs
    for more than ``task_seconds`` is taken to hang.  The module says what ``address`` may be.
    """

    def __init__(
        self,
        make_worker: Callable[[], Callable[[Request], Reply]],
        *,
        address: str,
        asked: AskedSizes,
        threads_per_worker: int | None = None,
        task_seconds: float | None = None,
    ) -> None:
        self._queue: deque[Task[Request]] = deque()
        self._finished: list[Outcome[Reply]] = []
        self._pending_ids: set[str] = set()
        self._deaths = Deaths()
        self._suspects: list[Call[Request]] = []  # until their deaths are understood
        self._look_at = 0.0
        self._timeouts, self._task_seconds = Timeouts(), task_seconds
        self._is_closed = False
        self._longest_wait = LOOK_SECONDS if address == "local" else _PATIENCE_SECONDS
        factory = packed(make_worker)
        self._owns_connection = connect(address, asked.on(()).n_workers, store_bytes=len(factory))
        try:
            sizes, self.place = settled(asked)
            self._actors: Actors[Request] = Actors(
                factory, sizes, is_local=address == "local", n_threads=threads_per_worker
            )
        except BaseException:
            _end_in_time(self._disconnect)
            raise

    @property
    def n_workers(self) -> int:
        """Workers that are there now; it changes where nodes come and go."""
        return self._actors.n_here

    @property
    def n_pending(self) -> int:
        """Tasks submitted whose outcome ``collect`` has not returned yet."""
        return len(self._pending_ids)

    @property
    def has_room(self) -> bool:
        """Whether ``submit`` takes another task: at most two per worker are pending."""
        room = TASKS_PER_WORKER * max(1, self.n_workers)  # one is on its way, at the least
        return not self._is_closed and self.n_pending < room

    def submit(self, task: Task[Request]) -> None:
        """Queues a task; RuntimeError without room, ValueError if its id is still pending."""
        check_submit(self, task, self._pending_ids)
        self._pending_ids.add(task.id)
        self._queue.append(task)
        self._dispatch()

    def collect(self, timeout: float | None = None) -> list[Outcome[Reply]]:
        """Every finished outcome, after waiting for one; more in `WorkerPool.collect`."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        n_before = len(self._actors.ready)
        while self._pending_ids and not self._finished:
            check_own_node(slot.worker for slot in self._actors.slots)
            self._actors.wake()
            self._judge_suspects()
            self._dispatch()
            remaining = deadline - time.monotonic()
            waited_from = time.monotonic()
            self._wait(max(0.0, min(remaining, self._seconds_to_next_look())))
            self._actors.check_silence(time.monotonic() - waited_from)
            self._end_timeouts()
            self._dispatch()  # before the driver thinks: the workers go on
            if remaining <= 0 or (self.has_room and len(self._actors.ready) > n_before):
                break
        outcomes, self._finished = self._finished, []
        for outcome in outcomes:
            self._pending_ids.discard(outcome.task_id)
            self._deaths.forget(outcome.task_id)
            self._timeouts.forget(outcome.task_id)
        return outcomes

    def close(self) -> None:
        """Drops what is pending and ends the workers; bounded in time, may be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.clear()
        self._suspects.clear()
        self._pending_ids.clear()
        _end_in_time(self._release)

    def _release(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError, ConnectionError, RuntimeError):
            self._actors.release()  # where the cluster is gone, the actors went with it
        self._disconnect()

    def _disconnect(self) -> None:
        if self._owns_connection:
            ray.shutdown()  # stops a private Ray; only leaves a cluster

    # The loop: sending tasks, settling what has finished or takes too long.

    def _seconds_to_next_look(self) -> float:
        wake, limit = self._actors.next_wake(), self._task_seconds
        moments = [] if wake is None else [wake]
        if self._suspects:
            moments.append(self._look_at)
        if limit is not None:
            moments += [
                slot.busy_since + limit * slot.calls[0].task.n_parts
                for slot in self._actors.ready
                if slot.calls
            ]
        return min([self._longest_wait, *(at - time.monotonic() for at in moments)])

    def _dispatch(self) -> None:
        ready = self._actors.ready
        while self._queue and ready:
            slot = min(ready, key=lambda slot: len(slot.calls))
            if len(slot.calls) >= TASKS_PER_WORKER:
                break
            slot.call(self._queue.popleft(), time.monotonic())

    def _wait(self, seconds: float) -> None:
        """Sleep until a call ends, then settle every call that has ended."""
        slots = self._actors.slots
        slot_of = {call.ref: slot for slot in slots for call in slot.calls}
        slot_of |= {slot.start: slot for slot in slots if slot.start is not None}
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
                self._actors.settle_start(slot)
            elif any(ref == call.ref for call in slot.calls):  # not yet settled with its slot
                self._settle_calls(slot, ref)

    def _settle_calls(self, slot: Slot[Request], ref: Any) -> None:
        """Settle one call; when it tells that the process died, settle all calls of the slot."""
        call = next(call for call in slot.calls if call.ref == ref)
        death = self._settle_call(slot, call)
        if death is None:
            slot.forget(call, time.monotonic())
            return
        calls, slot.calls = list(slot.calls), deque()
        ray.wait([c.ref for c in calls], num_returns=len(calls), timeout=_SETTLE_SECONDS)
        lost = [c for c in calls if c is call or self._settle_call(slot, c) is not None]
        if not isinstance(death, Unloaded):
            self._suspect(slot, lost.pop(0), death)
        self._queue.extendleft(c.task for c in reversed(lost))
        self._actors.restart(slot, death)

    def _settle_call(self, slot: Slot[Request], call: Call[Request]) -> Exception | None:
        """Record the outcome of a call that has one; otherwise what befell its process."""
        try:
            outcome: Outcome[Reply] | None = ray.get(call.ref, timeout=0)
        except ray.exceptions.RayTaskError as error:  # e.g. a reply that cannot be pickled
            failure = failure_from_exception(error.cause or error)
            self._finish(call, failure, slot.worker, time.monotonic() - call.started)
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
                case DeathVerdict.RETRY:
                    self._queue.append(call.task)
                case DeathVerdict.WAIT:
                    self._suspects.append(call)
                case DeathVerdict.QUARANTINE:
                    message = self._deaths.reason(call.task.id)
                    failure = Failure(kind="WorkerDied", message=message, traceback="")
                    last = self._deaths.last(call.task.id)
                    self._finish(call, failure, last.worker, last.at - call.started)
        self._look_at = now + _LOOK_SECONDS

    def _finish(self, call: Call[Request], failure: Failure, worker: str, seconds: float) -> None:
        self._finished.append(
            Outcome(
                task_id=call.task.id,
                reply=None,
                error=failure,
                worker=worker,
                seconds=seconds,
            )
        )

    def _end_timeouts(self) -> None:
        """End the processes whose task takes too long; it runs again after the others, once."""
        now, limit = time.monotonic(), self._task_seconds
        for slot in self._actors.ready:
            if limit is None or not slot.calls:
                continue
            call, *behind = slot.calls
            if now - slot.busy_since <= limit * call.task.n_parts:
                continue
            task, worker, seconds = call.task, slot.worker, now - slot.busy_since
            self._actors.kill(slot)
            self._queue.extendleft(other.task for other in reversed(behind))
            if self._timeouts.add(task.id, worker, seconds):
                failure = self._timeouts.failure(task.id, limit)
                self._finish(call, failure, worker, self._timeouts.seconds(task.id))
            else:
                self._queue.append(task)


def _end_in_time(end: Callable[[], None]) -> None:
    """In a thread, because a cluster that is gone would keep Ray's calls waiting for it."""
    thread = threading.Thread(target=end, name="s3search-release-ray", daemon=True)
    thread.start()
    thread.join(_CLOSE_SECONDS)
