"""What the driver knows of the actors of a pool, and of the calls it made to them."""

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic

import ray.exceptions

from s3search.cluster.pool import Request, Task


class SlotState(enum.Enum):
    """A slot's process, on its way from wished for to loaded."""

    WAKING = enum.auto()
    LOADING = enum.auto()
    READY = enum.auto()


@dataclass(slots=True, kw_only=True, eq=False)
class Call(Generic[Request]):
    """A task that was sent to an actor."""

    task: Task[Request]
    ref: Any
    started: float


@dataclass(slots=True, kw_only=True, eq=False)
class Slot(Generic[Request]):
    """One actor. ``start`` is the ping or load under way; ``worker`` is the last process that
    answered, ``node`` (Ray's id) where it runs, "" while it is being restarted.

    The process takes its ``calls`` one by one: the first has run since ``busy_since`` at most.
    """

    actor: Any
    state: SlotState = SlotState.WAKING
    start: Any = None
    wake_at: float = 0.0
    failed_starts: list[str] = field(default_factory=list)  # nodes, of those in a row
    worker: str = "a worker"
    node: str = ""
    calls: deque[Call[Request]] = field(default_factory=deque)
    busy_since: float = 0.0

    def call(self, task: Task[Request], now: float) -> None:
        """Send a task to the actor."""
        if not self.calls:
            self.busy_since = now
        ref = self.actor.run.remote(task)
        self.calls.append(Call(task=task, ref=ref, started=now))

    def forget(self, call: Call[Request], now: float) -> None:
        """After its end; the next has begun."""
        self.calls.remove(call)
        self.busy_since = now


class Unloaded(Exception):
    """Never raised: a process was restarted between two tasks and holds no model."""


def is_restarting(error: Exception) -> bool:
    """Whether Ray brings the actor back by itself (or we only lost sight of it)."""
    return isinstance(error, ray.exceptions.ActorUnavailableError | ray.exceptions.GetTimeoutError)
