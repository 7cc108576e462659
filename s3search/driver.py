"""The search loop: ask, submit, collect, record, tell.

    searching    proposals are recorded, evaluated at the search rung by the pool, recorded, told
    to the proposer
    validating   the finalists and the best baselines are measured again on held-out noise
    done         what is exported is chosen among the validated

Nothing is only in memory: a proposal is in the database before a worker sees it, a result before
the proposer hears of it.  A killed driver starts again by replaying the results to a fresh
proposer, whose proposals depend on the seed, their number and those results alone.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from s3search.cluster.pool import Outcome, Task, WorkerPool
from s3search.errors import EvaluationFailed, S3SearchError, StudyConflict
from s3search.evaluation.record import (
    DescribeRequest,
    Description,
    Evaluation,
    EvaluationRequest,
    ImagesRequest,
    Reply,
    Request,
    Rung,
)
from s3search.schedules.schedule import Schedule
from s3search.search.evolution import distinct
from s3search.search.proposer import Observation, Proposal, Proposer
from s3search.search.space import SearchSpace
from s3search.study.algorithms import baseline_seeds, given_seeds, make_proposer
from s3search.study.config import StudyConfig
from s3search.study.frame import evaluations_frame, finalists
from s3search.study.frame import validated as validated_of
from s3search.study.store import Result, Spent, StudyStore

Pool = WorkerPool[Request, Reply]

_HOPELESS = 10  # so many failures in a row are the model's or the machine's, not a schedule's


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a person who waits wants to know."""

    stage: str  # "baselines", "search", "validation"
    done: int
    total: int | None  # None when the budget is time
    best: dict[int, float]  # by NFE, of searched schedules, at the search rung
    best_baseline: dict[int, float]
    failed: int
    images_per_second: float
    seconds_left: float | None


Report = Callable[[Progress], None]


def describe(pool: Pool) -> Description:
    """What the pool's workers have loaded."""
    reply = _ask(pool, "describe", DescribeRequest())
    assert isinstance(reply, Description)
    return reply


def images(pool: Pool, request: ImagesRequest) -> Reply:
    """Images of one schedule, made by one worker."""
    return _ask(pool, f"images {request.schedule.id}", request)


def evaluate(pool: Pool, request: EvaluationRequest) -> Evaluation:
    """One evaluation outside any study; raises `EvaluationFailed` with the reason."""
    reply = _ask(pool, f"evaluate {request.schedule.id}", request)
    assert isinstance(reply, Evaluation)
    return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a search starts from; made before anything is written, so that bad input leaves no
    trace.
    """

    description: Description
    proposer: Proposer
    n_baselines: int


def prepare(config: StudyConfig, space: SearchSpace, pool: Pool) -> Start:
    """Asks the workers what they loaded and makes the proposer; raises for anything wrong."""
    description = describe(pool)
    if description.mean_image is not None:
        space = space.with_mean_image(description.mean_image)
    if description.ems is not None:
        space = space.with_ems(description.ems)
    if description.gaussian is not None:
        space = space.with_gaussian(description.gaussian, description.process)
    published = baseline_seeds(config, description.process)
    seeds = distinct({**published, **given_seeds(config, description)})
    proposer = make_proposer(config, space, description.process, seeds)
    return Start(description=description, proposer=proposer, n_baselines=len(seeds))


class Driver:
    """Runs one study to its end; make it, call `run`, and again after an interruption."""

    def __init__(self, store: StudyStore, pool: Pool, start: Start, report: Report) -> None:
        self._store = store
        self._pool = pool
        self._report = report
        self._config = store.config
        self._proposer = start.proposer
        self._n_baselines = start.n_baselines
        self._check_unchanged(start.description)
        self._began = time.monotonic()
        self._images_done = 0
        self._failed = 0
        self._failed_in_a_row = 0
        self._proposals: dict[str, Proposal] = {}
        self._values: dict[str, float | None] = {}
        self._best: dict[int, float] = {}
        self._best_baseline: dict[int, float] = {}

    def run(self) -> None:
        """Searches until the budget is spent, then validates; every state is in the database."""
        try:
            self._store.set_state("searching")
            self._search()
            self._store.set_state("validating")
            self._validate()
            self._store.set_state("done")
        except KeyboardInterrupt:
            self._store.set_state("interrupted")
            raise
        except S3SearchError:
            self._store.set_state("failed")
            raise

    # -- searching -------------------------------------------------------------------------

    def _search(self) -> None:
        recorded = self._store.proposals()
        for proposal in recorded:
            self._proposals.setdefault(proposal.schedule.id, proposal)
        for schedule_id, value in self._store.search_values():
            self._tell(self._proposals[schedule_id], value)
        self._mirror_missing()
        waiting = [p for i, p in self._proposals.items() if i not in self._values]
        number = len(recorded)
        pending: dict[str, Proposal] = {}
        while True:
            while self._pool.has_room:
                if waiting:
                    proposal = waiting.pop(0)
                elif self._may_propose(number):
                    schedules = [p.schedule for p in pending.values()]
                    proposal = self._proposer.propose(number, schedules)
                    self._store.add_proposal(proposal)
                    self._proposals.setdefault(proposal.schedule.id, proposal)
                    number += 1
                else:
                    break
                if proposal.schedule.id in self._values or proposal.schedule.id in pending:
                    continue  # a space of few schedules repeats itself; the value is known
                pending[proposal.schedule.id] = proposal
                self._submit(proposal.schedule, Rung.SEARCH)
            if not pending:
                return
            for outcome in self._pool.collect():
                proposal = pending.pop(outcome.task_id)
                self._record_search(proposal, outcome)

    def _may_propose(self, number: int) -> bool:
        budget = self._config.search
        if number < self._n_baselines:
            return True
        searched = number - self._n_baselines
        if budget.evaluations is not None and searched >= budget.evaluations:
            return False
        elapsed = time.monotonic() - self._began
        if budget.wall_seconds is not None and elapsed >= budget.wall_seconds:
            return False
        return budget.gpu_seconds is None or self._store.seconds_spent() < budget.gpu_seconds

    def _record_search(self, proposal: Proposal, outcome: Outcome[Reply]) -> None:
        result = self._result(self._request(proposal.schedule, Rung.SEARCH), outcome)
        if self._store.add_result(result):
            self._store.add_trial(proposal, result)
        value = None if result.evaluation is None else result.evaluation.value
        self._tell(proposal, value)
        self._failed_in_a_row = 0 if value is not None else self._failed_in_a_row + 1
        if self._failed_in_a_row == _HOPELESS:
            raise EvaluationFailed(f"{_HOPELESS} evaluations in a row failed: {result.error}")
        self._tell_progress("baselines" if self._in_baselines else "search")

    def _tell(self, proposal: Proposal, value: float | None) -> None:
        """Tells the proposer, and keeps the best of both sides for the progress line."""
        schedule = proposal.schedule
        self._values[schedule.id] = value
        self._proposer.tell(Observation(number=proposal.number, schedule=schedule, value=value))
        if value is not None:
            is_baseline = proposal.origin.startswith("baseline")
            side = self._best_baseline if is_baseline else self._best
            side[schedule.nfe] = min(value, side.get(schedule.nfe, math.inf))

    def _mirror_missing(self) -> None:
        """Makes the Optuna trials that a kill prevented."""
        mirrored = self._store.mirrored_numbers()
        if len(mirrored) == len(self._values):
            return
        for result in self._store.search_results():
            proposal = self._proposals.get(result.request.schedule.id)
            if proposal is not None and proposal.number not in mirrored:
                self._store.add_trial(proposal, result)

    # -- validating ------------------------------------------------------------------------

    def _validate(self) -> None:
        frame = evaluations_frame(self._store)
        chosen = finalists(frame, self._config)
        of_this_size = frame["n_images"] == self._config.validation.n_images
        validated = frame[(frame["rung"] == Rung.VALIDATION.value) & of_this_size]
        done = set(validated["schedule_id"])
        waiting = [self._store.schedule(i) for i in chosen if i not in done]
        total = len(chosen)
        pending: dict[str, Schedule] = {}
        while waiting or pending:
            while waiting and self._pool.has_room:
                schedule = waiting.pop(0)
                pending[schedule.id] = schedule
                self._submit(schedule, Rung.VALIDATION)
            for outcome in self._pool.collect():
                request = self._request(pending.pop(outcome.task_id), Rung.VALIDATION)
                self._store.add_result(self._result(request, outcome))
            self._tell_progress("validation", total - len(waiting) - len(pending), total)
        if chosen and not validated_of(evaluations_frame(self._store), self._config):
            raise EvaluationFailed(
                "no finalist could be validated, so there is nothing to export; "
                "s3search status shows how many evaluations failed"
            )

    # -- both ------------------------------------------------------------------------------

    def _request(self, schedule: Schedule, rung: Rung) -> EvaluationRequest:
        config = self._config
        searching = rung is Rung.SEARCH
        return EvaluationRequest(
            schedule=schedule,
            rung=rung,
            n_images=config.search.n_images if searching else config.validation.n_images,
            noise_seed=config.search_noise_seed if searching else config.validation_noise_seed,
            block_images=None if searching else config.search.n_images,
        )

    def _submit(self, schedule: Schedule, rung: Rung) -> None:
        self._pool.submit(Task(id=schedule.id, request=self._request(schedule, rung)))

    def _result(self, request: EvaluationRequest, outcome: Outcome[Reply]) -> Result:
        spent = Spent(worker=outcome.worker, seconds=outcome.seconds)
        error = None if outcome.error is None else f"{outcome.error.kind}: {outcome.error.message}"
        evaluation = outcome.reply if isinstance(outcome.reply, Evaluation) else None
        if evaluation is not None and not math.isfinite(evaluation.value):
            error, evaluation = f"EvaluationFailed: the distance is {evaluation.value}", None
        self._images_done += request.n_images
        self._failed += evaluation is None
        return Result(request=request, evaluation=evaluation, error=error, spent=spent)

    @property
    def _in_baselines(self) -> bool:
        return len(self._values) < self._n_baselines

    def _tell_progress(
        self, stage: str, done: int | None = None, total: int | None = None
    ) -> None:
        if done is None:
            done = len(self._values)
            budget = self._config.search.evaluations
            total = None if budget is None else budget + self._n_baselines
        elapsed = time.monotonic() - self._began
        rate = self._images_done / elapsed
        left = None
        if total is not None and rate > 0:
            searching = stage != "validation"
            table = self._config.search if searching else self._config.validation
            left = (total - done) * table.n_images / rate
        self._report(
            Progress(
                stage=stage,
                done=done,
                total=total,
                best=dict(self._best),
                best_baseline=dict(self._best_baseline),
                failed=self._failed,
                images_per_second=rate,
                seconds_left=left,
            )
        )

    def _check_unchanged(self, description: Description) -> None:
        found = self._store.measured_with()
        now = (description.model_fingerprint, description.reference_digest, description.extractor)
        if found is not None and found != now:
            raise StudyConflict(
                f"study {self._store.name!r} was measured with model, reference and extractor "
                f"{found}, the workers have {now}; results would not be comparable: "
                "give the new study another name"
            )


def _ask(pool: Pool, task_id: str, request: Request) -> Reply:
    """One request to an otherwise idle pool."""
    pool.submit(Task(id=task_id, request=request))
    outcomes: Iterable[Outcome[Reply]] = pool.collect()
    outcome = next(iter(outcomes))
    if outcome.error is not None:
        raise EvaluationFailed(f"{outcome.error.kind}: {outcome.error.message}")
    assert outcome.reply is not None
    return outcome.reply
