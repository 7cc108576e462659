"""Populations: what is measured alone, in fewer network calls; who fails or leaves, alone."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Population
from s3search.models import digits
from s3search.processes import edm
from s3search.rules import StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Measure, Measurement, Rung, measure
from tests.support.specs import evaluator_spec

SCHEDULES = (
    published.unipc(edm(), nfe=4),
    published.ddim(edm(), nfe=2),
    published.dpmpp_2m(edm(), nfe=4, spacing=published.Spacing.KARRAS),
    published.ddim(edm(), nfe=3),
)


class _Watched:
    """Digits that count the images of their calls, and may be wrong in several ways."""

    def __init__(self, broken_at: float, nan_at: float, reads: str) -> None:
        self._inner = digits.load()
        self.process, self.sample_shape = self._inner.process, self._inner.sample_shape
        self.condition = self._inner.condition
        self.sizes = list[int]()
        self.most, self._broken_at, self._nan_at = 10**6, broken_at, nan_at
        self._reads_first = reads == "first"

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if torch.isclose(t, torch.tensor(self._broken_at)).any():
            raise ZeroDivisionError("a plug-in's")
        answer = self._inner(x, t[0].expand(len(x)) if self._reads_first else t, labels)
        bad = torch.isclose(t, torch.tensor(self._nan_at))
        return torch.where(bad.reshape(-1, 1, 1, 1), torch.nan, answer)


def watched(broken_at: float = -1.0, nan_at: float = -1.0, reads: str = "all") -> _Watched:
    """The loader of a study file."""
    return _Watched(broken_at, nan_at, reads)


def _evaluator(batch_size: int = 1000, **options: Any) -> Evaluator:
    model = f"{__name__}:watched"
    return Evaluator(
        evaluator_spec(
            model=model,
            model_options=options,
            features="digits",
            reference="digits",
            batch_size=batch_size,
        )
    )


def _questions(*schedules: Schedule, n_images: int = 120) -> tuple[Measure, ...]:
    return tuple(measure(s, rung=Rung.SEARCH, n_images=n_images, noise_seed=3) for s in schedules)


@pytest.fixture(scope="module")
def plain() -> Evaluator:
    return _evaluator()


def _replies(evaluator: Evaluator, questions: tuple[Measure, ...]) -> tuple[Measurement, ...]:
    reply = evaluator(Population(questions=questions))
    assert isinstance(reply, tuple)
    found = tuple(each for each in reply if isinstance(each, Measurement))
    assert tuple(each.question for each in found) == questions
    return found


def _measured(evaluator: Evaluator, questions: tuple[Measure, ...]) -> tuple[Measurement, ...]:
    found = _replies(evaluator, questions)
    assert [each.error for each in found] == [None] * len(questions)
    return found


def _assert_alike(found: Measurement, alone: Measurement) -> None:
    """Equal but for rounding and for times."""
    times = {"seconds": 0.0, "sampling_seconds": 0.0}
    assert found.estimate is not None
    assert found.estimate == pytest.approx(alone.estimate, rel=1e-5)
    if alone.standard_error is not None:
        assert found.standard_error == pytest.approx(alone.standard_error, rel=1e-3)
    assert found.path == pytest.approx(alone.path, rel=1e-4)
    numbers = {"estimate": 0.0, "standard_error": None, "path": {}}
    assert replace(found, **times, **numbers) == replace(alone, **times, **numbers)


def test_each_schedule_is_measured_as_alone_with_a_call_for_all(plain: Evaluator) -> None:
    questions, fresh = _questions(*SCHEDULES), _evaluator()
    for found, question in zip(_measured(fresh, questions), questions, strict=True):
        _assert_alike(found, plain.evaluate(question))
    tried = [4, 4, 8]  # whether it reads every time
    assert fresh.denoiser.sizes == [*tried, 120, 4 * 120, 3 * 120, 2 * 120]  # the first is alike


def test_schedules_with_the_same_noise_so_far_share_their_calls(plain: Evaluator) -> None:
    first = published.ddim(edm(), nfe=4, eta=0.5)
    steps = [s.model_copy(update={"noise": StepNoise(amount=0.2)}) for s in first.steps[:3]]
    later = first.changed(steps=[*first.steps[:2], steps[2], first.steps[3]])
    other = first.changed(steps=[steps[0], *first.steps[1:]])
    questions, fresh = _questions(first, later, other), _evaluator()
    for found, question in zip(_measured(fresh, questions), questions, strict=True):
        _assert_alike(found, plain.evaluate(question))
    assert fresh.denoiser.sizes[3:] == [120, 2 * 120, 2 * 120, 3 * 120]


def test_those_above_their_thresholds_leave_the_population_there(plain: Evaluator) -> None:
    first, second, third, fourth = _questions(*SCHEDULES)
    stopped = (
        replace(first, thresholds=((30, 1e9), (60, 1e9))),
        replace(second, thresholds=((30, 0.0), (60, 0.0))),
        third,
        replace(fourth, thresholds=((60, 0.0),)),
    )
    fresh = _evaluator()
    found = _measured(fresh, stopped)
    for own, question in zip(found, stopped, strict=True):
        _assert_alike(own, plain.evaluate(question))
    assert [own.n_images for own in found] == [120, 30, 120, 60]
    assert [own.rung for own in found] == [Rung.SEARCH, Rung.STOPPED, Rung.SEARCH, Rung.STOPPED]
    assert fresh.denoiser.sizes[3:] == [
        *(30, 120, 90, 60),  # 30 images of four schedules, the first call alike
        *(30, 90, 90, 60),  # 30 more of three
        *(60, 120, 120, 120),  # the other 60 of two
    ]


def test_a_schedule_that_begins_as_another_did_goes_on_from_there(plain: Evaluator) -> None:
    fresh = _evaluator()
    questions = _questions(*SCHEDULES)
    for question in questions:
        assert fresh.evaluate(question).value == plain.evaluate(question).value
    assert fresh.denoiser.sizes == [120] * (4 + 1 + 3 + 2)
    fresh.evaluate(replace(questions[0], noise_seed=9))
    fresh.evaluate(replace(questions[0], n_images=90))
    assert fresh.denoiser.sizes[10:] == [*[120] * 4, *[90] * 4]


def test_the_seconds_of_all_are_the_workers_shared_by_network_calls(plain: Evaluator) -> None:
    questions = tuple(replace(r, noise_seed=11) for r in _questions(*SCHEDULES))
    began = time.perf_counter()
    long, short, *_ = found = _measured(plain, questions)
    elapsed = time.perf_counter() - began
    assert sum(own.seconds for own in found) <= elapsed
    assert long.seconds > short.seconds
    assert long.sampling_seconds == pytest.approx(2 * short.sampling_seconds)
    assert all(0 < own.sampling_seconds < own.seconds for own in found)
    assert [own.network_calls for own in found] == [480, 240, 480, 360]


@pytest.mark.parametrize("how", ["nan_at", "broken_at"])
def test_a_schedule_that_fails_fails_alone(how: str, plain: Evaluator) -> None:
    bad = SCHEDULES[3]
    evaluator = _evaluator(**{how: bad.times[1]})
    questions = _questions(*SCHEDULES)
    *good, failed = _replies(evaluator, questions)
    expected = {
        "nan_at": "EvaluationFailed: the images are not finite",
        "broken_at": "ZeroDivisionError: a plug-in's",
    }
    assert failed.error == expected[how]
    assert (failed.estimate, failed.value, failed.second) == (None, None, None)
    assert failed.seconds > 0
    for own, question in zip(good, questions[:3], strict=True):
        alone = replace(plain.evaluate(question), model_fingerprint=evaluator.model_fingerprint)
        assert own.error is None
        _assert_alike(own, alone)


def test_patched_and_validated_schedules_are_measured_alone() -> None:
    spec = evaluator_spec(
        model="tests.support.plugins:guided", features="tests.support.plugins:pixels",
        reference="tests.support.plugins:images",
    )  # fmt: skip
    evaluator = Evaluator(spec)
    guided = [published.with_guidance(SCHEDULES[0], [1.0, s, 1.0, 1.0]) for s in (1.01, 1.02)]
    questions = _questions(*guided)
    for found, question in zip(_measured(evaluator, questions), questions, strict=True):
        _assert_alike(found, evaluator.evaluate(question))
    held_out = tuple(
        replace(question, rung=Rung.VALIDATION) for question in _questions(*SCHEDULES[:2])
    )
    seen_twice = _gaussian(second_features="tests.support.plugins:squares")
    for found, question in zip(_measured(seen_twice, held_out), held_out, strict=True):
        assert found.second is not None
        assert found.replicates == seen_twice.evaluate(question).replicates


def _gaussian(**changes: Any) -> Evaluator:
    spec = {
        "features": "tests.support.plugins:pixels",
        "reference": "tests.support.plugins:images",
    }
    return Evaluator(evaluator_spec(model="tests.support.plugins:gaussian", **(spec | changes)))


def test_a_model_that_reads_its_first_time_alone_is_found_out() -> None:
    evaluator = _evaluator(reads="first")
    questions = _questions(*SCHEDULES)
    with pytest.warns(RuntimeWarning, match=r"at the time of the first: .*one by one"):
        found = _measured(evaluator, questions)
    for own, question in zip(found, questions, strict=True):
        assert own.value == evaluator.evaluate(question).value
    _measured(evaluator, questions)  # without a second warning: warnings are errors here


@pytest.mark.parametrize(("most", "largest"), [(30, 16), (3, 2)])
def test_where_memory_runs_out_images_are_fewer_and_then_schedules(
    most: int, largest: int, plain: Evaluator
) -> None:
    questions = _questions(*SCHEDULES, n_images=20)
    evaluator = _evaluator(64)
    evaluator.population(Population(questions=_questions(*SCHEDULES, n_images=2)))
    evaluator.denoiser.most = most
    with pytest.warns(RuntimeWarning, match="out of memory while sampling"):
        found = _measured(evaluator, questions)
    alone = [plain.evaluate(question).value for question in questions]
    np.testing.assert_allclose([own.value for own in found], alone, rtol=1e-4)
    evaluator.denoiser.sizes.clear()
    others = tuple(replace(question, noise_seed=4) for question in questions)
    _measured(evaluator, others)  # what failed is not tried again: warnings are errors here
    assert max(evaluator.denoiser.sizes) == largest


def test_other_noise_and_other_numbers_of_images_are_stacks_of_their_own(
    plain: Evaluator,
) -> None:
    first, second, third, fourth = _questions(*SCHEDULES)
    questions = (
        replace(first, noise_seed=8),
        replace(second, n_images=50),
        replace(third, noise_seed=8),
        replace(fourth, n_images=50),
    )
    for found, question in zip(_measured(plain, questions), questions, strict=True):
        _assert_alike(found, plain.evaluate(question))


def test_a_population_of_one_is_an_evaluation(plain: Evaluator) -> None:
    (question,) = _questions(SCHEDULES[0])
    (found,) = _measured(plain, (question,))
    assert found.value == plain.evaluate(question).value
