"""A pool of virtual workers: the real driver, database and search, with made-up evaluations.

Time is virtual.  A task takes as long as it is drawn to take, and what the driver needs between
two calls of the pool is added as it really passed, so that a driver that is too slow leaves its
workers idle here as it would there (``driver_clock`` may count processor seconds instead, on a
machine that is busy with other things).  Tasks fail, nodes are preempted with what they were
running and come back; all of it drawn from one seed.
"""

import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from s3search.cluster.pool import TASKS_PER_WORKER, ClosesItself, Outcome, Task, check_submit
from s3search.cluster.sizes import Place
from s3search.errors import Failure
from s3search.evaluation.record import PolishReply, Population, Reply, Request
from s3search.search.questions import Measure, Measurement, Polish, PolishResult, Rung
from s3search.solvers.coefficients import coefficient_table, schedule_of_table

_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What happens to virtual workers; times in seconds."""

    seconds: float = 30.0  # of an evaluation of `per_images` images, on average
    per_images: int = 1000
    spread: float = 0.2  # of the logarithm of its time
    failing: float = 0.05  # share of the evaluations that raise
    preempted_an_hour: float = 0.2  # share of the workers
    away: float = 300.0  # until a preempted worker is back, on average
    starting: float = 60.0  # to load the model, at first and after that


@dataclass(slots=True, eq=False)
class _Worker:
    name: str
    life: int = 0  # counts preemptions: what an earlier life was to finish is void
    is_up: bool = False
    tasks: deque[Task[Request]] = field(default_factory=deque)
    began: float = 0.0  # of the running task
    up_since: float = 0.0


class SimulatedPool(ClosesItself):
    """A `WorkerPool` of ``n_workers`` virtual ones beside a real one in this process, which
    answers whatever is neither an evaluation nor a polishing.
    """

    def __init__(
        self,
        make_worker: Callable[[], Callable[[Request], Reply]],
        *,
        n_workers: int,
        weather: Weather,
        seed: int,
        driver_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.n_workers = n_workers
        self.place = Place(n_workers=n_workers, gpus_per_worker=0.0, n_gpus=0)
        self.n_preempted = 0
        self.driver_seconds = 0.0
        self.last_begun = 0.0  # when the search handed out its last evaluation
        self._busy: list[tuple[float, float]] = []  # of workers, whether they reached the end
        self._up: list[tuple[float, float]] = []  # of workers, loaded
        self._driver_clock = driver_clock
        self.clock = 0.0
        self._weather, self._random = weather, np.random.default_rng(seed)
        self._real = make_worker()
        self._model: Measurement | None = None
        self._queue: deque[Task[Request]] = deque()
        self._pending: set[str] = set()
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._finished: list[Outcome[Reply]] = []
        self._left = self._driver_clock()
        self._workers = [_Worker(name=f"virtual/{i}") for i in range(n_workers)]
        self._free: deque[_Worker] = deque()
        for worker in self._workers:
            self._come_up(worker, after=weather.starting)

    @property
    def n_pending(self) -> int:
        return len(self._pending)

    @property
    def has_room(self) -> bool:
        return self.n_pending < TASKS_PER_WORKER * self.n_workers

    def submit(self, task: Task[Request]) -> None:
        check_submit(self, task, self._pending)
        self._pending.add(task.id)
        if isinstance(task.request, Measure | Population | Polish):
            self._queue.append(task)
            self._advance_by_driver()
            if _is_searching(task.request):
                self.last_begun = self.clock
            self._dispatch()
        else:
            reply = self._real(task.request)
            self._finished.append(
                Outcome(task_id=task.id, reply=reply, error=None, worker="real/0", seconds=0.0)
            )
            self._left = self._driver_clock()  # the real worker's time is not the driver's

    def collect(self, timeout: float | None = None) -> list[Outcome[Reply]]:
        self._advance_by_driver()
        deadline = math.inf if timeout is None else self.clock + timeout
        while self._pending and not self._finished and self._events[0][0] <= deadline:
            self._next_event()
        outcomes, self._finished = self._finished, []
        self._pending -= {outcome.task_id for outcome in outcomes}
        self._left = self._driver_clock()
        return outcomes

    def close(self) -> None:
        self._queue.clear()
        self._pending.clear()

    # -- time ------------------------------------------------------------------------------

    def _advance_by_driver(self) -> None:
        """What the workers did while the driver was away."""
        now = self._driver_clock()
        away, self._left = now - self._left, now
        self.driver_seconds += away
        until = self.clock + away
        while self._events and self._events[0][0] <= until:
            self._next_event()
        self.clock = max(self.clock, until)

    def _next_event(self) -> None:
        when, _, happen = heapq.heappop(self._events)
        self.clock = max(self.clock, when)
        happen()

    def _at(self, after: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.clock + after, next(self._order), happen))

    # -- workers ---------------------------------------------------------------------------

    def _come_up(self, worker: _Worker, after: float) -> None:
        def up() -> None:
            worker.is_up, worker.up_since = True, self.clock
            rate = self._weather.preempted_an_hour / _HOUR
            if rate > 0:
                self._at(self._random.exponential(1 / rate), lambda: self._preempt(worker))
            self._free.append(worker)
            self._dispatch()

        self._at(after, up)

    def _preempt(self, worker: _Worker) -> None:
        """The node is gone; what it held is run again elsewhere, before all else."""
        self.n_preempted += 1
        if worker.tasks:
            self._busy.append((worker.began, self.clock))
        self._up.append((worker.up_since, self.clock))
        self._queue.extendleft(reversed(worker.tasks))
        worker.tasks.clear()
        worker.is_up, worker.life = False, worker.life + 1
        self._free = deque(each for each in self._free if each is not worker)
        self._come_up(
            worker, self._random.exponential(self._weather.away) + self._weather.starting
        )
        self._dispatch()

    def _dispatch(self) -> None:
        """One task waits beside the one that runs, as in the real pool."""
        while self._queue and self._free:
            worker = self._free.popleft()
            worker.tasks.append(self._queue.popleft())
            if len(worker.tasks) == 1:
                self._begin(worker)
            if len(worker.tasks) < TASKS_PER_WORKER:
                self._free.append(worker)  # behind those that have none

    def _begin(self, worker: _Worker) -> None:
        worker.began = self.clock
        life, task = worker.life, worker.tasks[0]
        seconds = self._seconds(task.request)

        def end() -> None:
            if worker.life != life:
                return
            self._busy.append((worker.began, self.clock))
            worker.tasks.popleft()
            if len(worker.tasks) == TASKS_PER_WORKER - 1:
                self._free.append(worker)
            self._finished.append(self._outcome(task, worker, seconds))
            if worker.tasks:
                self._begin(worker)
            self._dispatch()

        self._at(seconds, end)

    def busy_share(self, until: float = math.inf) -> float:
        """The part of the workers' loaded time, up to that moment, in which they were busy."""
        until = min(until, self.clock)
        still_up = [(each.up_since, until) for each in self._workers if each.is_up]
        running = [(each.began, until) for each in self._workers if each.tasks]
        busy = _seconds([*self._busy, *running], until)
        return busy / _seconds([*self._up, *still_up], until)

    # -- answers ---------------------------------------------------------------------------

    def _seconds(self, request: Request) -> float:
        if isinstance(request, Population):
            return sum(map(self._seconds, request.questions))
        images: float
        if isinstance(request, Polish):
            images = 2 * request.iterations * request.n_images
        else:
            assert isinstance(request, Measure)
            images = request.n_images
        spread = self._weather.spread
        drawn = float(self._random.lognormal(-(spread**2) / 2, spread))
        return self._weather.seconds * images / self._weather.per_images * drawn

    def _outcome(self, task: Task[Request], worker: _Worker, seconds: float) -> Outcome[Reply]:
        request = task.request
        if isinstance(request, Population):
            share = seconds / len(request.questions)
            members = tuple(self._member(each, worker, share) for each in request.questions)
            return Outcome(
                task_id=task.id, reply=members, error=None, worker=worker.name, seconds=seconds
            )
        assert isinstance(request, Measure | Polish)
        searching = isinstance(request, Polish) or request.rung is Rung.SEARCH
        if searching and self._random.random() < self._weather.failing:
            failure = Failure(kind="Virtual", message="drawn to fail", traceback="")
            return Outcome(
                task_id=task.id, reply=None, error=failure, worker=worker.name, seconds=seconds
            )
        is_polish = isinstance(request, Polish)
        reply: Reply = self._polished(request) if is_polish else self._measured(request)
        return Outcome(
            task_id=task.id, reply=reply, error=None, worker=worker.name, seconds=seconds
        )

    def _member(self, question: Measure, worker: _Worker, seconds: float) -> Measurement:
        own = self._outcome(Task(id=question.key, request=question), worker, seconds)
        if own.error is None:
            assert isinstance(own.reply, Measurement)
            return own.reply
        return Measurement(question=question, error=own.error.sentence, seconds=seconds)

    def _measured(self, question: Measure) -> Measurement:
        """A distance that depends on the schedule alone, with everything a real one has."""
        if self._model is None:
            few = replace(question, n_images=8, block_images=None, thresholds=())
            answer = self._real(few)
            assert isinstance(answer, Measurement)
            self._model = replace(answer, second=None, replicates=None)
        value = 0.1 + int(question.trial.id[:8], 16) / 2**32
        return replace(self._model, question=question, n_images=question.n_images, estimate=value)

    def _polished(self, question: Polish) -> PolishReply:
        calls = 2 * question.iterations * question.n_images * question.schedule.nfe
        schedule = schedule_of_table(coefficient_table(question.schedule))
        return PolishReply(made=PolishResult(schedule=schedule, losses=()), network_calls=calls)


def _seconds(spans: Iterable[tuple[float, float]], until: float) -> float:
    return sum(max(0.0, min(end, until) - began) for began, end in spans)


def _is_searching(request: Request) -> bool:
    if isinstance(request, Population):
        return all(map(_is_searching, request.questions))
    return isinstance(request, Measure) and request.rung is Rung.SEARCH
