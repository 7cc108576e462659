"""The whole of a study: search, validate, done.

    searching    the search measures in its lab (`s3search.run.study_lab`)
    validating   the finalists and the best baselines are measured again on held-out noise
    done         what is exported is chosen among the validated

Nothing is only in memory: a killed driver starts the search again from its beginning, and the lab
answers from the database what was asked before.  The search depends on its seed and those answers
alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from s3search.cluster.packing import PopulationSize
from s3search.cluster.pool import Outcome, Task, outcomes_of
from s3search.errors import (
    EvaluationFailed,
    InvalidConfig,
    LeaseLost,
    S3SearchError,
    StudyConflict,
)
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
from s3search.run.algorithms import Search, baseline_seeds, given_seeds, make_search
from s3search.run.study_lab import Pool, StudyLab
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import SEED, distinct
from s3search.search.edit.extend_nfe import padded
from s3search.search.finish import monotone_by_nfe
from s3search.search.lab import Trial
from s3search.search.space.space import SearchSpace
from s3search.study.database.store import StudyStore
from s3search.study.extensions import Extension
from s3search.study.file.config import StudyConfig
from s3search.study.results.frame import evaluations_frame, finalists
from s3search.study.results.frame import validated as validated_of
from s3search.study.results.progress import Progress, RecentRate, seconds_left
from s3search.study.results.watching import held_out_of

Report = Callable[[Progress], None]

_HELD_OUT_SECONDS = 1.0  # between two looks at what is validated


def describe(pool: Pool, *, layers: bool = False) -> Description:
    """What the pool's workers have loaded; ``layers``: with the network's blocks."""
    reply = _ask(pool, "describe", DescribeRequest(layers=layers))
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


def evaluate_all(
    pool: Pool, requests: Sequence[EvaluationRequest]
) -> list[Evaluation | EvaluationFailed]:
    """Evaluations outside any study by all workers of an idle pool, in order; a failure stands in
    the place of its evaluation.
    """
    found: dict[int, Evaluation | EvaluationFailed] = {}
    for i, outcome in _ask_all(pool, requests):
        reply = outcome.reply
        found[i] = reply if isinstance(reply, Evaluation) else _failure(outcome)
    return [found[i] for i in range(len(requests))]


def images_of_all(
    pool: Pool, requests: Sequence[ImagesRequest]
) -> Iterator[tuple[Schedule, Tensor]]:
    """Images of many schedules by all workers of an idle pool, as they come; a schedule that fails
    has none.
    """
    for i, outcome in _ask_all(pool, requests):
        if isinstance(outcome.reply, Tensor):
            yield requests[i].schedule, outcome.reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a search starts from; made before anything is written, so that bad input leaves no
    trace.
    """

    description: Description
    search: Search | None  # None: only what is asked for is validated
    extension: Extension | None = None  # the version of the space that is searched
    pads: bool = True  # a call that changes nothing costs nothing here


def prepare(
    config: StudyConfig, space: SearchSpace, pool: Pool, extension: Extension | None = None
) -> Start:
    """Asks the workers what they loaded and makes the search, from what its version of the space
    begins with; raises for anything wrong.
    """
    description = describe(pool, layers=space.cost is not None)
    if space.cost is not None:
        if description.layers is None or not description.layers.layers:
            raise InvalidConfig(
                "space.cost: this model has no block that can be left out; remove the key"
            )
        space = space.with_layers(description.layers)
    if space.guidance is not None and not description.takes_guidance:
        raise InvalidConfig(
            "space.guidance: this model has no null condition to be guided away from; "
            "remove the key"
        )
    if description.mean_image is not None:
        space = space.with_mean_image(description.mean_image)
    if description.ems is not None:
        space = space.with_ems(description.ems)
    if description.gaussian is not None:
        space = space.with_gaussian(description.gaussian, description.process)
    published = baseline_seeds(config, description.process, description.own_sampler)
    seeds = distinct({**published, **given_seeds(config, description)})
    if extension is not None:
        seeds = {n: s for n, s in seeds.items() if s.nfe in extension.nfe}
        seeds = distinct({**extension.warm, **seeds})
        config = extension.applied(config)
    search = make_search(config, space, description.process, seeds)
    return Start(
        description=description,
        search=search,
        extension=extension,
        pads=space.cost is None,
    )


class Driver:
    """Runs one study to its end; make it, call `run`, and again after an interruption."""

    def __init__(self, store: StudyStore, pool: Pool, start: Start, report: Report) -> None:
        self._store = store
        self._pool = pool
        self._report = report
        self._config = store.config
        self._search, self._pads = start.search, start.pads
        self._check_unchanged(start.description)
        self._before = start.extension
        self._lab = StudyLab(
            store,
            pool,
            self._tell_progress,
            population=PopulationSize.of(self._config.cluster.population, start.description),
            extension=start.extension,
        )
        self._rate = RecentRate(self._lab.tally.began)
        self._held_out, self._held_out_at = held_out_of(store), time.monotonic()

    def run(self) -> None:
        """Searches until the budget is spent, then validates; every state is in the database."""
        assert self._search is not None
        try:
            self._store.set_state("searching")
            self._search.run(self._lab)
            self._store.mirror.flush()
            self._store.set_state("validating")
            self._validate()
            self._store.set_state("done")
        except LeaseLost:  # the state is the other driver's to write
            raise
        except KeyboardInterrupt:
            self._store.set_state("interrupted")
            raise
        except S3SearchError:
            self._store.set_state("failed")
            raise

    def validate_also(self, published: Mapping[str, Schedule]) -> None:
        """Measures further published schedules, by name, as the search and the validation did, and
        stores them beside the others; what is known is not measured again.
        """
        trials = [
            Trial(schedule=schedule, origin=f"baseline: {name}")
            for name, schedule in published.items()
        ]
        measured = self._lab.measure(trials)
        self._validate_these([each.schedule.id for each in measured if each.value is not None])

    # -- validating ------------------------------------------------------------------------

    def _validate(self) -> None:
        chosen = finalists(evaluations_frame(self._store), self._config)
        if chosen:
            self._lab.floor()
        asked: set[str] = set()
        while not asked.issuperset(chosen):  # a veto in the meantime lets the next best one in
            self._validate_these(chosen)
            asked.update(chosen)
            chosen = finalists(evaluations_frame(self._store), self._config)
        if chosen and not validated_of(evaluations_frame(self._store), self._config):
            raise EvaluationFailed(
                "no finalist could be validated, so there is nothing to export; "
                "s3search status shows how many evaluations failed"
            )
        if self._pads:
            self._keep_monotone()

    def _keep_monotone(self) -> None:
        """Where fewer calls did better, their winner with calls that change nothing is validated
        too: best(n + 1) is never worse than best(n).
        """
        rows = validated_of(evaluations_frame(self._store), self._config)
        best = {row.nfe: row for row in reversed(rows)}
        beaten = monotone_by_nfe({nfe: row.value for nfe, row in best.items()})
        for nfe, fewer in beaten.items():
            schedule: Schedule | None = self._store.schedule(best[fewer].schedule_id)
            while schedule is not None and schedule.nfe < nfe:
                schedule = padded(schedule)
            if schedule is not None:
                origin = f"{SEED}winner with {fewer} calls, padded"
                self._lab.measure([Trial(schedule=schedule, origin=origin)])
                self._validate_these([schedule.id])

    def _validate_these(self, chosen: list[str]) -> None:
        frame = evaluations_frame(self._store)
        of_this_size = frame["n_images"] == self._config.validation.n_images
        validated = frame[(frame["rung"] == Rung.VALIDATION.value) & of_this_size]
        done = set(validated["schedule_id"])
        if self._config.validation.metric is not None:  # it may have come after a validation
            witnessed = frame[(frame["rung"] == Rung.WITNESS.value) & of_this_size]
            works = validated[validated["state"] == "complete"]
            done -= set(works["schedule_id"]) - set(witnessed["schedule_id"])
        waiting = [self._store.schedule(i) for i in chosen if i not in done]
        total = len(chosen)
        pending: dict[str, Schedule] = {}
        while waiting or pending:
            while waiting and self._pool.has_room:
                schedule = waiting.pop(0)
                if schedule.id in self._lab.vetoed():
                    continue
                pending[schedule.id] = schedule
                self._pool.submit(Task(id=schedule.id, request=self._request(schedule)))
            for outcome in self._pool.collect() if pending else ():
                request = self._request(pending.pop(outcome.task_id))
                self._store.add_result(self._lab.result(request, outcome))
            self._tell_progress("validation", total - len(waiting) - len(pending), total)

    def _request(self, schedule: Schedule) -> EvaluationRequest:
        config = self._config
        return EvaluationRequest(
            schedule=schedule,
            rung=Rung.VALIDATION,
            n_images=config.validation.n_images,
            noise_seed=config.validation_noise_seed,
            block_images=config.search.n_images,
        )

    def _tell_progress(
        self, stage: str, done: int | None = None, total: int | None = None
    ) -> None:
        lab, now = self._lab, time.monotonic()
        rate = self._rate.per_second(now, lab.tally.images)
        busy = min(self._pool.n_pending, self._pool.n_workers)
        if done is None:
            done = round(lab.tally.spent / lab.n_images)
            total = self._total
            left = seconds_left(
                self._config.search,
                images=None if total is None else (total - done) * lab.n_images,
                images_per_second=rate,
                worker_seconds=lab.worker_seconds,
                workers_busy=busy,
                elapsed=now - lab.tally.began,
            )
        else:
            waiting = ((total or done) - done) * self._config.validation.n_images
            left = waiting / rate if rate else None
            if done == total or now - self._held_out_at >= _HELD_OUT_SECONDS:
                self._held_out, self._held_out_at = held_out_of(self._store), now
        self._report(
            Progress(
                stage=stage,
                done=done,
                total=total,
                best=dict(lab.best),
                best_baseline=dict(lab.best_baseline),
                held_out=self._held_out[0],
                held_out_baseline=self._held_out[1],
                predictor=dict(lab.predictor),
                failed=lab.tally.failed,
                images_per_second=rate,
                seconds_left=left,
                workers_busy=busy,
                workers=self._pool.n_workers,
                spend=dict(lab.spend),
            )
        )

    @property
    def _total(self) -> int | None:
        """The budget in measurements, of all versions of the space."""
        total = None if self._search is None else self._search.total
        if total is None or self._before is None:
            return total
        is_counted_in_images = self._config.search.algorithm == "s3"
        before = self._before.spent if is_counted_in_images else self._before.first_number
        return total + round(before)

    def _check_unchanged(self, description: Description) -> None:
        found = self._store.measured_with()
        now = (description.model_fingerprint, description.reference_digest, description.extractor)
        if found is not None and found != now:
            raise StudyConflict(
                f"study {self._store.name!r} was measured with model, reference and extractor "
                f"{found}, the workers have {now}; results would not be comparable: "
                "give the new study another name"
            )
        witness = self._store.measured_with(witness=True)
        if description.witness is not None and witness is not None:
            name, digest = description.witness
            if witness[1:] != (digest, name):
                raise StudyConflict(
                    f"study {self._store.name!r} was validated with the second extractor "
                    f"{witness[2]} (reference {witness[1]}), the workers have {name} "
                    f"({digest}); leave [validation.metric] as it was, or give the new study "
                    "another name"
                )


def _ask(pool: Pool, task_id: str, request: Request) -> Reply:
    """One request to an otherwise idle pool."""
    (outcome,) = outcomes_of(pool, [Task(id=task_id, request=request)])
    if outcome.reply is None:
        raise _failure(outcome)
    return outcome.reply


def _ask_all(pool: Pool, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome[Reply]]]:
    """What becomes of each request, with its place among them, as it comes."""
    tasks = [Task(id=str(i), request=request) for i, request in enumerate(requests)]
    for outcome in outcomes_of(pool, tasks):
        yield int(outcome.task_id), outcome


def _failure(outcome: Outcome[Reply]) -> EvaluationFailed:
    assert outcome.error is not None
    return EvaluationFailed(f"{outcome.error.kind}: {outcome.error.message}")
