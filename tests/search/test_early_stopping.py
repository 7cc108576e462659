"""Which schedules are stopped early, and when none may be."""

import math

from s3search.processes import edm
from s3search.schedules.published import ddim
from s3search.search.early_stopping import SCORE_SHARES, checkpoints, never, thresholds_for
from s3search.search.questions import Measurement
from tests.support.searches import measured

SCHEDULE = ddim(edm(), nfe=3)


LOOKS = checkpoints(800)


def _whole(value: float, bias: float = 0.5) -> Measurement:
    path = {n: value + bias * 100 / n for n in LOOKS}
    return measured(SCHEDULE, value, n_images=800, path=path)


def test_it_looks_at_an_eighth_a_quarter_and_a_half() -> None:
    assert checkpoints(1000) == (125, 250, 500)
    assert checkpoints(3) == (2,)
    assert checkpoints(1000, SCORE_SHARES) == (31, 62, 125, 250, 500)
    assert checkpoints(200, SCORE_SHARES) == (25, 50, 100)  # of fewer than 16 images none
    assert tuple(n for n, _ in never(checkpoints(1000))) == checkpoints(1000)
    assert all(threshold == math.inf for _, threshold in never(checkpoints(1000)))


def test_nothing_is_stopped_before_enough_is_known() -> None:
    assert thresholds_for(0.2, [_whole(0.3)] * 5, LOOKS) == never(LOOKS)


def test_the_threshold_allows_for_the_bias_of_few_images() -> None:
    known = [_whole(0.1 + 0.01 * i) for i in range(12)]
    thresholds = dict(thresholds_for(0.2, known, LOOKS))
    for n, threshold in thresholds.items():
        assert math.isclose(threshold, 0.2 + 0.5 * 100 / n)  # one just as good goes on
    assert thresholds[100] > thresholds[200] > thresholds[400]


def test_a_gain_that_varies_makes_it_more_patient() -> None:
    steady = [_whole(0.1 + 0.01 * i) for i in range(12)]
    varied = [_whole(0.1 + 0.01 * i, bias=0.3 + 0.4 * (i % 2)) for i in range(12)]
    patient = dict(thresholds_for(0.2, varied, LOOKS))[100]
    assert patient > dict(thresholds_for(0.2, steady, LOOKS))[100]


def test_what_was_stopped_teaches_nothing_of_the_whole() -> None:
    question = _whole(0.1).question
    stopped = Measurement(question=question, estimate=9.0, n_images=100, path={100: 9.0})
    assert stopped.value is None
    known = [_whole(0.1 + 0.01 * i) for i in range(12)]
    failed = measured(SCHEDULE, None, n_images=800, path={100: 9.0})
    found = thresholds_for(0.2, [*[stopped] * 20, *[failed] * 20, *known], LOOKS)
    assert found == thresholds_for(0.2, known, LOOKS)
