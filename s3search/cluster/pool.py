"""Worker pools: what the driver hands tasks to, and the pool that runs them in this process.

A *worker* is a callable request -> reply, made by a zero-argument factory that travels to the
worker process by pickle (``functools.partial(build_worker, spec)``) and loads the model there.
An exception of the worker is the outcome of its task, and the search goes on. An exception of the
factory means that no task can ever succeed: it leaves ``collect`` and stops the run.

    with InlinePool(partial(build_worker, spec)) as pool:
        pool.submit(Task(id="41", request=schedule))
        for outcome in pool.collect():
            ...
"""

import os
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from s3search import errors
from s3search.cluster.sizes import Place
from s3search.errors import Failure, failure_from_exception

Request = TypeVar("Request")
Reply = TypeVar("Reply")

TASKS_PER_WORKER = 2  # one running, one waiting beside it: no worker idles while the driver thinks


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[Request]):
    """A request and the driver's name for it; no two tasks of a pool share an ``id``.

    ``n_parts``: how many times as long as a task of one it may take.
    """

    id: str
    request: Request
    n_parts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Reply]):
    """What became of one task; every task has exactly one outcome, whatever dies on the way.

    ``worker`` is ``"<host>/<pid>"``; ``seconds`` is the worker's own time, without queueing.
    """

    task_id: str
    reply: Reply | None
    error: Failure | None
    worker: str
    seconds: float


class WorkerPool(Protocol[Request, Reply]):
    """Bounded, unordered execution of tasks; a context manager that closes itself."""

    @property
    def n_workers(self) -> int:
        """Workers that are there now; it changes where they come and go."""

    @property
    def place(self) -> Place:
        """Where they run, and what is there for them."""

    @property
    def n_pending(self) -> int:
        """Tasks submitted whose outcome ``collect`` has not returned yet."""

    @property
    def has_room(self) -> bool:
        """Whether ``submit`` takes another task: at most two per worker (that is there, or one
        that is awaited) are pending.
        """

    def submit(self, task: Task[Request]) -> None:
        """Queue a task; RuntimeError without room, ValueError if its id is still pending."""

    def collect(self, timeout: float | None = None) -> list[Outcome[Reply]]:
        """Every finished outcome, after waiting ``timeout`` seconds for at least one.

        Returns [] at once when nothing is pending, and [] when the time is up or workers have
        joined that could do more. Raises when a worker cannot be made: the factory's own
        S3SearchError, else WorkersUnavailable.
        """

    def close(self) -> None:
        """Drop what is pending and free the workers; bounded in time, may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ClosesItself(ABC):
    """What is closed at the end of a ``with``."""

    @abstractmethod
    def close(self) -> None:
        """Frees what is held; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class InlinePool(ClosesItself, Generic[Request, Reply]):
    """One worker in this process: ``collect`` makes it on first use, then runs one task a call."""

    n_workers = 1

    def __init__(self, make_worker: Callable[[], Callable[[Request], Reply]]) -> None:
        self._make_worker = make_worker
        self._work: Callable[[Request], Reply] | None = None
        self._queue: deque[Task[Request]] = deque()
        self._is_closed = False

    @property
    def place(self) -> Place:
        """This process, and the GPUs that torch sees from here."""
        import torch  # noqa: PLC0415  a second, which only this needs

        return Place(n_workers=1, gpus_per_worker=0.0, n_gpus=torch.cuda.device_count())

    @property
    def n_pending(self) -> int:
        """Tasks submitted whose outcome ``collect`` has not returned yet."""
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether ``submit`` takes another task: at most two are pending."""
        return not self._is_closed and self.n_pending < TASKS_PER_WORKER * self.n_workers

    def submit(self, task: Task[Request]) -> None:
        """Queues a task; RuntimeError without room, ValueError if its id is still pending."""
        check_submit(self, task, {queued.id for queued in self._queue})
        self._queue.append(task)

    def collect(self, timeout: float | None = None) -> list[Outcome[Reply]]:
        """The outcome of the oldest task; ``timeout`` cannot cut a running task short here."""
        if not self._queue:
            return []
        if self._work is None:
            try:
                self._work = self._make_worker()
            except Exception as error:  # the border where a plug-in's exception gets its name
                raise stopping_error(error) from error
        outcome = run_task(self._work, self._queue[0], worker_name())
        self._queue.popleft()  # after the run: an interrupted task is still pending
        return [outcome]

    def close(self) -> None:
        """Drops what is pending and frees the worker; may be called twice."""
        self._queue.clear()
        self._work = None
        self._is_closed = True


def run_task(work: Callable[[Request], Reply], task: Task[Request], worker: str) -> Outcome[Reply]:
    """The outcome of one call of the worker; any Exception becomes its failure."""
    started = time.perf_counter()
    reply: Reply | None = None
    failure: Failure | None = None
    try:
        reply = work(task.request)
    except Exception as error:  # "this trial failed": one of the two places that may say it
        failure = failure_from_exception(error)
    seconds = time.perf_counter() - started
    return Outcome(task_id=task.id, reply=reply, error=failure, worker=worker, seconds=seconds)


def check_submit(
    pool: WorkerPool[Request, Reply], task: Task[Request], pending_ids: set[str]
) -> None:
    """Raise the programming error of a ``submit`` that breaks the contract of the pool."""
    if not pool.has_room:
        raise RuntimeError(
            f"submit({task.id!r}): the pool is closed, or its {pool.n_pending} pending tasks fill "
            f"its {pool.n_workers} workers; ask has_room first, and collect"
        )
    if task.id in pending_ids:
        raise ValueError(f"submit({task.id!r}): a task of this id is pending; ids are unique")


def stopping_error(error: Exception) -> errors.S3SearchError:
    """The error of our family that says why no worker can be made; it survives pickling.

    A subclass from a plug-in, which the driver may not be able to import, becomes its nearest
    ancestor in ``s3search.errors``; what is not of the family becomes WorkersUnavailable.
    """
    failure = failure_from_exception(error)
    for kind in type(error).__mro__:
        if kind.__module__ == errors.__name__ and issubclass(kind, errors.S3SearchError):
            stopping = kind(failure.message)
            break
    else:
        stopping = errors.WorkersUnavailable(
            f"the worker could not be made on {worker_name()}: {failure.kind}: {failure.message}; "
            "repair the loaders that the study file names"
        )
    stopping.add_note(failure.traceback)
    return stopping


def worker_name() -> str:
    """This process, as outcomes name it: ``"<host>/<pid>"``."""
    return f"{socket.gethostname()}/{os.getpid()}"
