"""Several questions measured by one worker with shared network calls.

Requests of the same noise whose schedules leave the network as it is are stacked: every batch of
noise goes through all of them at once, and whoever fails or is stopped early is not in the next
batch.  A schedule that patches the network, or is validated, is measured alone.  If a stack fails
as a whole (a plug-in's exception), each of its schedules is measured alone, so that only the one
at fault has failed.

The seconds of a stack are shared by the network calls that its schedules made; what belongs to no
schedule is shared equally.  So they sum up to what the worker spent.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, Failure, S3SearchError, failure_from_exception
from s3search.evaluation.measurement import Observed
from s3search.evaluation.metric import Metric, compares_finely
from s3search.evaluation.sampling import Sampler
from s3search.metrics.samples import Array
from s3search.search.questions import Measure, Measurement, Rung
from s3search.solvers.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What an evaluator lends to its populations."""

    sampler: Sampler
    metric: Metric
    guards: tuple[Metric, ...]
    alone: Callable[[Measure], Measurement]
    finished: Callable[[Observed], Measurement]  # times aside
    network_batches: Callable[[Plan], int]


class _Stacked:
    """One question of a stack."""

    def __init__(self, question: Measure, plan: Plan, measuring: Measuring) -> None:
        self.plan = plan
        self.observed = Observed(question, measuring.metric, measuring.guards)
        self.failure: Failure | None = None
        self.network_calls = 0
        self._each = measuring.network_batches(plan)

    @property
    def is_under_way(self) -> bool:
        return self.failure is None and not self.observed.has_stopped

    def made(self, images: Tensor) -> bool:
        """Counts images; whether they may be looked at."""
        self.network_calls += len(images) * self._each
        if not torch.isfinite(images).all():
            self.fails(EvaluationFailed("the images are not finite"))
        return self.failure is None

    def takes(self, seen: Array, by_guards: Sequence[Array]) -> None:
        try:
            self.observed.takes(seen)
            self.observed.guards_take(by_guards)
        except EvaluationFailed as error:
            self.fails(error)

    def fails(self, error: Exception) -> None:
        self.failure = failure_from_exception(error)

    def member(self, finished: Callable[[Observed], Measurement]) -> Measurement:
        """What became of it, times aside."""
        if self.failure is None:
            try:
                return finished(self.observed)
            except EvaluationFailed as error:
                self.fails(error)
        assert self.failure is not None
        return _failed(self.observed.question, self.failure, 0.0)


def measure_population(
    questions: Sequence[Measure], measuring: Measuring
) -> tuple[Measurement, ...]:
    """What became of each question, in order."""
    began = time.perf_counter()
    found: dict[int, Measurement] = {}
    for stack in _stacks(questions, measuring):
        try:
            found |= _measured_together(stack, measuring)
        except Exception:  # "this trial failed", as in the pool: which one is found out below
            continue
    for i, question in enumerate(questions):
        if i not in found:
            found[i] = _measured_alone(question, measuring)
    rest = time.perf_counter() - began - sum(member.seconds for member in found.values())
    return tuple(
        replace(found[i], seconds=found[i].seconds + rest / len(questions))
        for i in range(len(questions))
    )


def _stacks(questions: Sequence[Measure], measuring: Measuring) -> list[dict[int, _Stacked]]:
    """Requests that can share network calls, by their place; two at least in each stack."""
    stacks: dict[tuple[object, ...], dict[int, _Stacked]] = {}
    for i, question in enumerate(questions):
        if question.schedule.model_patch is not None or question.rung is Rung.VALIDATION:
            continue
        try:
            plan = measuring.sampler.plan(question.schedule)
        except S3SearchError:  # it fails again alone, and says why
            continue
        key = (question.noise_seed, question.n_images)
        stacks.setdefault(key, {})[i] = _Stacked(question, plan, measuring)
    found = [stack for stack in stacks.values() if len(stack) > 1]
    plans = [each.plan for stack in found for each in stack.values()]
    if not found or not measuring.sampler.can_stack(plans, questions[0].noise_seed):
        return []
    return found


def _measured_alone(question: Measure, measuring: Measuring) -> Measurement:
    began = time.perf_counter()
    try:
        return measuring.alone(question)
    except Exception as error:  # "this trial failed", as in the pool
        seconds = time.perf_counter() - began
        return _failed(question, failure_from_exception(error), seconds)


def _failed(question: Measure, failure: Failure, seconds: float) -> Measurement:
    return Measurement(question=question, error=failure.sentence, seconds=seconds)


def _measured_together(stack: dict[int, _Stacked], measuring: Measuring) -> dict[int, Measurement]:
    began, sampling = time.perf_counter(), 0.0
    each = list(stack.values())
    question = each[0].observed.question
    cuts = sorted({n for one in each for n, _ in one.observed.question.thresholds})
    solves = compares_finely(measuring.metric, *measuring.guards)
    batches = measuring.sampler.batches(
        question.n_images, question.noise_seed, cuts, with_targets=True, solves=solves
    )
    for batch in batches:
        active = [one for one in each if one.is_under_way]
        if not active:
            break
        before = time.perf_counter()
        plans = [one.plan for one in active]
        images = measuring.sampler.images_of_many(plans, batch)
        seen = [(one, own) for one, own in zip(active, images, strict=True) if one.made(own)]
        sampling += time.perf_counter() - before  # looking at the images waited for the device
        if seen:
            together = torch.cat([own for _, own in seen])
            condition = {k: torch.cat([v] * len(seen)) for k, v in batch.condition.items()}
            by_each = [
                np.split(own.seen(together, condition), len(seen))
                for own in (measuring.metric, *measuring.guards)
            ]
            for (one, _), (own, *by_guards) in zip(seen, zip(*by_each, strict=True), strict=True):
                one.takes(own, by_guards)
    members = {i: one.member(measuring.finished) for i, one in stack.items()}
    seconds = time.perf_counter() - began
    calls = sum(one.network_calls for one in each)
    return {
        i: _with_seconds(member, stack[i].network_calls / calls, seconds, sampling)
        for i, member in members.items()
    }


def _with_seconds(
    member: Measurement, share: float, seconds: float, sampling: float
) -> Measurement:
    if member.estimate is None:
        return replace(member, seconds=share * seconds)
    return replace(member, seconds=share * seconds, sampling_seconds=share * sampling)
