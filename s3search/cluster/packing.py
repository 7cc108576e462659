"""Several evaluations in one task, so that a worker shares network calls among them.

Packed is what waits anyway, never more than a worker's fair share of it: nothing is held back to
fill a task, and no worker idles because another one got everything.  A task of several schedules
that has no reply (its worker died too often) says nothing about any one of them: all are asked
again, each in a task of its own, and only then is one called guilty.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from s3search.cluster.pool import TASKS_PER_WORKER, Outcome, Task, WorkerPool
from s3search.evaluation.record import (
    Description,
    Evaluation,
    EvaluationRequest,
    Population,
    PopulationRequest,
    Reply,
    Request,
    Unmeasured,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationSize:
    """How many evaluations one task may have: ``fixed``, or as many as ``rows`` images hold."""

    fixed: int | None = None
    rows: int = 1

    @staticmethod
    def of(asked: int | Literal["auto"], description: Description) -> "PopulationSize":
        """As the study file asks.

        Automatic, it is what fills one batch of a GPU; a CPU works as fast on one schedule.
        """
        if asked != "auto":
            return PopulationSize(fixed=asked)
        return PopulationSize(rows=1 if description.device == "cpu" else description.batch_size)

    def most(self, request: EvaluationRequest) -> int:
        """Evaluations like this one in one task."""
        if self.fixed is not None:
            return self.fixed
        first_look = request.race[0][0] if request.race else request.n_images
        return max(1, self.rows // first_look)


class Packer:
    """Makes tasks of the evaluations that wait, and takes their outcomes apart again."""

    def __init__(self, pool: WorkerPool[Request, Reply], size: PopulationSize) -> None:
        self._pool, self._size = pool, size
        self._members: dict[str, tuple[EvaluationRequest, ...]] = {}  # of tasks under way
        self._alone: set[str] = set()  # schedules that shared a task without a reply

    def is_urgent(self, waiting: deque[EvaluationRequest]) -> bool:
        """Whether tasks should be made of them now, though the search may be about to add more:
        they fill one, or a worker has nothing to do.
        """
        if not waiting:
            return False
        pool = self._pool
        return len(waiting) >= self._size.most(waiting[0]) or pool.n_pending < pool.n_workers

    def submit(self, waiting: deque[EvaluationRequest], *, are_last: bool) -> None:
        """Hands as many of them to the pool as it has room for, in order.

        ``are_last``: the search adds none before all of them are answered, so that the last ones
        are spread over all workers.
        """
        pool = self._pool
        while waiting and pool.has_room:
            room = TASKS_PER_WORKER * pool.n_workers - pool.n_pending
            shares = max(1, room, pool.n_workers if are_last else 1)
            members = self._next(waiting, math.ceil(len(waiting) / shares))
            if len(members) == 1:
                pool.submit(Task(id=members[0].schedule.id, request=members[0]))
                continue
            task_id = f"{members[0].schedule.id} and {len(members) - 1} more"
            self._members[task_id] = members
            request = PopulationRequest(requests=members)
            pool.submit(Task(id=task_id, request=request, n_parts=len(members)))

    def apart(
        self, outcome: Outcome[Reply]
    ) -> tuple[list[Outcome[Reply]], tuple[EvaluationRequest, ...]]:
        """The outcomes of single evaluations, by schedule id, and who is to be asked again."""
        members = self._members.pop(outcome.task_id, None)
        if members is None:
            return [outcome], ()
        if not isinstance(outcome.reply, Population):
            self._alone |= {request.schedule.id for request in members}
            return [], members
        pairs = zip(members, outcome.reply.members, strict=True)
        return [_outcome(request, member, outcome.worker) for request, member in pairs], ()

    def _next(
        self, waiting: deque[EvaluationRequest], share: int
    ) -> tuple[EvaluationRequest, ...]:
        members = [waiting.popleft()]
        if members[0].schedule.id not in self._alone:
            most = min(share, self._size.most(members[0]))
            while len(members) < most and waiting[0].schedule.id not in self._alone:
                members.append(waiting.popleft())
        return tuple(members)


def _outcome(
    request: EvaluationRequest, member: Evaluation | Unmeasured, worker: str
) -> Outcome[Reply]:
    found, failure = (member, None) if isinstance(member, Evaluation) else (None, member.failure)
    return Outcome(
        task_id=request.schedule.id,
        reply=found,
        error=failure,
        worker=worker,
        seconds=member.seconds,
    )
