"""Tasks that ran longer than a task may: their workers are taken to hang.

A worker can hang for a reason of its own (a driver of its GPU, a lost file server), so the task
runs once more; the second time the task is at fault, and is given up with the reason.
"""

from s3search.errors import Failure

MAX_OVERRUNS = 2  # of one task; then it is given up


class Timeouts:
    """The timeouts of each pending task: which worker process was ended, after which seconds."""

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[str, float]]] = {}

    def add(self, task_id: str, worker: str, seconds: float) -> bool:
        """Note one more; whether that was the last that the task is granted."""
        found = self._of.setdefault(task_id, [])
        found.append((worker, seconds))
        return len(found) >= MAX_OVERRUNS

    def forget(self, task_id: str) -> None:
        """Drops what is known of a task that is answered."""
        self._of.pop(task_id, None)

    def seconds(self, task_id: str) -> float:
        """What the task cost in vain."""
        return sum(seconds for _, seconds in self._of[task_id])

    def failure(self, task_id: str, limit: float) -> Failure:
        """Why a task that may run for ``limit`` seconds is given up, and what would help."""
        workers = " and ".join(worker for worker, _ in self._of[task_id])
        message = (
            f"it ran for more than cluster.task_seconds={limit:g} on {workers}, which were "
            "ended; raise cluster.task_seconds if that is not long for this model and number of "
            "images, otherwise look for what makes a worker hang"
        )
        return Failure(kind="TaskTimedOut", message=message, traceback="")
