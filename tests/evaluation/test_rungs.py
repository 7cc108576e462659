"""What works for a model and metric is said, and what does not, with the reason and a remedy."""

from typing import Any

import numpy as np
import pytest

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Status
from s3search.evaluation.sanity.rungs import rungs_of
from s3search.evaluation.spec import EvaluatorSpec, MetricSpec
from s3search.search.direction import Direction
from s3search.show.terminal.rungs import rung_lines

DIGITS = MetricSpec(name="digits")
SCORE = MetricSpec(
    name="tests.support.plugins:asked_digit", kind="score", direction=Direction.MAXIMIZE
)
MIND = MetricSpec(name="digits", kind="mind", where="validation.metric")


def _absent(metric: MetricSpec, **changes: Any) -> dict[str, str]:
    spec = EvaluatorSpec(model="digits", metric=metric, **changes)
    found = list(rungs_of(Evaluator(spec)))
    assert all(each.message for each in found)
    return {each.check: each.message for each in found if each.status is not Status.OK}


def test_with_all_there_is_everything_works() -> None:
    assert _absent(DIGITS, reference="digits", second=MIND) == {}


def test_a_score_alone_has_no_proxies_and_says_so() -> None:
    absent = _absent(SCORE)
    assert set(absent) == {"gaussian", "mixture", "second metric", "real images"}
    assert "[reference]" in absent["gaussian"]
    assert "no features" in absent["mixture"]
    assert "[validation.metric]" in absent["second metric"]
    assert set(_absent(SCORE, reference="digits", second=MIND)) == {"mixture", "real images"}


def test_statistics_in_a_file_have_no_images(tmp_path: Any) -> None:
    np.savez(tmp_path / "ref.npz", mu=np.zeros(64), sigma=np.eye(64))
    options = {"path": str(tmp_path / "ref.npz")}
    absent = _absent(DIGITS, reference="npz", reference_options=options)
    assert set(absent) == {"gaussian", "mixture", "real images", "second metric"}


def test_an_extractor_without_a_gradient_is_named_with_its_reason() -> None:
    numpy = MetricSpec(name="tests.support.slips:pixels_in_inference")
    spec = EvaluatorSpec(
        model="tests.support.slips:load",
        metric=numpy,
        reference="tests.support.slips:images",
    )
    found = {each.check: each for each in rungs_of(Evaluator(spec))}
    assert found["gradient"].status is Status.WARNING
    assert "by differences" in found["gradient"].message
    assert "metric.features" in found["gradient"].message


@pytest.mark.parametrize("works", [True, False])
def test_lines_name_what_works_and_what_does_not(works: bool) -> None:
    said = "none is named"
    lines = list(rung_lines([{"rung": "mixture", "works": works, "says": said}]))
    expected = "works with this model and metric: mixture proxy"
    assert lines == [expected if works else "does not: mixture proxy: none is named"]
