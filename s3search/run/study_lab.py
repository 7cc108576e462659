"""The lab of a study: asks the pool, and has every question and answer in the database.

A proposal is in the database before a worker sees it, an answer before the search hears of it.
What was answered in an earlier run of the study is not asked again.
"""

import functools
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from s3search.cluster.packing import Packer, PopulationSize
from s3search.cluster.pool import Outcome, Task, WorkerPool, outcomes_of
from s3search.errors import EvaluationFailed
from s3search.evaluation.polish.polishing import PolishSettings
from s3search.evaluation.proxies import ProxySettings
from s3search.evaluation.record import (
    Evaluation,
    EvaluationRequest,
    FloorRequest,
    Polished,
    PolishRequest,
    ProxyRequest,
    ProxyScores,
    Reply,
    Request,
    Rung,
)
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import SEED
from s3search.search.early_stopping import checkpoints
from s3search.search.lab import Array, Measured, Price, Trial
from s3search.search.ladder import LadderRung
from s3search.search.proposer import Proposal, StoredObservation
from s3search.study.database.rows import Job, Result, Searched, Spent, searched
from s3search.study.database.store import StudyStore
from s3search.study.extensions import Extension
from s3search.study.results.progress import Quality, Spend, quality_of
from s3search.study.results.watching import spend_of
from s3search.study.veto_watch import VetoWatch

Pool = WorkerPool[Request, Reply]

_HOPELESS = 10  # so many failures in a row are the model's or the machine's, not a schedule's
_SCHEDULES_PER_JOB = 32  # a fixed number, so that the questions do not depend on the workers
_TRACED_PER_JOB = 4
_PROPOSALS_PER_PAGE = 500
_MOST_TRAJECTORY_IMAGES = 64


@dataclass(slots=True)
class Tally:
    """What a person who waits wants to know, kept while the lab works."""

    began: float
    images: float = 0.0  # made now, of whatever rung
    spent: float = 0.0  # images of the search, earlier runs included
    failed: int = 0


class StudyLab:
    """A `s3search.search.lab.Lab` for one study and one pool."""

    def __init__(
        self,
        store: StudyStore,
        pool: Pool,
        report: Callable[[str], None],
        *,
        population: PopulationSize | None = None,
        extension: Extension | None = None,
    ) -> None:
        self._store, self._pool, self._report = store, pool, report
        self._packer = Packer(pool, population or PopulationSize(fixed=1))
        # proposals of earlier versions of the space have numbers below this, and cost nothing now
        self._offset = 0 if extension is None else extension.first_number
        self._spent_before = 0.0 if extension is None else extension.spent
        self._config = store.config
        self.tally = Tally(began=time.monotonic())
        self.best: dict[int, float] = {}
        self.best_baseline: dict[int, float] = {}
        self.spend = spend_of(store)  # by rung and kind of job
        self.predictor: dict[int, Quality] = {}  # by NFE
        self._failed_in_a_row = 0
        self._numbers: set[int] = set()
        self._first: dict[str, tuple[int, str]] = {}  # number and origin of a schedule's proposal
        self._rows: dict[int, Any] = {}  # of the proposals of earlier runs
        self._page: dict[int, Proposal] = {}  # some of them, read as the search asks for them
        self._known: dict[str, Searched] = {}
        self._begun: dict[str, EvaluationRequest] = {}
        self._waiting: deque[EvaluationRequest] = deque()  # of these, what no worker has yet
        self._are_last = False  # nothing is begun before all that is under way is known
        self._vetoes = VetoWatch(store)
        self._vetoed = self._vetoes.now()  # when `best` was last taken
        # of all that the search, of this version of the space, has begun and rescored
        self._point = hashlib.sha256(str(self._offset).encode())
        self._recall()

    @property
    def n_images(self) -> int:
        """Images of a whole measurement."""
        return self._config.search.n_images

    @property
    def worker_seconds(self) -> float:
        """Of all that was measured, failures and earlier runs included: the sum of the database,
        kept here, since it is asked for after every result.
        """
        return sum(each.seconds for each in self.spend.values())

    def budget(self) -> float:
        """Images, from the number of evaluations, else from the time and the rate so far."""
        return self._whole_budget() - self._spent_before * self.n_images

    def _whole_budget(self) -> float:
        search = self._config.search
        if search.evaluations is not None:
            return float(search.evaluations * search.n_images)
        worked = max(self.worker_seconds, 1e-9)
        if search.gpu_seconds is not None and search.wall_seconds is None:
            return self.tally.spent / worked * search.gpu_seconds
        assert search.wall_seconds is not None
        elapsed = max(time.monotonic() - self.tally.began, 1e-9)
        made = self.tally.images
        rate = made / elapsed if made else self.tally.spent / worked  # nothing made: recalled
        return self.tally.spent + rate * max(search.wall_seconds - elapsed, 0.0)

    def is_over(self) -> bool:
        """Whether the wall or worker seconds are spent."""
        search = self._config.search
        elapsed = time.monotonic() - self.tally.began
        if search.wall_seconds is not None and elapsed >= search.wall_seconds:
            return True
        limit = search.gpu_seconds
        return limit is not None and self.worker_seconds >= limit

    def recorded(self, number: int) -> Proposal | None:
        """The proposal of this number if an earlier run made it."""
        stored = number + self._offset
        if stored not in self._numbers:
            return None
        if stored not in self._page:
            read = self._store.proposals(first=stored, n=_PROPOSALS_PER_PAGE)
            self._page = {proposal.number: proposal for proposal in read}
        return replace(self._page[stored], number=number)

    def vetoed(self) -> frozenset[str]:
        """What a person has rejected, at most a second ago."""
        found = self._vetoes.now()
        if found != self._vetoed:
            self._vetoed = found
            self.best.clear()
            self.best_baseline.clear()
            for known in self._known.values():
                self._rank(known)
        return found

    def vetoed_here(self) -> frozenset[str]:
        """The same, or what was answered when an earlier run had begun and rescored as much."""
        self.vetoed()
        return self._vetoes.told_at(self._point.hexdigest()[:32])

    def observed(self, number: int) -> StoredObservation | None:
        """The same if its result is known and the search itself made it, its schedule unread."""
        row = self._rows.get(number + self._offset)
        if row is None or row.plan_key is None or row.schedule_id not in self._known:
            return None
        if row.origin.startswith(("baseline", SEED)):
            return None
        return StoredObservation(
            number=number,
            id=row.schedule_id,
            nfe=row.nfe,
            key=bytes.fromhex(row.plan_key),
            value=self._known[row.schedule_id].value,
            read=functools.partial(self._store.schedule, row.schedule_id),
        )

    def measure(self, trials: Sequence[Trial]) -> list[Measured]:
        """Measures on the search's noise; raises `EvaluationFailed` when nothing works."""
        self._are_last = True
        try:
            self.begin(trials)
            return [self.wait(trial.schedule) for trial in trials]
        finally:
            self._are_last = False

    def begin(self, trials: Sequence[Trial]) -> None:
        """Hands trials to the workers as these get free."""
        self._record(trials)
        for trial in trials:
            schedule_id = trial.schedule.id
            self._point.update(schedule_id.encode())
            if schedule_id not in self._known and schedule_id not in self._begun:
                request = self._request(trial.schedule, Rung.SEARCH, trial.race)
                self._begun[schedule_id] = request
                self._waiting.append(request)
        if self._packer.is_urgent(self._waiting):
            self._submit()

    def wait(self, schedule: Schedule) -> Measured:
        """What became of a schedule that was begun; raises `EvaluationFailed` as `measure`."""
        while schedule.id not in self._known:
            self._submit()
            for each in self._pool.collect():
                outcomes, again = self._packer.apart(each)
                self._waiting.extendleft(reversed(again))
                for outcome in outcomes:
                    self._record_result(self._begun.pop(outcome.task_id), outcome)
        known = self._known[schedule.id]
        is_paid = self._first[schedule.id][0] < self._offset
        return Measured(
            schedule=schedule,
            value=known.value,
            n_images=0 if is_paid else known.n_images,
            path=known.path,
        )

    def rescore(self, schedules: Sequence[Schedule], n_images: int) -> list[float | None]:
        """Distances on noise of the finals' own."""
        found = self._store.values(Rung.FINALS, n_images)
        requests = {
            s.id: EvaluationRequest(
                schedule=s,
                rung=Rung.FINALS,
                n_images=n_images,
                noise_seed=self._config.finals_noise_seed,
            )
            for s in schedules
            if s.id not in found
        }
        self._store.mirror.flush()  # results of the search come no more for a while
        for schedule_id, outcome in self._asked(requests):
            result = self.result(requests[schedule_id], outcome)
            self._store.add_result(result)
            own = result.evaluation
            found[schedule_id] = None if own is None else own.value
            self.tally.spent += n_images
            self._report("finals")
        for schedule in schedules:
            self._point.update(schedule.id.encode())
        return [found[s.id] for s in schedules]

    def scores(self, proxy: str, schedules: Sequence[Schedule]) -> Array:
        """One proxy's scores; all nan where it failed as a whole."""
        size = _TRACED_PER_JOB if proxy == LadderRung.TRAJECTORY else _SCHEDULES_PER_JOB
        chunks = [tuple(schedules[i : i + size]) for i in range(0, len(schedules), size)]
        requests: list[Request] = [
            ProxyRequest(
                proxy=proxy,
                schedules=chunk,
                n_images=self._trajectory_images,
                noise_seed=self._config.trajectory_noise_seed,
            )
            for chunk in chunks
        ]
        digests = [_digest(proxy, *(s.id for s in chunk)) for chunk in chunks]
        answers = self._jobs(proxy, digests, requests)
        nothing = [[math.nan] * len(chunk) for chunk in chunks]
        rows = [n if a is None else a for a, n in zip(answers, nothing, strict=True)]
        return np.array([math.nan if v is None else v for row in rows for v in row])

    def price(self, proxy: str, nfe: int) -> Price:
        """Nothing for what makes no network call; of the trajectory also the fine solve."""
        if proxy != LadderRung.TRAJECTORY:
            return Price()
        images = self._trajectory_images
        return Price(images=images, once=images * ProxySettings().fine_nfe / nfe)

    def polish(
        self, schedules: Sequence[Schedule], *, iterations: int, n_images: int, seed: int
    ) -> list[Schedule | None]:
        """The schedules after gradient descent.

        A trajectory's fine solves are paid for with iterations, so that either loss costs the
        same.
        """
        keep, loss = self._config.search.keep_invariants, self._config.search.polish_loss
        asked: tuple[object, ...] = (iterations, n_images, seed, keep)
        if loss == "trajectory" and schedules:
            asked = (*asked, loss)
            settings = PolishSettings()
            solves = settings.target_batches * settings.fine_nfe / schedules[0].nfe
            iterations = max(1, round(iterations - solves / 2))  # forward and backward are two
        requests: list[Request] = [
            PolishRequest(
                schedule=schedule,
                iterations=iterations,
                n_images=n_images,
                keep_invariants=keep,
                loss=loss,
                noise_seed=self._config.polish_noise_seed + seed,
            )
            for schedule in schedules
        ]
        digests = [_digest("polish", s.id, *asked) for s in schedules]
        answers = self._jobs("polish", digests, requests)
        return [None if a is None else Schedule.from_dict(a["schedule"]) for a in answers]

    def floor(self) -> None:
        """Asks once per study, metric and number of images what real images have for a
        distance.
        """
        config = self._config
        request = FloorRequest(
            n_images=config.validation.n_images, seed=config.validation_noise_seed
        )
        metrics = (config.metric, config.validation.metric)
        named = [None if each is None else each.model_dump(mode="json") for each in metrics]
        digest = _digest("floor", request.n_images, request.seed, *named)
        if self._store.jobs([digest]):
            return
        for _, outcome in self._asked({digest: request}):
            self._add_job(_job("floor", digest, outcome))

    def note(self, kind: str, content: Mapping[str, object]) -> None:
        """Keeps a record for people."""
        self._store.add_note(kind, content)
        found = quality_of(kind, content)
        if found is not None:
            self.predictor[found[0]] = found[1]

    def result(self, request: EvaluationRequest, outcome: Outcome[Reply]) -> Result:
        """What became of an evaluation, for the database."""
        spent = Spent(worker=outcome.worker, seconds=outcome.seconds)
        error = None if outcome.error is None else f"{outcome.error.kind}: {outcome.error.message}"
        evaluation = outcome.reply if isinstance(outcome.reply, Evaluation) else None
        if evaluation is not None and not math.isfinite(evaluation.value):
            error, evaluation = f"EvaluationFailed: the distance is {evaluation.value}", None
        self.tally.images += request.n_images if evaluation is None else evaluation.n_images
        self.tally.failed += evaluation is None
        if evaluation is None:
            self._count(request.rung, 0, spent.seconds)
        for measured in (evaluation, None if evaluation is None else evaluation.witness):
            if measured is not None:
                self._count(measured.rung, measured.network_calls, measured.seconds)
        return Result(request=request, evaluation=evaluation, error=error, spent=spent)

    @property
    def _trajectory_images(self) -> int:
        """Never more than at the first look of a race."""
        first = next(iter(checkpoints(self.n_images)), self.n_images)
        return min(_MOST_TRAJECTORY_IMAGES, first)

    # -- the inside ------------------------------------------------------------------------

    def _recall(self) -> None:
        """What earlier runs proposed and measured, without reading a schedule: there may be tens
        of thousands.
        """
        for row in self._store.proposed():
            self._numbers.add(row.number)
            self._rows[row.number] = row
            self._first.setdefault(row.schedule_id, (row.number, row.origin))
        self._store.mirror.open()
        mirrored = self._store.mirror.numbers()
        missing = []  # a kill lost them
        for found in self._store.searched():
            self._keep(found)
            if self._first[found.schedule_id][0] not in mirrored:
                missing.append(found.schedule_id)
        for result in self._store.search_results(missing):
            self._store.mirror.add(self._proposal(result.request.schedule), result)
        self._store.mirror.flush()

    def _proposal(self, schedule: Schedule) -> Proposal:
        """The first that named this schedule, as far as Optuna's trial must know."""
        number, origin = self._first[schedule.id]
        return Proposal(number=number, schedule=schedule, origin=origin, parents=())

    def _record(self, trials: Sequence[Trial]) -> None:
        new: dict[int, Proposal] = {}
        for trial in trials:
            if trial.number is None:
                if trial.schedule.id in self._first:
                    continue
                number = len(self._numbers) + len(new)
            else:
                number = trial.number + self._offset
                if number in self._numbers:
                    continue
            new[number] = Proposal(
                number=number,
                schedule=trial.schedule,
                origin=trial.origin,
                parents=trial.parents,
            )
            self._first.setdefault(trial.schedule.id, (number, trial.origin))
        self._store.add_proposals(list(new.values()))
        self._numbers.update(new)  # NOTE: |= of a set with keys makes a new set

    def _request(
        self, schedule: Schedule, rung: Rung, race: tuple[tuple[int, float], ...] = ()
    ) -> EvaluationRequest:
        config = self._config
        return EvaluationRequest(
            schedule=schedule,
            rung=rung,
            n_images=config.search.n_images,
            noise_seed=config.search_noise_seed,
            race=race,
        )

    def _submit(self) -> None:
        self._packer.submit(self._waiting, are_last=self._are_last)

    def _asked(self, requests: Mapping[str, Request]) -> Iterable[tuple[str, Outcome[Reply]]]:
        """Every outcome as it comes; nothing else may be under way."""
        assert not self._begun
        tasks = [Task(id=task_id, request=request) for task_id, request in requests.items()]
        for outcome in outcomes_of(self._pool, tasks):
            yield outcome.task_id, outcome

    def _record_result(self, request: EvaluationRequest, outcome: Outcome[Reply]) -> None:
        result = self.result(request, outcome)
        proposal = self._proposal(request.schedule)
        self._store.add_result(result)
        self._store.mirror.add(proposal, result)
        self._keep(searched(result))
        self.vetoed()  # for `best`, whether or not the search asks
        works = result.evaluation is not None
        self._failed_in_a_row = 0 if works else self._failed_in_a_row + 1
        if self._failed_in_a_row == _HOPELESS:
            raise EvaluationFailed(f"{_HOPELESS} evaluations in a row failed: {result.error}")
        self._report("baselines" if proposal.origin.startswith("baseline") else "search")

    def _keep(self, found: Searched) -> None:
        self._known[found.schedule_id] = found
        self.tally.spent += found.n_images
        self._rank(found)

    def _rank(self, found: Searched) -> None:
        if found.value is not None and found.schedule_id not in self._vetoed:
            is_baseline = self._first[found.schedule_id][1].startswith("baseline")
            side = self.best_baseline if is_baseline else self.best
            side[found.nfe] = min(found.value, side.get(found.nfe, math.inf))

    def _add_job(self, job: Job) -> None:
        self._store.add_job(job)
        self._count(job.kind, job.network_calls, job.spent.seconds)

    def _count(self, name: str, network_calls: int, seconds: float) -> None:
        self.spend[name] = self.spend.get(name, Spend()).plus(network_calls, seconds)

    def _jobs(
        self, kind: str, digests: Sequence[str], requests: Sequence[Request]
    ) -> list[Any | None]:
        """The answers in order, None where a job failed; known ones are not asked again."""
        known = self._store.jobs(digests)
        asked = {d: r for d, r in zip(digests, requests, strict=True) if d not in known}
        if asked:
            self._store.mirror.flush()
        for digest, outcome in self._asked(asked):
            job = _job(kind, digest, outcome)
            self._add_job(job)
            known[digest] = job
            nfe = _nfe_of(asked[digest])
            self.tally.images += job.network_calls / nfe
            self._report(kind)
        for digest, request in zip(digests, requests, strict=True):
            self.tally.spent += known[digest].network_calls / _nfe_of(request)
        return [known[d].result if known[d].error is None else None for d in digests]


def _job(kind: str, digest: str, outcome: Outcome[Reply]) -> Job:
    spent = Spent(worker=outcome.worker, seconds=outcome.seconds)
    match outcome.reply:
        case ProxyScores(scores=scores, network_calls=calls):
            content: Any = [v if math.isfinite(v) else None for v in scores]
        case Polished(schedule=schedule, losses=losses, network_calls=calls):
            content = {"schedule": schedule.to_dict(), "losses": list(losses)}
        case tuple() as floors:
            content, calls = [asdict(floor) for floor in floors], 0
        case _:
            failure = outcome.error
            error = "no answer" if failure is None else f"{failure.kind}: {failure.message}"
            return Job(kind, digest, None, error, 0, spent)
    return Job(kind, digest, content, None, calls, spent)


def _nfe_of(request: Request) -> int:
    match request:
        case ProxyRequest(schedules=schedules):
            return max(1, schedules[0].nfe)
        case PolishRequest(schedule=schedule):
            return schedule.nfe
    raise AssertionError("only proxies and polishing are jobs")


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]
