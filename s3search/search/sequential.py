"""Runs a proposer in a lab: some proposals at a time, told in the order of their numbers."""

from s3search.search.lab import Lab, Trial
from s3search.search.proposer import Observation, Proposal, Proposer


class Sequential:
    """The seeds' and ``evaluations`` further proposals, ``batch`` decided on at once.

    The results of a batch are told together, so the proposals do not depend on the workers.
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
        while batch := self._next(lab, number):
            number += len(batch)
            measured = lab.measure(
                [
                    Trial(schedule=p.schedule, origin=p.origin, parents=p.parents, number=p.number)
                    for p in batch
                ]
            )
            for proposal, result in zip(batch, measured, strict=True):
                schedule = proposal.schedule
                if schedule.id not in self._told:  # a space of few schedules repeats itself
                    self._told.add(schedule.id)
                    self._proposer.tell(
                        Observation(number=proposal.number, schedule=schedule, value=result.value)
                    )

    def _next(self, lab: Lab, number: int) -> list[Proposal]:
        batch: list[Proposal] = []
        for k in range(number, number + self._batch):
            proposal = lab.recorded(k)
            if proposal is None:
                if self._is_spent(lab, k):
                    break
                proposal = self._proposer.propose(k, [p.schedule for p in batch])
            batch.append(proposal)
        return batch

    def _is_spent(self, lab: Lab, number: int) -> bool:
        if number < self._n_seeds:
            return False
        return lab.is_over() or (self._last is not None and number >= self._last)
