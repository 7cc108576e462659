"""What the driver knows of the actors of a pool, and of the calls it made to them."""

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic

import ray.exceptions

from s3search.cluster.pool import Request, Task


class SlotState(enum.Enum):
    """A slot's process, on its way from started to loaded."""

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
    """

    actor: Any
    state: SlotState = SlotState.WAKING
    start: Any = None
    wake_at: float = 0.0
    failed_starts: list[str] = field(default_factory=list)  # nodes, of those in a row
    worker: str = "a worker"
    node: str = ""
    calls: deque[Call[Request]] = field(default_factory=deque)


class Unloaded(Exception):
    """Never raised: a process was restarted between two tasks and holds no model."""


def is_restarting(error: Exception) -> bool:
    """Whether Ray brings the actor back by itself (or we only lost sight of it)."""
    return isinstance(error, ray.exceptions.ActorUnavailableError | ray.exceptions.GetTimeoutError)
