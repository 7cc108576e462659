"""Who leaves a race, and when nobody may."""

import math

from s3search.search.lab import Measured

from s3search.processes import edm
from s3search.schedules.published import ddim
from s3search.search.early_stopping import checkpoints, open_race, race_to

SCHEDULE = ddim(edm(), nfe=3)


def _whole(value: float, bias: float = 0.5) -> Measured:
    path = {n: value + bias * 100 / n for n in checkpoints(800)}
    return Measured(schedule=SCHEDULE, value=value, n_images=800, path=path)


def test_it_looks_at_an_eighth_a_quarter_and_a_half() -> None:
    assert checkpoints(1000) == (125, 250, 500)
    assert checkpoints(3) == (2,)
    assert all(bar == math.inf for _, bar in open_race(1000))


def test_nobody_leaves_before_enough_is_known() -> None:
    assert race_to(0.2, [_whole(0.3)] * 5, 800) == open_race(800)


def test_the_bar_allows_for_the_bias_of_few_images() -> None:
    known = [_whole(0.1 + 0.01 * i) for i in range(12)]
    bars = dict(race_to(0.2, known, 800))
    for n, bar in bars.items():
        assert math.isclose(bar, 0.2 + 0.5 * 100 / n)  # one as good as the bar just stays
    assert bars[100] > bars[200] > bars[400]


def test_a_gain_that_varies_makes_the_race_more_patient() -> None:
    steady = [_whole(0.1 + 0.01 * i) for i in range(12)]
    varied = [_whole(0.1 + 0.01 * i, bias=0.3 + 0.4 * (i % 2)) for i in range(12)]
    assert dict(race_to(0.2, varied, 800))[100] > dict(race_to(0.2, steady, 800))[100]


def test_those_that_left_teach_nothing_of_the_whole() -> None:
    left = [Measured(schedule=SCHEDULE, value=None, n_images=100, path={100: 9.0})] * 20
    known = [_whole(0.1 + 0.01 * i) for i in range(12)]
    assert race_to(0.2, [*left, *known], 800) == race_to(0.2, known, 800)
