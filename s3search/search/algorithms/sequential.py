"""Runs a proposer in a lab: some proposals under way, told in the order of their numbers.

What a person vetoes is to the proposer a schedule that was measured in vain.  When the vetoes
have changed, before a proposal that no earlier run made, the proposer is made anew and told all
that it had been told, in the same order, without the values of the vetoed.  So the next proposals
are those of a search in which they never worked; what is under way or recorded is kept as it is,
and a search that is resumed goes on as one that was not interrupted.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from s3search.search.lab import Lab, Trial
from s3search.search.proposer import Observation, Proposal, Proposer, StoredObservation

_UnderWay = Proposal | StoredObservation


class Sequential:
    """The seeds' and ``evaluations`` further proposals, ``batch`` of them under way.

    Proposal k is made when the results up to k - ``batch`` have been told, and no others: so the
    proposals do not depend on the workers, which always find one waiting.  ``make`` makes the
    proposer, the same every time.
    """

    def __init__(
        self,
        make: Callable[[], Proposer],
        *,
        n_seeds: int,
        evaluations: int | None,
        batch: int,
    ) -> None:
        self._make, self._proposer = make, make()
        self._n_seeds = n_seeds
        self._last = None if evaluations is None else n_seeds + evaluations
        self._batch = batch
        self._told: dict[str, Observation | StoredObservation] = {}
        self._vetoed: frozenset[str] = frozenset()  # of the told

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
        told: Observation | StoredObservation
        if isinstance(done, Proposal):
            value = lab.wait(done.schedule).value
            told = Observation(number=done.number, schedule=done.schedule, value=value)
        else:
            told = done
        if told.id not in self._told:  # a space of few schedules repeats itself
            self._told[told.id] = told
            self._proposer.tell(told)

    def _respect(self, vetoed: frozenset[str]) -> None:
        """Makes the proposer one that was told nothing good of the vetoed."""
        vetoed &= self._told.keys()
        if vetoed == self._vetoed:
            return
        self._vetoed, self._proposer = vetoed, self._make()
        for schedule_id, told in self._told.items():
            is_vetoed = schedule_id in vetoed
            self._proposer.tell(replace(told, value=None) if is_vetoed else told)

    def _next(self, lab: Lab, number: int, under_way: deque[_UnderWay]) -> list[_UnderWay]:
        """As many as there is room for beside those under way; none when the budget is spent."""
        found: list[_UnderWay] = []
        for k in range(number, number + self._batch - len(under_way)):
            known = lab.observed(k) or lab.recorded(k)
            if known is None:
                if self._is_spent(lab, k):
                    break
                pending = [each.schedule for each in (*under_way, *found)]
                self._respect(lab.vetoed())
                known = self._proposer.propose(k, pending)
            found.append(known)
        return found

    def _is_spent(self, lab: Lab, number: int) -> bool:
        if number < self._n_seeds:
            return False
        return lab.is_over() or (self._last is not None and number >= self._last)
