"""Batches that do not fit are halved, and what is made stays the same."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.memory import BatchSize, size_for_memory
from s3search.models import digits
from s3search.processes import edm
from s3search.schedules import published
from s3search.search.questions import Measure, Polish, Rung, Score, measure
from s3search.search.trial import Trial, seeded
from tests.support.specs import evaluator_spec

SCHEDULE = published.ddim(edm(), nfe=2)
TRIAL = Trial.of(SCHEDULE, seeded("given"))


class _Small:
    """Digits on a GPU that has memory for ``most`` images."""

    def __init__(self, most: int) -> None:
        self._inner = digits.load()
        self.process, self.sample_shape = self._inner.process, self._inner.sample_shape
        self.condition = self._inner.condition
        self.most, self.sizes = most, list[int]()

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self._inner(x, t, labels)


def small(most: int) -> _Small:
    """The loader of a study file."""
    return _Small(most)


def _evaluator(most: int, **changes: Any) -> Evaluator:
    spec: dict[str, Any] = {"features": "digits", "reference": "digits", "batch_size": 128}
    model = "tests.evaluation.test_memory:small"
    return Evaluator(evaluator_spec(model=model, model_options={"most": most}, **(spec | changes)))


def _question(n_images: int) -> Measure:
    return measure(SCHEDULE, rung=Rung.SEARCH, n_images=n_images, noise_seed=3)


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_says_so() -> None:
    evaluator = _evaluator(most=40)
    with pytest.warns(RuntimeWarning, match="out of memory") as caught:
        images = evaluator.images(SCHEDULE, 300, 3)
    assert [str(w.message).partition(";")[0].split()[-2] for w in caught] == ["128", "64"]
    assert "cluster.batch_size to 32" in str(caught[-1].message)
    assert max(evaluator.denoiser.sizes[2:]) == 32  # what failed is not tried again
    expected = _evaluator(most=1000).images(SCHEDULE, 300, 3)
    torch.testing.assert_close(images, expected)


def test_the_value_of_a_halved_evaluation_is_the_same() -> None:
    evaluator = _evaluator(most=40)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        found = evaluator.evaluate(_question(300))
    expected = _evaluator(most=1000).evaluate(_question(300))
    assert found.n_images == expected.n_images == 300
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-5)
    again = evaluator.evaluate(_question(300))  # without a warning: warnings are errors here
    assert again.value == found.value


def test_proxies_halve_their_batches_too() -> None:
    question = Score(proxy="trajectory", trials=(TRIAL,), n_images=120, noise_seed=3)
    with pytest.warns(RuntimeWarning, match="sampling for a proxy"):
        found = _evaluator(most=60)(question)
    expected = _evaluator(most=1000)(question)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    assert found.network_calls == expected.network_calls


def test_memory_for_not_even_one_image_is_a_failure_that_says_what_would_do() -> None:
    evaluator = _evaluator(most=0, batch_size=2)
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(EvaluationFailed, match=r"a single image; use a GPU with more memory"),
    ):
        evaluator.images(SCHEDULE, 5, 0)


def test_a_size_above_what_is_there_is_halved_from_what_is_there() -> None:
    tried = list[int]()

    def run(size: int) -> int:
        tried.append(size)
        if size > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return size

    sizes = BatchSize(100, "testing")
    with pytest.warns(RuntimeWarning):
        assert sizes.fitting(run, 10) == 2
    assert tried == [10, 5, 2]


def test_a_polish_starts_again_with_smaller_batches() -> None:
    question = Polish(trial=TRIAL, iterations=2, n_images=8, seed=0, noise_seed=5)
    with pytest.warns(RuntimeWarning, match="following a gradient with batches of 8"):
        found = _evaluator(most=6).polish(question)
    expected = _evaluator(most=1000, batch_size=4).polish(question)
    np.testing.assert_allclose(found.made.losses, expected.made.losses, rtol=1e-6)


def test_a_batch_takes_half_of_the_memory_that_is_free() -> None:
    sizes = list[int]()

    def peak_of(n: int) -> int:
        sizes.append(n)
        return (10_000 if len(sizes) == 1 else 500) + 30 * n

    assert size_for_memory(peak_of, 60_000, 10_000) == 1000
    assert size_for_memory(peak_of, 60_000, 64) == 64
    assert size_for_memory(peak_of, 10, 64) == 1
    assert max(sizes) == 8
    assert size_for_memory(lambda n: 7, 60_000, 256) == 256
