"""The trajectory's error is paid for, and kept only where it says more than a first look."""

from collections.abc import Sequence

import numpy as np
import pytest

from s3search.processes import edm
from s3search.schedules.published import baselines
from s3search.search.conversation import Talk
from s3search.search.predictor.trajectory import TrajectoryFilter
from s3search.search.questions import Answer, Measurement, Question, Score
from s3search.search.space import load_space
from s3search.search.trial import Trial
from tests.support.searches import Bench, measured, published, setup_of

SETUP = setup_of(load_space("usf"), edm(), nfe=[4])
TRIALS = published(dict(list(baselines(edm(), 4).items())[:40]))
TRUE = {trial.id: 1.0 + i for i, trial in enumerate(TRIALS)}


class _Tracing(Bench):
    """Only traces, with an error of as many ranks as ``wrong``."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        noise = np.random.default_rng(0).normal(size=len(TRIALS))
        self._errors = {
            trial.id: TRUE[trial.id] + wrong * float(e)
            for trial, e in zip(TRIALS, noise, strict=True)
        }

    @property
    def traced(self) -> list[str]:
        """Ids of what was asked for, in order."""
        scores = [question for question in self.asked if isinstance(question, Score)]
        return [trial.id for question in scores for trial in question.trials]

    def answer(self, question: Question) -> Answer:
        assert isinstance(question, Score) and question.proxy == "trajectory"
        assert question.n_images == 10
        value = tuple(self._errors[trial.id] for trial in question.trials)
        return Answer(question=question, value=value)


def _filter(*, is_used: bool = True) -> TrajectoryFilter:
    return TrajectoryFilter(SETUP, Talk(), is_used=is_used)


def _measured(trials: Sequence[Trial], wrong: float) -> list[Measurement]:
    """Whole measurements whose first look is wrong by so many ranks."""
    noise = np.random.default_rng(1).normal(size=len(trials))
    return [
        measured(
            trial,
            TRUE[trial.id],
            path={
                10: TRUE[trial.id] + wrong * float(e),
                20: TRUE[trial.id],
                40: TRUE[trial.id],
            },
        )
        for trial, e in zip(trials, noise, strict=True)
    ]


def test_where_a_first_look_says_little_the_error_chooses() -> None:
    bench, errors = _Tracing(wrong=1.0), _filter()
    bench.run(errors.learn(_measured(TRIALS[:24], wrong=30.0)))
    assert errors.is_used
    children = TRIALS[24:][::-1]
    kept = bench.run(errors.best(children, 8))
    assert len(kept) == 8
    ranks = [TRUE[children[i].id] for i in kept]
    assert np.mean(ranks) < np.mean([TRUE[trial.id] for trial in children]) - 3


def test_where_a_first_look_says_more_the_error_is_not_asked_for_again() -> None:
    bench, errors = _Tracing(wrong=30.0), _filter()
    bench.run(errors.learn(_measured(TRIALS[:24], wrong=1.0)))
    assert not errors.is_used
    bench.run(errors.learn(_measured(TRIALS[24:], wrong=30.0)))
    assert bench.traced == [trial.id for trial in TRIALS[:24]]


def test_too_few_schedules_are_no_evidence() -> None:
    errors = _filter()
    _Tracing().run(errors.learn(_measured(TRIALS[:8], wrong=30.0)))
    assert not errors.is_used


def test_every_schedule_is_paid_for_once_and_the_fine_solve_with_the_first() -> None:
    bench, errors = _Tracing(), _filter()
    bench.run(errors.learn(_measured(TRIALS[:24], wrong=30.0)))
    assert errors.images == pytest.approx(24 * 10 + 10 * 32 / 4)
    bench.run(errors.best(TRIALS[20:30], 5))
    assert errors.images == pytest.approx(30 * 10 + 10 * 32 / 4)


def test_without_the_rung_nothing_is_asked() -> None:
    bench, errors = _Tracing(), _filter(is_used=False)
    bench.run(errors.learn(_measured(TRIALS[:24], wrong=30.0)))
    assert (bench.asked, errors.images) == ([], 0.0)
