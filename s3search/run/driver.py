"""The driver: runs a conversation against the log and the pool, and a study from its beginning to
its end.

    searching    the search's questions, turn by turn
    validating   the finalists and the best baselines are measured again on held-out noise
    done         what is exported is chosen among the validated

Nothing is only in memory: a killed driver runs the search again from its beginning, and the log
answers what was asked before.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from s3search.cluster.asking import Asker, Pool, PopulationSize
from s3search.errors import EvaluationFailed, LeaseLost, S3SearchError, StudyConflict
from s3search.evaluation.record import Description
from s3search.run.fine_targets import noises_of
from s3search.run.forecast import forecast_of, to_validate
from s3search.run.prepare import Prepared
from s3search.run.tally import Tally
from s3search.run.validation import Validation
from s3search.schedules.schedule import Schedule
from s3search.search.conversation import Answers, Ask, Conversation, Note
from s3search.search.guarding import guarded
from s3search.search.questions import Answer, Job, Measure, Measurement, RealImages, Rung
from s3search.search.solving import solved_first
from s3search.search.trial import Trial
from s3search.study.database.store import StudyStore
from s3search.study.log import Log
from s3search.study.results.coverage import BASELINES
from s3search.study.results.exported import mark_exported
from s3search.study.results.forecast import HearsForecast
from s3search.study.results.progress import Report
from s3search.study.results.rungs import parts_of
from s3search.study.results.watching import spend_of

T = TypeVar("T")
See = Callable[[Measurement | Answer], None]
Meanwhile = Callable[[Pool, Sequence[Schedule]], None]
"""Has the workers between two turns, while they are idle, and the best schedules so far."""

_HOPELESS = 10  # so many failures in a row are the model's or the machine's, not a schedule's


class Driver:
    """Runs one study to its end; make it, call `run`, and again after an interruption."""

    def __init__(
        self,
        store: StudyStore,
        pool: Pool,
        start: Prepared,
        report: Report,
        meanwhile: Meanwhile | None = None,
    ) -> None:
        check_unchanged(store, start.description)
        self._meanwhile = meanwhile
        self._best: dict[int, tuple[float, Trial]] = {}  # at the search rung, by NFE
        self._store, self._pool, self._start, self._report = store, pool, start, report
        population = store.config.cluster.population
        self._asker = Asker(pool, PopulationSize.of(population, start.description))
        self._log = Log(store, first_number=start.first_number)
        self._tally = Tally(
            store,
            self._log,
            total=start.total,
            spent_before=start.spent_before,
            to_validate=sum(to_validate(store.config, start.seeds).values()),
        )
        self._failures: list[str] = []  # in a row
        self._validation: Validation | None = None
        self._is_foretold = False

    def run(self) -> None:
        """Searches until the budget is spent, then validates; every state is in the database."""
        assert self._start.search is not None
        try:
            self._store.set_state("searching")
            self._note_baselines()
            guards, search = self._store.config.guards, self._start.search.run()
            noises = noises_of(self._store.config)
            self._converse(solved_first(guarded(search, guards) if guards else search, noises))
            extends = self._start.extends
            known = self._start.baselines if extends else ()
            validation = Validation(
                self._store,
                baselines=known,
                all_levels=self._start.counts_images,
                extends=extends,
            )
            self._converse(solved_first(validation.prepare(), noises))
            self._log.flush()
            self._store.set_state("validating")
            self._validate(validation)
            self._store.set_state("done")
        except LeaseLost:  # the state is the other driver's to write
            raise
        except KeyboardInterrupt:
            self._store.set_state("interrupted")
            raise
        except S3SearchError:
            self._store.set_state("failed")
            raise

    def _note_baselines(self) -> None:
        """Keeps what there is to beat, once, before anything is proposed."""
        noted = {content["nfe"] for _, content in self._store.notes(BASELINES)}
        for known in self._start.baselines:
            if known.nfe not in noted:
                self._log.note(Note(kind=BASELINES, content=known.note))

    def validate_also(self, trials: Sequence[Trial]) -> None:
        """Measures further published schedules as the search and the validation did, and stores
        them beside the others; what is known is not measured again.
        """
        self._validate(Validation(self._store, further=trials))

    def _validate(self, validation: Validation) -> None:
        self._validation = validation
        self._converse(solved_first(validation.run(), noises_of(self._store.config)))
        mark_exported(self._store)

    def _converse(self, conversation: Conversation[T]) -> T:
        """Runs a conversation to its end: sends, begins, waits, writes, reports."""
        log, asker, tally = self._log, self._asker, self._tally
        answers: Answers | None = None
        while True:
            try:
                ask = next(conversation) if answers is None else conversation.send(answers)
            except StopIteration as end:
                result: T = end.value
                return result
            for note in ask.notes:
                tally.hear(note)
            unknown = log.begin(ask)
            if unknown:
                self._foretell()
            asker.begin(unknown, are_last=self._is_all(ask, unknown))
            while not all(question in log for question in ask.wait):
                for answer in asker.collect(are_last=self._is_all(ask)):
                    log.add(answer)
                    self._see(answer)
            if self._meanwhile is not None and self._best and not asker.keys:
                self._meanwhile(self._pool, [trial.schedule for _, trial in self._best.values()])
            answers = log.answers(ask, tally.outside)

    def _foretell(self) -> None:
        """Tells what the study costs, once, before anything is spent."""
        report, start, store = self._report, self._start, self._store
        if self._is_foretold or start.search is None or not isinstance(report, HearsForecast):
            return
        self._is_foretold = True
        spent = sum(each.network_calls for each in spend_of(store).values())
        rungs = parts_of(store.notes())
        report.begins(forecast_of(store.config, start, self._pool, spent=spent, rungs=rungs))

    def _is_all(self, ask: Ask, unknown: Sequence[Measure | Job] = ()) -> bool:
        """Whether a turn waits for all that is under way."""
        waited = {question.key for question in ask.wait}
        return waited >= (self._asker.keys | {question.key for question in unknown})

    def _see(self, answer: Measurement | Answer) -> None:
        """Counts and reports an answer; raises `EvaluationFailed` where nothing works."""
        stage = self._tally.see(answer)
        if isinstance(answer, Measurement) and answer.question.rung is Rung.SEARCH:
            works = answer.estimate is not None
            self._failures = [] if works else [*self._failures, str(answer.error)]
            best, loss = self._best.get(answer.trial.nfe), answer.loss
            if loss is not None and (best is None or loss < best[0]):
                self._best[answer.trial.nfe] = loss, answer.trial
            if len(self._failures) == _HOPELESS:
                raise EvaluationFailed(
                    f"{_HOPELESS} evaluations in a row failed: {self._failures[-1]}"
                )
        if isinstance(answer.question, RealImages):  # nobody waits for it
            return
        validated = None
        if self._validation is not None and stage == Rung.VALIDATION.value:
            validated = self._validation.count(answer)
        pool = self._pool
        self._report(self._tally.progress(stage, pool.n_pending, pool.n_workers, validated))


def check_unchanged(store: StudyStore, description: Description) -> None:
    """Raises `StudyConflict` where the workers have loaded something else than what the study was
    measured with.
    """
    found = store.measured_with()
    now = (description.model_fingerprint, description.reference_digest, description.extractor)
    if found is not None and found != now:
        raise StudyConflict(
            f"study {store.name!r} was measured with model, reference and extractor "
            f"{found}, the workers have {now}; results would not be comparable: "
            "give the new study another name"
        )
    second = store.measured_with(second=True)
    if description.second_metric is not None and second is not None:
        name, digest = description.second_metric
        if second[1:] != (digest, name):
            raise StudyConflict(
                f"study {store.name!r} was validated with the second extractor "
                f"{second[2]} (reference {second[1]}), the workers have {name} "
                f"({digest}); leave [validation.metric] as it was, or give the new study "
                "another name"
            )
