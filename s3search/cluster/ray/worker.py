"""What lives in a worker process: the loaded model, and the calls that a pool makes to it."""

import sys
from collections.abc import Callable
from typing import Any

import ray
import ray.cloudpickle

from s3search.cluster.pool import Outcome, Task, run_task, stopping_error, worker_name
from s3search.cluster.versions import CodeVersion, mismatch
from s3search.errors import S3SearchError, WorkersUnavailable


class RayWorker:
    """What lives in the worker process."""

    def __init__(self) -> None:
        self._work: Callable[[Any], Any] | None = None

    def ping(self) -> tuple[str, str]:
        """The names of this process and, in Ray's words, of its node."""
        return worker_name(), ray.get_runtime_context().get_node_id()

    def load(
        self, factory: bytes, n_threads: int | None, path: list[str], driver: CodeVersion
    ) -> S3SearchError | None:
        """Make the worker; the error that stops the run, or None.

        Apart from ``__init__``, so that an error keeps its type and a death here is told from a
        death while Ray starts the process; as bytes, so that an import error is reported too.
        ``path`` is the driver's ``sys.path``, where the factory's module was found; ``driver`` is
        the code that this process must run too.
        """
        refusal = mismatch(driver, CodeVersion.of_this_process(), worker_name())
        if refusal is not None:
            return WorkersUnavailable(refusal)
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
