"""The one way to a worker: questions in, answers out as they come.

Measurements may share a task, so that a worker shares network calls among them.  Packed is what
waits anyway, never more than a worker's fair share of it: nothing is held back to fill a task, and
no worker idles because another one got everything.  A task of several schedules that has no reply
(its worker died too often) says nothing about any one of them: all are asked again, each in a task
of its own, and only then is one called guilty.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor

from s3search.cluster.pool import TASKS_PER_WORKER, Outcome, Task, WorkerPool
from s3search.errors import EvaluationFailed
from s3search.evaluation.record import (
    CheckRequest,
    DescribeRequest,
    Description,
    Finding,
    ImagesRequest,
    PolishReply,
    Population,
    ProxyScores,
    Reply,
    Request,
    SolvesReply,
)
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Answer, Job, Measure, Measurement

Pool = WorkerPool[Request, Reply]
Asked = Measure | Job
Answered = Measurement | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationSize:
    """How many measurements one task may have: ``fixed``, or as many as ``rows`` images hold."""

    fixed: int | None = 1
    rows: int = 1

    @staticmethod
    def of(asked: int | Literal["auto"], description: Description) -> "PopulationSize":
        """The size that the study file asks for: a number, or "auto".

        Automatic, it is what fills one batch of a GPU; a CPU works as fast on one schedule.
        """
        if asked != "auto":
            return PopulationSize(fixed=asked)
        rows = 1 if description.device == "cpu" else description.batch_size
        return PopulationSize(fixed=None, rows=rows)

    def most(self, question: Asked) -> int:
        """Questions like this one in one task."""
        if not isinstance(question, Measure):
            return 1
        if self.fixed is not None:
            return self.fixed
        first_look = question.thresholds[0][0] if question.thresholds else question.n_images
        return max(1, self.rows // first_look)


class Asker:
    """Hands questions to a pool in their order and takes its outcomes apart into answers."""

    def __init__(self, pool: Pool, size: PopulationSize | None = None) -> None:
        self._pool, self._size = pool, size or PopulationSize()
        self._waiting: deque[Asked] = deque()  # what no worker has yet
        self._tasks: dict[str, tuple[Asked, ...]] = {}  # under way, by the task's id
        self._keys: set[str] = set()  # of all that waits or is under way
        self._alone: set[str] = set()  # that shared a task without a reply

    @property
    def keys(self) -> set[str]:
        """Keys of the questions that have no answer yet."""
        return self._keys

    def begin(self, questions: Iterable[Asked], *, are_last: bool = False) -> None:
        """Takes questions in, each once; workers that have nothing to do start at once.

        ``are_last``: nothing is begun before all that is under way is answered, so that the last
        ones are spread over all workers.
        """
        for question in questions:
            if question.key not in self._keys:
                self._keys.add(question.key)
                self._waiting.append(question)
        if self._is_urgent():
            self._submit(are_last=are_last)

    def collect(self, *, are_last: bool = True) -> list[Answered]:
        """Some answers, after waiting for at least one if anything is under way."""
        self._submit(are_last=are_last)
        found: list[Answered] = []
        for outcome in self._pool.collect():
            questions = self._tasks.pop(outcome.task_id)
            replies = self._replies(questions, outcome)
            found += replies
            self._keys -= {reply.question.key for reply in replies}
        return found

    def answers(self) -> Iterator[Answered]:
        """Every answer to what has been begun, as it comes."""
        while self._keys:
            yield from self.collect()

    def _is_urgent(self) -> bool:
        """Whether tasks should be made of what waits now, though more may be begun in a moment:
        it fills one, or a worker has nothing to do.
        """
        if not self._waiting:
            return False
        pool = self._pool
        is_full = len(self._waiting) >= self._size.most(self._waiting[0])
        return is_full or pool.n_pending < pool.n_workers

    def _submit(self, *, are_last: bool) -> None:
        """Hands as many to the pool as it has room for, in order."""
        pool = self._pool
        while self._waiting and pool.has_room:
            room = TASKS_PER_WORKER * pool.n_workers - pool.n_pending
            shares = max(1, room, pool.n_workers if are_last else 1)
            questions = self._next(math.ceil(len(self._waiting) / shares))
            n = len(questions)
            task_id = questions[0].key if n == 1 else f"{questions[0].key} and {n - 1} more"
            self._tasks[task_id] = questions
            pool.submit(Task(id=task_id, request=_request(questions), n_parts=n))

    def _next(self, share: int) -> tuple[Asked, ...]:
        waiting = self._waiting
        found = [waiting.popleft()]
        if isinstance(found[0], Measure) and found[0].key not in self._alone:
            most = min(share, self._size.most(found[0]))
            while len(found) < most and self._may_share(waiting[0]):
                found.append(waiting.popleft())
        return tuple(found)

    def _may_share(self, question: Asked) -> bool:
        return isinstance(question, Measure) and question.key not in self._alone

    def _replies(
        self, questions: tuple[Asked, ...], outcome: Outcome[Reply]
    ) -> list[Measurement | Answer]:
        reply = outcome.reply
        if len(questions) == 1:
            return [_answer(questions[0], outcome)]
        if isinstance(reply, tuple):
            return [
                _answer(question, replace(outcome, reply=each))
                for question, each in zip(questions, reply, strict=True)
                if isinstance(each, Measurement)
            ]
        self._alone |= {question.key for question in questions}
        self._waiting.extendleft(reversed(questions))
        return []


def answers_to(pool: Pool, questions: Sequence[Asked]) -> Iterator[Answered]:
    """The answers to questions by all workers of an idle pool, as they come."""
    asker = Asker(pool)
    asker.begin(questions)
    yield from asker.answers()


def measured_by(pool: Pool, questions: Sequence[Measure]) -> list[Measurement]:
    """Measurements outside any study, in the order of the questions; of each schedule one."""
    found = {each.question.key: each for each in answers_to(pool, questions)}
    measured = [found[question.key] for question in questions]
    return [each for each in measured if isinstance(each, Measurement)]


def described(pool: Pool, *, layers: bool = False) -> Description:
    """What the pool's workers have loaded; ``layers``: with the network's blocks."""
    found = _reply(pool, Task(id="describe", request=DescribeRequest(layers=layers)))
    assert isinstance(found, Description)
    return found


def findings_by(pool: Pool) -> tuple[Finding, ...]:
    """What a few calls tell of the model, the extractor and the reference on the workers."""
    found = _reply(pool, Task(id="check", request=CheckRequest()))
    assert isinstance(found, tuple)
    return tuple(each for each in found if isinstance(each, Finding))


def _reply(pool: Pool, task: Task[Request]) -> Reply:
    """The reply to the only task of an idle pool; raises `EvaluationFailed` without one."""
    (outcome,) = _outcomes(pool, [task])
    if outcome.reply is None:
        raise _failure(outcome)
    return outcome.reply


def images_by(
    pool: Pool, requests: Sequence[ImagesRequest]
) -> Iterator[tuple[Schedule, Tensor | EvaluationFailed]]:
    """Images (n, ...) of many schedules by all workers of an idle pool, as they come, or why
    there are none.
    """
    tasks: list[Task[Request]] = [
        Task(id=str(i), request=request) for i, request in enumerate(requests)
    ]
    for outcome in _outcomes(pool, tasks):
        schedule = requests[int(outcome.task_id)].schedule
        made = outcome.reply
        yield schedule, made if isinstance(made, Tensor) else _failure(outcome)


def _outcomes(pool: Pool, tasks: Sequence[Task[Request]]) -> Iterator[Outcome[Reply]]:
    """The outcome of every task, as it comes, of a pool that has nothing else to do."""
    waiting, n_pending = deque(tasks), 0
    while waiting or n_pending:
        while waiting and pool.has_room:
            pool.submit(waiting.popleft())
            n_pending += 1
        for outcome in pool.collect():
            n_pending -= 1
            yield outcome


def _request(questions: tuple[Asked, ...]) -> Request:
    if len(questions) == 1:
        return questions[0]
    return Population(questions=tuple(q for q in questions if isinstance(q, Measure)))


def _answer(question: Asked, outcome: Outcome[Reply]) -> Answered:
    error = None if outcome.error is None else outcome.error.sentence
    reply = outcome.reply
    if isinstance(question, Measure):
        if isinstance(reply, Measurement):
            return _with_worker(replace(reply, question=question), outcome.worker)
        seconds, worker = outcome.seconds, outcome.worker
        why = error or "no answer"
        return Measurement(question=question, error=why, seconds=seconds, worker=worker)
    value: Any = None
    calls = 0
    match reply:
        case ProxyScores(scores=value, network_calls=calls):
            pass
        case PolishReply(made=value, network_calls=calls):
            pass
        case SolvesReply(n_solved=value, network_calls=calls):
            pass
        case tuple() as found:
            value = tuple(asdict(each) for each in found if not isinstance(each, Measurement))
        case _:
            error = error or "no answer"
    return Answer(
        question=question,
        value=value,
        error=error,
        network_calls=calls,
        seconds=outcome.seconds,
        worker=outcome.worker,
    )


def _with_worker(measured: Measurement, worker: str) -> Measurement:
    """One measurement of a task, with its worker; an estimate that is no number is a failure."""
    estimate, second = measured.estimate, measured.second
    if estimate is not None and not math.isfinite(estimate):
        return Measurement(
            question=measured.question,
            error=f"EvaluationFailed: the metric is {estimate}",
            seconds=measured.seconds,
            worker=worker,
        )
    second = None if second is None else replace(second, worker=worker)
    return replace(measured, worker=worker, second=second)


def _failure(outcome: Outcome[Reply]) -> EvaluationFailed:
    assert outcome.error is not None
    return EvaluationFailed(outcome.error.sentence)
