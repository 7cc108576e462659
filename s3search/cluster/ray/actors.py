"""The actors of a pool: started, loaded, and started again after their deaths.

- An actor that fits nowhere yet stays pending in Ray and starts when a node joins: its slot is
  WAKING, as is one whose process died.  Then it is LOADING (factory under way), then READY.
- Calls to a restarting actor fail at once, so a slot is pinged until it answers.
- The restarted process holds no model.  An idle worker that dies comes back unnoticed and
  unloaded; it answers None to the next task, and the slot starts again.
- The factory, and with it any model of the program, is pickled once and put into the object store
  once: a worker is sent a reference.
- A local worker's ``sys.path`` has the working directory, the script's and $PYTHONPATH, but not
  what the driver (pytest, a notebook) added to its own: that is sent along.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any, Generic

import ray
import ray.cloudpickle
import ray.exceptions

from s3search.cluster.pool import Request
from s3search.cluster.ray.cluster import (
    cores_of_process,
    living_nodes,
    lost_connection,
)
from s3search.cluster.ray.reaching import first_sentence
from s3search.cluster.ray.slots import Slot, SlotState, is_restarting
from s3search.cluster.ray.worker import RayWorker
from s3search.cluster.sizes import Sizes
from s3search.cluster.versions import CodeVersion
from s3search.errors import WorkersUnavailable

_MAX_FAILED_STARTS = 3  # of one slot in a row
_PING_SECONDS = 0.25  # between two pings of an actor that does not answer
_SILENCE_SECONDS = 300.0  # without any answering process, the pool gives up


class Actors(Generic[Request]):
    """``sizes.n_workers`` slots, each with an actor that Ray starts where and when it fits.

    ``factory`` is a pickled callable without arguments, which makes the worker.
    """

    def __init__(
        self,
        factory: bytes,
        sizes: Sizes,
        *,
        is_local: bool,
        n_threads: int | None,
    ) -> None:
        if n_threads is None and is_local:
            n_threads = max(1, cores_of_process() // sizes.n_workers)
        path = list(sys.path) if is_local else []
        self._load = (ray.put(factory), n_threads, path, CodeVersion.of_this_process())
        self._actor_class: Any = ray.remote(RayWorker).options(
            num_cpus=sizes.n_cpus,
            num_gpus=sizes.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=0,
        )
        self._silent_seconds = 0.0
        self.slots: list[Slot[Request]] = [
            Slot(actor=self._actor_class.remote()) for _ in range(sizes.n_workers)
        ]

    @property
    def n_here(self) -> int:
        """Workers that are up, or will be as soon as their model is loaded."""
        return sum(slot.state is not SlotState.WAKING for slot in self.slots)

    @property
    def ready(self) -> list[Slot[Request]]:
        """The actors that could take a task now."""
        return [slot for slot in self.slots if slot.state is SlotState.READY]

    def wake(self) -> None:
        """Ping who is due to be."""
        now = time.monotonic()
        for slot in self._asleep():
            if slot.wake_at <= now:
                slot.start = slot.actor.ping.remote()

    def next_wake(self) -> float | None:
        """When the next ping is due."""
        return min((slot.wake_at for slot in self._asleep()), default=None)

    def settle_start(self, slot: Slot[Request]) -> None:
        """What follows from the end of a ping or load; raises what the factory raised."""
        ref, slot.start = slot.start, None
        try:
            answer = ray.get(ref)
        except ray.exceptions.RayError as error:
            if slot.state is SlotState.LOADING or not is_restarting(error):
                _count_failed_start(slot, error)
            self.restart(slot, error)
            return
        if slot.state is SlotState.WAKING:
            slot.worker, slot.node = answer
            slot.state = SlotState.LOADING
            slot.start = slot.actor.load.remote(*self._load)
        elif answer is not None:
            raise answer
        else:
            slot.state = SlotState.READY
            slot.failed_starts.clear()

    def restart(self, slot: Slot[Request], death: Exception) -> None:
        """After the death of its process."""
        if not is_restarting(death):
            slot.actor = self._actor_class.remote()  # Ray gave it up
        slot.state, slot.node = SlotState.WAKING, ""
        slot.wake_at = time.monotonic() + _PING_SECONDS

    def kill(self, slot: Slot[Request]) -> None:
        """End its process, whatever that does, and start another; its calls are given up."""
        try:
            ray.kill(slot.actor, no_restart=True)
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise lost_connection(error) from error
        slot.calls.clear()
        slot.actor = self._actor_class.remote()
        slot.state, slot.node, slot.start = SlotState.WAKING, "", None
        slot.wake_at = time.monotonic() + _PING_SECONDS

    def check_silence(self, waited_seconds: float) -> None:
        """Raise when waiting has been in vain for long: the nodes are gone, and none comes."""
        if self.n_here:
            self._silent_seconds = 0.0
            return
        self._silent_seconds += waited_seconds
        if self._silent_seconds > _SILENCE_SECONDS:
            raise WorkersUnavailable(
                f"none of {len(self.slots)} workers has answered for {_SILENCE_SECONDS:.0f} s; "
                "look at the cluster with `ray status`, then run the same command to resume"
            )

    def release(self) -> None:
        """End all processes; raises what Ray does when the cluster is gone."""
        for slot in self.slots:
            ray.kill(slot.actor, no_restart=True)

    def _asleep(self) -> Iterator[Slot[Request]]:
        return (s for s in self.slots if s.state is SlotState.WAKING and s.start is None)


def _count_failed_start(slot: Slot[Request], error: Exception) -> None:
    slot.failed_starts.append(slot.node)
    blameless = set(slot.failed_starts) - living_nodes() - {""}
    if sum(node not in blameless for node in slot.failed_starts) >= _MAX_FAILED_STARTS:
        raise WorkersUnavailable(
            f"{slot.worker} died {_MAX_FAILED_STARTS} times in a row while it started "
            f"({first_sentence(error)}); look for an out-of-memory kill (dmesg), and check "
            "that every node has the same s3search and the same RAY_AUTH_MODE"
        ) from error
