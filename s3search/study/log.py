"""The log of a study: every question that was asked, and its answer; one memo over the database.

A question that has an answer is not asked again; one that was asked and has none is asked again;
nothing is asked before it is written.  A measurement that stopped early answers who asked for no
more; a whole one that is made later answers who asks for a whole one, and the search, where it is
run again, hears what it heard.  So a killed search is resumed by running it from its
beginning and feeding it the log.

What depends on the world and not on the seed (a person's vetoes, "the time is over") is an event
of the log at the point of the search where it was told.  A point is known by all that the search
had begun until there; a search that comes by again is told the same.  Where no earlier run came
by, it is told what holds now.  Events are written where something changed, and where a question
hangs on what was told that no trial will show.  What a search decided holds at the point where it
did.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from s3search.search.conversation import DECISION, Answers, Ask, Note, Outside
from s3search.search.guarding import GuardLimits
from s3search.search.questions import (
    SEARCHING,
    Answer,
    Decision,
    Job,
    Measure,
    Measurement,
    Question,
    RealImages,
    Recall,
    Rung,
    measure_key,
)
from s3search.search.trial import Trial
from s3search.study.database.rows import measurement_of
from s3search.study.database.store import StudyStore
from s3search.study.file.config import StudyConfig

_OUTSIDE = "outside"  # kind of the notes that are events
_VETOED = "vetoed"  # events of earlier releases, which kept vetoes alone
_BUDGET_STEP = 0.05  # a budget of time is an estimate: it is told when it has moved by so much


class Log:
    """The log of one study, for its only driver.

    Trials of earlier versions of the space have numbers below ``first_number``; what they measured
    is known, and paid for.
    """

    def __init__(self, store: StudyStore, *, first_number: int = 0) -> None:
        self._store, self._offset = store, first_number
        self._n_whole, self._direction = store.config.search.n_images, store.config.direction
        self._trials: dict[int, Trial] = {}  # by number
        self._first: dict[str, Trial] = {}  # the first of each schedule, by id
        self._measured: dict[str, Any] = {}  # by question key: a row until it is asked for
        self.limits = GuardLimits(store.config.guards)  # by all that was measured, also before
        self._seconds: set[str] = set()  # keys of validations that a second metric saw
        self._jobs: dict[str, Answer] = {}  # of the present turn
        for trial in store.trials():
            self._keep_trial(trial)
        # of this version of the space, what an earlier run proposed and this one has not yet
        self._ahead = {n for n in self._trials if n >= first_number}
        self._decisions = _stored_decisions(store, first_number)
        self._events: dict[tuple[str, str], dict[str, Any]] = {}  # by point and limits
        self._vetoed_at: dict[str, list[str]] = {}  # by point, under whatever limits
        self._read_events()
        self._point = hashlib.sha256(str(first_number).encode())
        self._last_point = self._here()
        self._n_begun = 0
        self._last: Outside | None = None  # that was told, at `_last_point`
        self._last_count = -1
        self._read_measurements()

    # -- questions and answers -------------------------------------------------------------

    def begin(self, ask: Ask) -> list[Measure | Job]:
        """Records what a turn begins; the questions of the turn that have no answer yet."""
        self._add_trials(ask)
        for note in ask.notes:
            self.note(note)
        questions = [q for q in (*ask.begin, *ask.wait) if not isinstance(q, Recall)]
        if not questions:
            return []
        jobs = [q for q in questions if not isinstance(q, Measure)]
        self._jobs = self._store.answered(jobs) if jobs else {}
        unknown = {q.key: q for q in questions if q not in self}
        others = [
            q for q in unknown.values() if not (isinstance(q, Measure) and q.rung is Rung.SEARCH)
        ]
        if others:
            self.flush()  # results of the search come no more for a while
        if any(_is_of_search(question) for question in others):
            self._keep_last()
        return list(unknown.values())

    def __contains__(self, question: object) -> bool:
        match question:
            case Measure():
                return question.key in self._measured and not self._lacks_second(question)
            case Recall():
                return True
            case _:
                return isinstance(question, Job) and question.key in self._jobs

    def _lacks_second(self, question: Measure) -> bool:
        """Whether a second metric came after this validation."""
        if question.rung is not Rung.VALIDATION or self._store.config.validation.metric is None:
            return False
        known = self._measured[question.key]
        failed = known.value is None
        return not (isinstance(known, Measurement) or failed or question.key in self._seconds)

    def add(self, answer: Measurement | Answer) -> None:
        """Writes an answer, and keeps it."""
        if isinstance(answer, Answer):
            self._store.add_answer(answer)
            self._jobs[answer.question.key] = answer
            return
        self._store.add_measurement(answer)
        if answer.question.rung is Rung.SEARCH:
            first = self._first[answer.trial.id]
            assert first.number is not None
            named = Trial.of(answer.trial.schedule, first.origin, number=first.number)
            self.limits.learn(answer)
            self._store.mirror.add(first.number, named, answer, self.limits.excesses(answer))
        question = answer.question
        asked = (question.rung, answer.trial.id, question.n_images, question.noise_seed)
        _keep(self._measured, answer, asked, is_stopped=answer.rung is Rung.STOPPED)

    def answers(self, ask: Ask, outside: Callable[[], Outside]) -> Answers:
        """The answers that a turn waited for, with what is to be told of ``outside``."""
        given = tuple(self._answer(question) for question in ask.wait)
        return Answers(given=given, outside=self._heard(outside))

    def trial(self, schedule_id: str) -> Trial | None:
        """The first trial that named a schedule."""
        return self._first.get(schedule_id)

    def note(self, note: Note) -> None:
        """Keeps what a search learned about itself."""
        content = dict(note.content)
        if note.kind == DECISION:
            content |= {"first_number": self._offset, "point": self._last_point}
        self._store.add_note(note.kind, content)

    def flush(self) -> None:
        """Brings Optuna's study up to date."""
        self._store.mirror.flush()

    def _answer(self, question: Question) -> Any:
        if isinstance(question, Recall):
            return self._recalled(question.key)
        if not isinstance(question, Measure):
            return self._jobs[question.key]
        known = self._measured[question.key]
        if isinstance(known, Measurement):
            return known
        first = self._first.get(question.trial.id)
        number = None if first is None else first.number
        is_paid = number is not None and number < self._offset
        return measurement_of(known, question, self._direction, is_paid=is_paid)

    def _recalled(self, key: int | str) -> Decision | None:
        if isinstance(key, str):
            note = self._decisions.get((key, self._here()))
            if note is None:
                return None
            # without their numbers, which are the study's and not those of this search
            stored = (self._first[i] for i in note["schedules"])
            trials = tuple(Trial.of(t.schedule, t.origin, t.parents) for t in stored)
            return Decision(trials=trials, content=note["content"])
        trial = self._trials.get(key + self._offset)
        return None if trial is None else Decision(trials=(trial.numbered(key),))

    # -- trials ----------------------------------------------------------------------------

    def _add_trials(self, ask: Ask) -> None:
        new: dict[int, Trial] = {}
        begun = [question for question in ask.begin if isinstance(question, Measure)]
        ids = {question.trial.id for question in begun}
        for question in ask.wait:  # a search may wait for what it never began
            if isinstance(question, Measure) and question.trial.id not in ids:
                begun += [] if question.trial.id in self._first else [question]
        for question in begun:
            if question.rung in (Rung.SEARCH, Rung.FINALS):
                self._point.update(question.trial.id.encode())
                self._n_begun += 1
            if question.rung is Rung.SEARCH:
                number = self._number(question.trial)
                if number in self._trials:
                    self._ahead.discard(number)
                else:
                    new[number] = question.trial
                    self._keep_trial(question.trial.numbered(number))
        if new:
            self._ahead.clear()  # an earlier run did not come here
            self._store.add_trials(new)

    def _number(self, trial: Trial) -> int:
        if trial.number is not None:
            return trial.number + self._offset
        first = self._first.get(trial.id)
        if first is not None and first.number is not None:
            return first.number
        return len(self._trials)

    def _keep_trial(self, trial: Trial) -> None:
        assert trial.number is not None
        self._trials[trial.number] = trial
        self._first.setdefault(trial.id, trial)

    # -- what an earlier run left ----------------------------------------------------------

    def _read_measurements(self) -> None:
        mirror = self._store.mirror
        mirror.open()
        mirrored = mirror.numbers()
        for row in self._store.measured():
            if row.rung == Rung.SECOND_METRIC.value:
                asked = (Rung.VALIDATION, row.schedule_id, row.n_images, row.noise_seed)
                self._seconds.add(measure_key(*asked))
                continue
            searching = row.rung in SEARCHING
            rung, n = (Rung.SEARCH, self._n_whole) if searching else (row.rung, row.n_images)
            asked = (rung, row.schedule_id, n, row.noise_seed)
            _keep(self._measured, row, asked, is_stopped=row.rung == Rung.STOPPED)
            first = self._first.get(row.schedule_id)
            if not searching or first is None:
                continue
            assert first.number is not None
            if row.guards or first.number not in mirrored:  # a kill cut it off
                question = searched_question(first, self._store.config)
                found = measurement_of(row, question, self._direction)
                self.limits.learn(found)
                mirror.add(first.number, first, found, self.limits.excesses(found))
        mirror.flush()

    # -- what is told of the outside -------------------------------------------------------

    def _read_events(self) -> None:
        for _, old in self._store.notes(_VETOED):
            self._vetoed_at[old["point"]] = old["schedules"]
        for _, event in self._store.notes(_OUTSIDE):
            self._vetoed_at[event["point"]] = event["vetoed"]
            self._events[event["point"], event["limits"]] = event

    def _here(self) -> str:
        return self._point.hexdigest()[:32]

    def _heard(self, outside: Callable[[], Outside]) -> Outside:
        """What is told at this point: once for each, and where an earlier run came by the same
        as then.
        """
        if self._last is not None and self._n_begun == self._last_count:
            return self._last
        point = self._last_point = self._here()
        if self._last is None or point in self._vetoed_at or not self._ahead:
            self._last = self._outside_at(point, outside())
        self._last_count = self._n_begun
        return self._last

    def _outside_at(self, point: str, present: Outside) -> Outside:
        before = self._last or Outside(budget=present.budget, limits=present.limits)
        event = self._events.get((point, present.limits))
        if event is not None:
            vetoed = frozenset(event["vetoed"])
            return replace(before, budget=event["budget"], is_over=event["is_over"], vetoed=vetoed)
        if point in self._vetoed_at:  # under another budget
            found = replace(before, vetoed=frozenset(self._vetoed_at[point]), is_over=False)
        elif self._ahead:
            return before
        else:
            found = _settled(before, present)
        if found != before or self._last is None:
            self._add_event(point, found)
        return found

    def _keep_last(self) -> None:
        """Keeps what was told last."""
        if self._last is not None and (self._last_point, self._last.limits) not in self._events:
            self._add_event(self._last_point, self._last)

    def _add_event(self, point: str, outside: Outside) -> None:
        content = self._events[point, outside.limits] = {
            "point": point,
            "vetoed": sorted(outside.vetoed),
            "is_over": outside.is_over,
            "budget": outside.budget,
            "limits": outside.limits,
        }
        self._store.add_note(_OUTSIDE, content)


def _stored_decisions(
    store: StudyStore, first_number: int
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """By key and point; all but the last one, which may have been followed by nothing."""
    notes = [content for _, content in store.notes(DECISION)]
    own = [note for note in notes if note["first_number"] == first_number]
    return {(note["key"], note["point"]): note for note in own[:-1]}


def _keep(
    known: dict[str, Any],
    measured: Any,
    asked: tuple[str, str, int, int | str],
    *,
    is_stopped: bool,
) -> None:
    """Keeps a measurement, or its row, under the keys of the questions that it answers."""
    key, rung = measure_key(*asked), asked[0]
    if rung != Rung.SEARCH:
        known[key] = measured
        return
    known.setdefault(key, measured)
    if not is_stopped:
        known[measure_key(*asked, is_whole=True)] = measured


def searched_question(trial: Trial, config: StudyConfig, *, is_whole: bool = False) -> Measure:
    """How good a trial is on the search's noise."""
    return Measure(
        trial=trial,
        rung=Rung.SEARCH,
        n_images=config.search.n_images,
        noise_seed=config.search_noise_seed,
        is_whole=is_whole,
    )


def _is_of_search(question: Question) -> bool:
    """Whether it is a search that asks it, of whatever was told, and not the validation."""
    if isinstance(question, Measure):
        return question.rung in (Rung.SEARCH, Rung.FINALS)
    return not isinstance(question, RealImages)


def _settled(before: Outside, present: Outside) -> Outside:
    """What holds now, with the budget told before if it has hardly moved."""
    moved = abs(present.budget - before.budget) > _BUDGET_STEP * before.budget
    budget = present.budget if moved else before.budget
    return replace(present, budget=budget)
