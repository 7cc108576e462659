"""Validation: the finalists and the best baselines once more, on noise that the search never saw.

It is a conversation like a search; who is a finalist is read from the study's tables.
"""

from collections.abc import Iterable, Sequence

from s3search.errors import EvaluationFailed
from s3search.run.baselines import KnownBaselines
from s3search.search.conversation import Conversation, Talk
from s3search.search.edit.extend_nfe import extended
from s3search.search.finish import monotone_by_nfe
from s3search.search.questions import SEARCHING, Answer, Measure, Measurement, RealImages, Rung
from s3search.search.stock import variants_of_best
from s3search.search.trial import Trial, seeded
from s3search.study.database.store import StudyStore
from s3search.study.log import searched_question
from s3search.study.results.frame import Scored, evaluations_frame, finalists
from s3search.study.results.frame import validated as validated_of


class Validation:
    """Measures the finalists of a study; ``further`` trials instead, where there are any.

    ``baselines`` are what is known to beat, the best stock ones on ``all_levels`` unless the
    search numbers its trials, whose numbers these would take.  ``extends``: a winner with fewer
    calls is validated with calls that change nothing.
    """

    def __init__(
        self,
        store: StudyStore,
        *,
        further: Sequence[Trial] = (),
        baselines: Sequence[KnownBaselines] = (),
        all_levels: bool = True,
        extends: bool = True,
    ) -> None:
        self._store, self._config = store, store.config
        self._further, self._baselines, self._extends = further, baselines, extends
        self._all_levels = all_levels
        self._talk = Talk()
        self._asked: set[str] = set()  # schedule ids
        self._done: set[str] = set()

    def prepare(self) -> Conversation[None]:
        """Measures to its end one schedule of every published solver of which the search has so
        measured nothing, and the best stock solvers on all levels that they have.
        """
        yield from self._talk.ask([self._searched(trial) for trial in self._unmeasured()])

    def run(self) -> Conversation[None]:
        """Measures until every finalist that nobody vetoes is validated; raises
        `EvaluationFailed` where none can be.
        """
        if self._further:
            yield from self._measure_and_validate(self._further)
            return
        chosen = finalists(evaluations_frame(self._store), self._config)
        if chosen:
            yield from self._talk.ask([self._real_images()])
        while not self._asked.issuperset(chosen):  # a veto lets the next best one in
            yield from self._validate(chosen)
            chosen = finalists(evaluations_frame(self._store), self._config)
        validated = self._validated()
        if chosen and not validated:
            raise EvaluationFailed(
                "no finalist could be validated, so there is nothing to export; "
                "s3search status shows how many evaluations failed"
            )
        if self._extends:
            yield from self._keep_monotone(validated)

    def count(self, answer: Measurement | Answer) -> tuple[int, int]:
        """Counts one answer more; how many of how many finalists are validated."""
        if isinstance(answer, Measurement):
            self._done.add(answer.trial.id)
        return len(self._done), len(self._asked)

    def _validate(self, chosen: Iterable[str]) -> Conversation[None]:
        ids = list(chosen)
        self._asked.update(ids)
        self._done |= {row.schedule_id for row in self._validated() if row.schedule_id in ids}
        vetoed = self._store.vetoes()  # now, and not when the search ended
        left = (self._store.schedule(i) for i in ids if i not in vetoed)
        finalists = [Trial.of(schedule, seeded("finalist")) for schedule in left]
        yield from self._talk.ask([self._question(each) for each in finalists])

    def _unmeasured(self) -> list[Trial]:
        """What is measured at the latest now; nothing where nothing was searched."""
        if not (self._baselines and self._config.validation.baselines):
            return []
        rows = [row for row in self._store.measured() if row.rung in SEARCHING]
        origins = {trial.id: trial for trial in self._store.trials()}
        rows = [row for row in rows if row.schedule_id in origins]
        measured = [origins[row.schedule_id] for row in rows]
        known_rows = [row for row in rows if row.value is not None]
        whole_rows = [row for row in known_rows if row.rung != Rung.STOPPED.value]
        whole_ids = {row.schedule_id for row in whole_rows}
        whole = [origins[each] for each in sorted(whole_ids)]
        stopped = {
            _unnumbered(origins[row.schedule_id]): self._config.direction.loss(row.value)
            for row in known_rows
            if row.schedule_id not in whole_ids
        }
        loss = self._config.direction.loss
        values = [(origins[row.schedule_id], loss(row.value)) for row in known_rows]
        keys = {trial.key for trial in measured}
        found: list[Trial] = []
        for known in self._baselines if measured else ():
            of_nfe = [(trial.origin, v) for trial, v in values if trial.nfe == known.nfe]
            found += known.unmeasured(whole, stopped)
            further = variants_of_best(of_nfe, known.trials) if self._all_levels else []
            found += [trial for trial in further if trial.key not in keys]
        return list(dict.fromkeys(found))

    def _measure_and_validate(self, trials: Sequence[Trial]) -> Conversation[None]:
        measured = yield from self._talk.ask([self._searched(trial) for trial in trials])
        yield from self._validate([m.trial.id for m in measured if m.value is not None])

    def _keep_monotone(self, rows: Sequence[Scored]) -> Conversation[None]:
        """Where fewer calls did better, their winner with calls that change nothing is validated
        too: best(n + 1) is never worse than best(n).
        """
        best = {row.nfe: row for row in reversed(rows)}
        loss = self._config.direction.loss
        beaten = monotone_by_nfe({nfe: loss(row.value) for nfe, row in best.items()})
        for nfe, fewer in beaten.items():
            schedule = extended(self._store.schedule(best[fewer].schedule_id), nfe)
            if schedule is not None:
                origin = seeded(f"winner with {fewer} calls, padded")
                yield from self._measure_and_validate([Trial.of(schedule, origin)])

    def _validated(self) -> Sequence[Scored]:
        return validated_of(evaluations_frame(self._store, of_validated=True), self._config)

    def _searched(self, trial: Trial) -> Measure:
        return searched_question(trial, self._config, is_whole=True)

    def _question(self, trial: Trial) -> Measure:
        config = self._config
        return Measure(
            trial=trial,
            rung=Rung.VALIDATION,
            n_images=config.held_out_images,
            noise_seed=config.validation_noise_seed,
            block_images=config.search.n_images,
        )

    def _real_images(self) -> RealImages:
        config = self._config
        metrics = (config.metric, config.validation.metric)
        named = tuple(None if each is None else each.stored for each in metrics)
        seed = config.validation_noise_seed
        return RealImages(n_images=config.held_out_images, seed=seed, metrics=named)


def _unnumbered(trial: Trial) -> Trial:
    """The trial without its number, which the log gives back to what it knows."""
    return Trial.of(trial.schedule, trial.origin, trial.parents)
