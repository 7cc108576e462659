"""Tasks that ran longer than a task may: their workers are taken to hang.

A worker can hang for a reason of its own (a driver of its GPU, a lost file server), so the task
runs once more; the second time the task is at fault, and is given up with the reason.
"""

from dataclasses import dataclass

from s3search.errors import Failure

MAX_OVERRUNS = 2  # of one task; then it is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """A worker process that was ended because its task took too long."""

    worker: str
    seconds: float


class Timeouts:
    """The timeouts of each pending task; a task may run for ``limit`` seconds, None: for ever."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._of: dict[str, list[Timeout]] = {}

    def add(self, task_id: str, timeout: Timeout) -> bool:
        """Note one more; whether that was the last that the task is granted."""
        found = self._of.setdefault(task_id, [])
        found.append(timeout)
        return len(found) >= MAX_OVERRUNS

    def forget(self, task_id: str) -> None:
        """Drops what is known of a task that is answered."""
        self._of.pop(task_id, None)

    def seconds(self, task_id: str) -> float:
        """What the task cost in vain."""
        return sum(timeout.seconds for timeout in self._of[task_id])

    def failure(self, task_id: str) -> Failure:
        """Why the task is given up, and what would help."""
        workers = " and ".join(timeout.worker for timeout in self._of[task_id])
        message = (
            f"it ran for more than cluster.task_seconds={self.limit:g} on {workers}, which were "
            "ended; raise cluster.task_seconds if that is not long for this model and number of "
            "images, otherwise look for what makes a worker hang"
        )
        return Failure(kind="TaskTimedOut", message=message, traceback="")
