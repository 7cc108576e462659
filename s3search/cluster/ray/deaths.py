"""Which deaths of workers are the fault of the task that they ran.

A schedule may kill its worker (an out-of-memory kill, a crash in native code), and then it must
not be run for ever.  But a worker also dies when its node is preempted, and that is nobody's
fault: deaths on nodes that are gone do not count.  Ray declares a node dead 14 s after it was
lost, so a task that has died too often waits until every death has shown which kind it was,
unless one node is all there is: that is the head, whose loss would have ended the pool.
"""

import enum
from collections.abc import Set
from dataclasses import dataclass

MAX_DEATHS = 2  # of workers on living nodes under one task; then it is in quarantine
MAX_LOSSES = 20  # of workers for any reason under one task
DOUBT_SECONDS = 20.0  # after a death, whether its node went with it is known


class DeathVerdict(enum.Enum):
    """What to do with a task whose worker died."""

    RETRY = enum.auto()
    WAIT = enum.auto()
    QUARANTINE = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The end of a worker process: on which node of Ray's, what was seen, and when (seconds)."""

    node: str
    worker: str
    cause: str
    at: float


class Deaths:
    """The deaths under each pending task."""

    def __init__(self) -> None:
        self._of: dict[str, list[Death]] = {}

    def add(self, task_id: str, death: Death) -> None:
        """Notes that a worker died while it ran the task."""
        self._of.setdefault(task_id, []).append(death)

    def forget(self, task_id: str) -> None:
        """Drops what is known of a task that is answered."""
        self._of.pop(task_id, None)

    def verdict(self, task_id: str, living: Set[str], now: float) -> DeathVerdict:
        """What to do with a task; ``living`` are nodes that Ray believes alive at ``now``."""
        deaths = self._of[task_id]
        if len(deaths) >= MAX_LOSSES:
            return DeathVerdict.QUARANTINE
        if sum(death.node in living for death in deaths) < MAX_DEATHS:
            return DeathVerdict.RETRY
        if len(living) > 1 and now < deaths[-1].at + DOUBT_SECONDS:
            return DeathVerdict.WAIT
        return DeathVerdict.QUARANTINE

    def last(self, task_id: str) -> Death:
        """The newest death under the task."""
        return self._of[task_id][-1]

    def reason(self, task_id: str) -> str:
        """Why the task is in quarantine, and where to look."""
        deaths = self._of[task_id]
        last = self.last(task_id)
        return (
            f"in quarantine: {len(deaths)} worker processes died while they ran this task, the "
            f"last was {last.worker} ({last.cause}); look for an out-of-memory kill (dmesg) or a "
            "crash in native code"
        )
