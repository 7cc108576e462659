"""Runs a proposer in a lab: some proposals under way, told in the order of their numbers."""

from collections import deque

from s3search.search.lab import Lab, Trial
from s3search.search.proposer import Observation, Proposal, Proposer, StoredObservation, Told

_UnderWay = Proposal | StoredObservation


class Sequential:
    """The seeds' and ``evaluations`` further proposals, ``batch`` of them under way.

    Proposal k is made when the results up to k - ``batch`` have been told, and no others: so the
    proposals do not depend on the workers, which always find one waiting.
    """

    def __init__(
        self, proposer: Proposer, *, n_seeds: int, evaluations: int | None, batch: int
    ) -> None:
        self._proposer = proposer
        self._n_seeds = n_seeds
        self._last = None if evaluations is None else n_seeds + evaluations
        self._batch = batch
        self._told: set[str] = set()

    @property
    def total(self) -> int | None:
        """Measurements in all, None where the budget is time."""
        return self._last

    def run(self, lab: Lab) -> None:
        """Searches until the budget is spent."""
        number = 0
        under_way: deque[_UnderWay] = deque()
        while True:
            begun = self._next(lab, number, under_way)
            lab.begin(
                [
                    Trial(schedule=p.schedule, origin=p.origin, parents=p.parents, number=p.number)
                    for p in begun
                    if isinstance(p, Proposal)
                ]
            )
            number += len(begun)
            under_way.extend(begun)
            if not under_way:
                return
            self._tell(lab, under_way.popleft())

    def _tell(self, lab: Lab, done: _UnderWay) -> None:
        told: Told
        if isinstance(done, Proposal):
            value = lab.wait(done.schedule).value
            told = Observation(number=done.number, schedule=done.schedule, value=value)
        else:
            told = done
        if told.id not in self._told:  # a space of few schedules repeats itself
            self._told.add(told.id)
            self._proposer.tell(told)

    def _next(self, lab: Lab, number: int, under_way: deque[_UnderWay]) -> list[_UnderWay]:
        """As many as there is room for beside those under way; none when the budget is spent."""
        found: list[_UnderWay] = []
        for k in range(number, number + self._batch - len(under_way)):
            known = lab.observed(k) or lab.recorded(k)
            if known is None:
                if self._is_spent(lab, k):
                    break
                pending = [each.schedule for each in (*under_way, *found)]
                known = self._proposer.propose(k, pending)
            found.append(known)
        return found

    def _is_spent(self, lab: Lab, number: int) -> bool:
        if number < self._n_seeds:
            return False
        return lab.is_over() or (self._last is not None and number >= self._last)
