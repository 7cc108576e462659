"""The log of a study: what was asked is not asked again, and what was told is told again."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from s3search.cluster import InlinePool
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Reply, Request
from s3search.processes import edm
from s3search.run.driver import Driver
from s3search.run.prepare import Prepared
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import RandomSearch
from s3search.search.algorithms.sequential import Sequential
from s3search.search.conversation import DECISION, Answers, Ask, Note, Outside
from s3search.search.questions import (
    Answer,
    Measure,
    Measurement,
    Polish,
    PolishResult,
    Question,
    RealImages,
    Recall,
    Rung,
    Score,
)
from s3search.search.space import load_space
from s3search.search.trial import Trial, distinct, published_as, searched
from s3search.study.database.store import StudyStore, create_or_resume
from s3search.study.file.config import StudyConfig
from s3search.study.log import Log
from tests.support.searches import setup_of
from tests.support.studies import study_config, trials

PUBLISHED = distinct(
    Trial.of(each.schedule, searched("test"), ("a",)) for each in published_solvers(edm(), 3)
)[:6]
FIRST, SECOND, THIRD = PUBLISHED[:3]
A, B = FIRST.id, SECOND.id
SECOND_METRIC = "validation.metric.features=tests.support.plugins:squares"


def _measure(trial: Trial, rung: Rung = Rung.SEARCH) -> Measure:
    n_images = {Rung.SEARCH: 30, Rung.FINALS: 90, Rung.VALIDATION: 60}[rung]
    return Measure(trial=trial, rung=rung, n_images=n_images, noise_seed=0)


def _polish(trial: Trial, seed: int = 0) -> Polish:
    return Polish(trial=trial, iterations=2, n_images=4, seed=seed, noise_seed=seed)


def _answer(question: Question) -> Measurement | Answer:
    """What a worker makes of a question."""
    spent = {"seconds": 0.5, "worker": "here/1"}
    match question:
        case Measure(trial=trial, n_images=n):
            value = int(trial.id[:4], 16) / 2**16
            return Measurement(question=question, estimate=value, n_images=n, **spent)
        case Score(trials=scored):
            return Answer(question=question, value=tuple(0.5 for _ in scored), **spent)
        case Polish(schedule=schedule):
            made = PolishResult(schedule=schedule, losses=(0.5,))
            return Answer(question=question, value=made, network_calls=24, **spent)
        case RealImages():
            return Answer(question=question, value=({"mean": 0.1},), **spent)
    raise AssertionError(question)


def _outside(*vetoed: str, is_over: bool = False, budget: float = 100.0, limits: str = "") -> Any:
    return Outside(budget=budget, is_over=is_over, vetoed=frozenset(vetoed), limits=limits)


class _Run:
    """Talks to a log as a search and its driver do, with a worker that answers at once."""

    def __init__(self, store: StudyStore, *, first_number: int = 0) -> None:
        self.log = Log(store, first_number=first_number)

    def turn(
        self,
        *begin: Question,
        outside: Outside | None = None,
        notes: Sequence[Note] = (),
        wait: Sequence[Question] | None = None,
    ) -> tuple[list[Question], Answers]:
        """One turn: what a worker was asked, and what the search is sent."""
        ask = Ask(begin=begin, wait=begin if wait is None else tuple(wait), notes=tuple(notes))
        asked: list[Question] = [*self.log.begin(ask)]
        for question in asked:
            self.log.add(_answer(question))
        return asked, self.log.answers(ask, lambda: outside or _outside())

    def told(self, *begin: Question, outside: Outside) -> Outside:
        """What a turn says of the outside."""
        return self.turn(*begin, outside=outside)[1].outside

    def recalled(self, key: int | str) -> Any:
        """What the log knows of a decision."""
        (found,) = self.turn(wait=[Recall(key=key)])[1].given
        return found


@contextmanager
def _run(config: StudyConfig, *, first_number: int = 0) -> Iterator[_Run]:
    """A run of the study, the first one or one that resumes it."""
    with create_or_resume(config, {}) as store:
        yield _Run(store, first_number=first_number)


# -- questions and answers -----------------------------------------------------------------


def test_what_has_an_answer_is_not_asked_again_and_what_has_none_is(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    score = Score(proxy="mixture", trials=PUBLISHED[:2])
    others = [score, _polish(FIRST), RealImages(n_images=60, seed=1)]
    questions: list[Any] = [_measure(FIRST), _measure(SECOND), *others]
    questions += [_measure(FIRST, Rung.FINALS), _measure(FIRST, Rung.VALIDATION)]
    unanswered: list[Any] = [_measure(THIRD), _polish(THIRD), _measure(THIRD, Rung.FINALS)]
    with _run(config) as first:
        asked, before = first.turn(*questions)
        assert asked == questions
        again, known = first.turn(*questions)
        assert (again, known.given) == ([], before.given)
        assert first.log.begin(Ask(begin=tuple(unanswered))) == unanswered  # killed here
    with _run(config) as resumed:
        asked, after = resumed.turn(*questions, *unanswered)
        assert asked == unanswered
    given = [*before.given, *map(_answer, unanswered)]
    for found, expected in zip(after.given, given, strict=True):
        assert found.question == expected.question
        if isinstance(expected, Answer):
            assert found == expected
        else:
            assert (found.value, found.cost) == (expected.value, expected.cost)
    with _run(config) as done:
        assert done.turn(*questions, *unanswered)[0] == []


def test_the_limits_of_guards_are_known_again(tmp_path: Path) -> None:
    """Else what is measured after a kill would be no trial that is infeasible in Optuna."""
    guard = 'metric.guard=[{features = "digits", at_most = 1.1}]'
    config, best = study_config(tmp_path, guard), Trial.of(FIRST.schedule, published_as("DDIM"))
    with _run(config) as first:
        first.log.begin(Ask(begin=(_measure(best),)))
        first.log.add(replace(_answer(_measure(best)), guards=(1.0,)))
    broken = replace(_answer(_measure(SECOND)), guards=(2.0,))
    with create_or_resume(config, {}) as store:
        resumed = _Run(store)
        assert resumed.log.limits.excesses(broken)[0] > 0.0
        resumed.log.begin(Ask(begin=(_measure(SECOND),)))
        resumed.log.add(broken)
        resumed.log.flush()
    trials = optuna.load_study(study_name=config.study.name, storage=config.storage.url).trials
    said = [each.system_attrs["constraints"][0] > 0.0 for each in trials]
    assert said == [False, True]


def test_what_failed_or_stopped_early_is_known_as_it_was(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    questions = [_measure(trial) for trial in (FIRST, SECOND)]
    answers = [
        Measurement(question=questions[0], error="EvaluationFailed: no", seconds=0.5),
        Measurement(question=questions[1], estimate=0.9, n_images=10, path={10: 0.9}),
    ]
    failed = Answer(question=_polish(FIRST), error="EvaluationFailed: no", network_calls=7)
    with _run(config) as first:
        first.log.begin(Ask(begin=(*questions, failed.question)))
        for answer in (*answers, failed):
            first.log.add(answer)
    with _run(config) as resumed:
        asked, found = resumed.turn(*questions, failed.question)
    assert asked == []
    names = ("estimate", "value", "error", "n_images", "cost", "rung", "path", "seconds")
    for one, other in zip(found.given[:2], answers, strict=True):
        assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
    assert found.given[2] == failed


def test_a_stopped_measurement_is_no_answer_where_a_whole_one_is_asked_for(tmp_path: Path) -> None:
    config, question = study_config(tmp_path), _measure(FIRST)
    whole = replace(question, is_whole=True)
    stopped = Measurement(question=question, estimate=0.5, n_images=10)
    with _run(config) as run:
        run.log.begin(Ask(begin=(question,)))
        run.log.add(stopped)
        asked, answers = run.turn(whole)
        assert asked == [whole]
        assert answers.given[0].value is not None
        assert run.turn(question)[1].given == (stopped,)
        assert run.turn(_measure(SECOND))[0]
        assert run.turn(replace(_measure(SECOND), is_whole=True))[0] == []  # it is whole
    with _run(config) as run:  # from its beginning
        asked, answers = run.turn(question, whole)
        early, late = answers.given
        assert asked == []
        assert (early.value, early.rung, early.n_images) == (None, Rung.STOPPED, 10)
        assert (late.value, late.n_images) == (_answer(whole).estimate, 30)


def test_nothing_is_asked_before_it_is_written(tmp_path: Path) -> None:
    with create_or_resume(study_config(tmp_path), {}) as store:
        log = Log(store)
        log.begin(Ask(begin=(_measure(FIRST), _measure(SECOND))))
        written = [(t.number, t.id, t.origin, t.parents) for t in store.trials()]
        assert written == [(0, A, FIRST.origin, ("a",)), (1, B, SECOND.origin, ("a",))]
        assert store.n_pending() == 2


def test_a_schedule_is_one_trial_of_optuna_under_its_first_origin(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    other = Trial.of(FIRST.schedule, searched("a child"))
    with create_or_resume(config, {}) as store:
        run = _Run(store)
        run.turn(_measure(SECOND), _measure(FIRST))
        run.turn(_measure(other))
        run.log.flush()
        frozen = store.mirror._opened().study.get_trials()
        first = run.log.trial(A)
    assert first is not None
    assert (first.number, first.origin) == (1, FIRST.origin)
    assert [number for number, *_ in trials(config.storage.url)] == [0, 1]
    assert [each.user_attrs["origin"] for each in frozen] == ["test", "test"]


def test_a_validation_is_asked_again_when_a_second_metric_came_later(tmp_path: Path) -> None:
    question, failing = (_measure(trial, Rung.VALIDATION) for trial in (FIRST, SECOND))
    with _run(study_config(tmp_path)) as first:
        assert first.turn(question)[0] == [question]
        first.log.add(Measurement(question=failing, error="EvaluationFailed: no"))
    with _run(study_config(tmp_path)) as resumed:
        assert resumed.turn(question, failing)[0] == []
    later = study_config(tmp_path, SECOND_METRIC)
    with create_or_resume(later, {}) as store:
        log = Log(store)
        assert log.begin(Ask(begin=(question, failing))) == [question]
        measured = _answer(question)
        assert isinstance(measured, Measurement)
        second = Measurement(question=question, estimate=0.7, n_images=60, of_second=True)
        log.add(Measurement(question=question, estimate=0.9, n_images=60, second=second))
        assert question in log
        assert store.values(Rung.VALIDATION, 60) == {A: measured.value, B: None}
        assert store.values(Rung.SECOND_METRIC, 60) == {A: 0.7}
    with _run(later) as done:
        assert done.turn(question, failing)[0] == []


def test_a_polish_of_before_the_loss_could_be_chosen_is_not_asked_again(tmp_path: Path) -> None:
    question = _polish(FIRST)
    parts = ("polish", A, 2, 4, 0, False)  # as written by version 0.1
    assert question.key == hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    with create_or_resume(study_config(tmp_path), {}) as store:
        run = _Run(store)
        assert run.turn(question)[0] == [question]
        assert store.answered([question]).keys() == {question.key}
        assert run.turn(question)[0] == []


def test_what_an_earlier_version_of_the_space_measured_is_paid(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    with _run(config) as first:
        first.turn(_measure(FIRST), _measure(SECOND))
    for _ in range(2):
        with _run(config, first_number=2) as wider:
            _, found = wider.turn(_measure(FIRST), _measure(THIRD))
            assert [each.cost for each in found.given] == [0, 30]
            assert wider.log.trial(THIRD.id).number == 2


# -- what a search decided -----------------------------------------------------------------


def _facts(decision: Any) -> Any:
    return decision and [(t.number, t.id, t.origin, t.parents) for t in decision.trials]


def test_trials_are_recalled_by_number(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    with _run(config) as first:
        assert first.recalled(0) is None
        first.turn(_measure(FIRST.numbered(0)), _measure(SECOND.numbered(1)))
        first.log.begin(Ask(begin=(_measure(FIRST.numbered(2)),)))  # again, under a number more
    with _run(config) as resumed:
        found = [_facts(resumed.recalled(number)) for number in range(4)]
    expected = [(0, FIRST), (1, SECOND), (2, FIRST)]
    assert found == [*([(n, t.id, t.origin, t.parents)] for n, t in expected), None]
    with _run(config, first_number=3) as wider:  # its own numbers begin at 0 again
        assert wider.recalled(0) is None
        wider.turn(_measure(THIRD.numbered(0)))
    with _run(config, first_number=3) as wider:
        assert _facts(wider.recalled(0)) == [(0, THIRD.id, THIRD.origin, THIRD.parents)]
        assert wider.recalled(1) is None


def _decided(key: str, *trials: Trial) -> Note:
    content = {"key": key, "schedules": [t.id for t in trials], "content": {"n": len(trials)}}
    return Note(kind=DECISION, content=content)


def test_decisions_are_recalled_by_key_all_but_the_last(tmp_path: Path) -> None:
    config = study_config(tmp_path)

    def decide(run: _Run) -> None:
        run.turn(_measure(FIRST))
        run.turn(_measure(SECOND), _measure(THIRD), notes=[_decided("one", SECOND, THIRD)])
        run.turn(_measure(PUBLISHED[3]), notes=[_decided("two", PUBLISHED[3])])

    with _run(config) as first:
        assert first.recalled("one") is None
        decide(first)
    with _run(config) as resumed:
        assert resumed.recalled("one") is None  # it has not come there yet
        resumed.turn(_measure(FIRST))
        found = resumed.recalled("one")
        assert [trial.id for trial in found.trials] == [B, THIRD.id]
        assert found.content == {"n": 2}
        resumed.turn(_measure(SECOND), _measure(THIRD))
        assert resumed.recalled("two") is None  # nothing may have followed it
        decide(resumed)
    with _run(config) as elsewhere:
        elsewhere.turn(_measure(SECOND))
        assert elsewhere.recalled("one") is None  # it was another search that decided this
    with _run(config, first_number=1) as wider:
        wider.turn(_measure(FIRST))
        assert wider.recalled("one") is None


# -- what is told of the outside -----------------------------------------------------------


def test_the_same_is_heard_at_the_same_point_and_what_is_new_at_the_frontier(
    tmp_path: Path,
) -> None:
    config = study_config(tmp_path)
    first, second, third = (_measure(trial) for trial in PUBLISHED[:3])
    with _run(config) as run:
        assert run.told(outside=_outside()) == _outside()
        assert run.told(outside=_outside(A)) == _outside()  # once at each point
        assert run.told(first, outside=_outside(A)) == _outside(A)
        assert run.told(second, outside=_outside(A)) == _outside(A)
        assert run.told(third, outside=_outside(A)) == _outside(A)
    for later in (_outside(A, B), _outside()):  # a veto more, and all of them lifted
        with _run(config) as run:
            assert run.told(outside=later) == _outside()
            assert run.told(first, outside=later) == _outside(A)
            assert run.told(second, outside=later) == _outside(A)
            assert run.told(third, outside=later) == _outside(A, B)  # as it was told there first
            fourth = _measure(PUBLISHED[3])
            assert run.told(fourth, outside=later) == later


def test_what_is_told_to_a_search_that_goes_another_way_is_what_holds_now(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    with _run(config) as run:
        for trial in PUBLISHED[:4]:
            run.turn(_measure(trial))
    with _run(config) as run:
        assert run.told(_measure(FIRST), outside=_outside(A)) == _outside()
        assert run.told(_measure(PUBLISHED[4]), outside=_outside(A)) == _outside(A)


@pytest.mark.parametrize("question", [_polish(FIRST), _measure(FIRST, Rung.FINALS)])
def test_a_replay_hears_the_same_where_polishing_or_finals_hung_on_it(
    tmp_path: Path, question: Question
) -> None:
    config = study_config(tmp_path)
    with _run(config) as run:
        run.turn()
        run.turn(_measure(FIRST))
        run.turn(question)  # which a veto would have forbidden
    with _run(config) as run:
        assert run.told(outside=_outside(A)) == _outside()
        assert run.told(_measure(FIRST), outside=_outside(A)) == _outside()
        assert run.turn(question, outside=_outside(A))[0] == []
        assert run.told(_measure(SECOND), outside=_outside(A)) == _outside(A)


def test_a_validation_hangs_on_nothing_that_the_search_was_told(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    with _run(config) as run:
        run.turn()
        run.turn(_measure(FIRST))
        run.turn(RealImages(n_images=60, seed=1))
        run.turn(_measure(FIRST, Rung.VALIDATION))
    with _run(config) as run:  # which goes on with a larger budget
        assert run.told(outside=_outside(A)) == _outside()
        assert run.told(_measure(FIRST), outside=_outside(A)) == _outside(A)


def test_what_earlier_releases_noted_of_vetoes_is_heard(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    points = [hashlib.sha256(b"0"), hashlib.sha256(b"0" + A.encode())]
    with create_or_resume(config, {}) as store:
        for point, vetoed in zip(points, ([], [A]), strict=True):
            note = {"point": point.hexdigest()[:32], "schedules": vetoed}
            store.add_note("vetoed", note)
        Log(store).begin(Ask(begin=(_measure(FIRST), _measure(SECOND), _measure(THIRD))))
    with _run(config) as run:
        assert run.told(outside=_outside(B)).vetoed == frozenset()
        assert run.told(_measure(FIRST), outside=_outside(B)).vetoed == {A}
        assert run.told(_measure(SECOND), outside=_outside(B)).vetoed == {A}
        assert run.told(_measure(THIRD), outside=_outside(B)).vetoed == {B}


def test_the_time_is_over_again_only_under_the_same_limits(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    question = _measure(FIRST)
    short, long = "wall_seconds=1.0", "wall_seconds=9.0"
    with _run(config) as run:
        run.turn(outside=_outside(limits=short))
        over = _outside(A, is_over=True, limits=short)
        assert run.told(question, outside=over) == over
    for limits, is_over in ((short, True), (long, False), (long, False), (short, True)):
        with _run(config) as run:
            present = _outside(A, limits=limits)
            assert not run.told(outside=present).is_over
            told = run.told(question, outside=present)
            assert told == _outside(A, is_over=is_over, limits=limits)
    with _run(config) as run:  # a veto of then holds under whatever limits
        run.turn(outside=_outside(limits="evaluations=9"))
        assert run.told(question, outside=_outside(limits="evaluations=9")).vetoed == {A}


def test_a_budget_of_time_is_told_as_it_was_unless_it_is_another(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    questions = [_measure(trial) for trial in PUBLISHED[:4]]

    def told(limits: str, *budgets: float) -> list[float]:
        with _run(config) as run:
            turns: Mapping[int, list[Question]] = {
                0: [],
                **dict(enumerate([[q] for q in questions], 1)),
            }
            return [
                run.told(*turns[i], outside=_outside(budget=budget, limits=limits)).budget
                for i, budget in enumerate(budgets)
            ]

    # it is an estimate, and told when it has moved by a twentieth
    assert told("wall_seconds=1.0", 100.0, 104.0, 120.0, 125.0) == [100.0, 100.0, 120.0, 120.0]
    assert told("wall_seconds=1.0", *[500.0] * 4) == [100.0, 100.0, 120.0, 500.0]
    assert told("wall_seconds=9.0", *[900.0] * 3)[0] == 900.0
    assert told("wall_seconds=9.0", *[950.0] * 3)[0] == 900.0
    assert told("wall_seconds=1.0", *[700.0] * 4) == [100.0, 100.0, 120.0, 500.0]


# -- a search that is run again ------------------------------------------------------------


class _Listening(RandomSearch):
    """Writes down what it is told."""

    def __init__(self, setup: Any, told: list[tuple[int | None, str, float | None]]) -> None:
        super().__init__(setup)
        self._told = told

    def tell(self, measured: Measurement) -> None:
        self._told.append((measured.trial.number, measured.trial.id, measured.value))
        super().tell(measured)


def test_what_the_search_made_and_measured_is_told_again_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked = study_config(tmp_path), list[Request]()
    told: list[list[tuple[int | None, str, float | None]]] = []
    evaluator = Evaluator(config.evaluator_spec)

    def work(request: Request) -> Reply:
        asked.append(request)
        return evaluator(request)

    setup = setup_of(load_space("usf"), edm(), nfe=[3], n_images=30, evaluations=6, batch=2)
    for _ in range(2):
        told.append([])
        search = Sequential(setup, lambda: _Listening(setup, told[-1]), n_seeds=0)
        pool: InlinePool[Request, Reply] = InlinePool(lambda: work)
        with create_or_resume(config, {}) as store:
            start = Prepared(description=evaluator.describe(), search=search)
            Driver(store, pool, start, lambda _: None)._converse(search.run())
        monkeypatch.setattr(Schedule, "from_dict", None)
    assert told[0] == told[1]
    assert [number for number, *_ in told[0]] == list(range(6))
    assert len(asked) == 6
