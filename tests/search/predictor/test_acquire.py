"""What is measured next is promising or uncertain and never twice the same; what came is told."""

import numpy as np
import pytest
from scipy.stats import norm

from s3search.search.predictor.acquire import acquire, log_expected_improvement, places
from s3search.search.predictor.base import Forecast
from s3search.search.predictor.calibration import calibration_of
from tests.search.predictor.examples import measured


def test_log_expected_improvement_is_the_integral() -> None:
    mean, std = np.array([-1.0, 0.0, 0.5, 3.0, 30.0]), np.array([0.1, 1.0, 0.5, 0.3, 1.0])
    found = log_expected_improvement(Forecast(mean, std), 0.2)
    for i in range(3):
        y = np.linspace(mean[i] - 12 * std[i], 0.2, 200_001)
        integral = np.trapezoid((0.2 - y) * norm.pdf(y, mean[i], std[i]), y)
        assert found[i] == pytest.approx(np.log(integral), abs=1e-6)
    assert np.isfinite(found).all()
    assert (
        np.diff(log_expected_improvement(Forecast(np.arange(-5.0, 60.0), np.ones(65)), 0)) < 0
    ).all()


def test_the_promising_come_first_and_the_uncertain_are_among_them() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=200), np.full(200, 0.1)
    mean[7], std[7] = 1.0, 2.0  # may be anything
    mean[8], std[8] = 90.0, 5.0  # uncertain, and surely useless
    points, forecast = rng.normal(size=(200, 20)), Forecast(mean, std)
    greedy = acquire(
        forecast, mean.min(), 10, np.random.default_rng(1), points=points, uncertain=0
    )
    assert set(greedy) <= set(np.argsort(mean)[:12].tolist()) | {7}
    curious = acquire(forecast, 0.0, 3, np.random.default_rng(1), points=points, uncertain=1)
    assert curious[0] == 7
    assert 8 not in curious
    again = acquire(forecast, 0.0, 30, np.random.default_rng(1), points=points)
    assert again == acquire(forecast, 0.0, 30, np.random.default_rng(1), points=points)
    assert len(set(again)) == 30


def test_near_duplicates_wait_until_nothing_else_is_left() -> None:
    schedules = measured()[0]
    shown = [schedules[0], schedules[0], schedules[0], schedules[1], schedules[2]]
    forecast = Forecast(np.array([0.0, 0.1, 0.2, 5.0, 6.0]), np.ones(5))
    picks = acquire(forecast, 0.0, 9, np.random.default_rng(0), points=places(shown), uncertain=0)
    assert picks == [0, 3, 4, 1, 2]
    assert acquire(forecast, 0.0, 0, np.random.default_rng(0), points=places(shown)) == []


def test_a_calibration_tells_ranks_and_coverage() -> None:
    mean, std = np.log([1.0, 2.0, 3.0, 4.0]), np.full(4, 0.1)
    perfect = calibration_of(3, Forecast(mean, std), [1.0, 2.0, 3.0, 4.0])
    assert (perfect.stage, perfect.n, perfect.coverage) == (3, 4, 1.0)
    assert perfect.spearman == pytest.approx(1.0)
    assert perfect.mean_abs_rank_error == 0.0
    reversed_ = calibration_of(0, Forecast(mean, std), [4.0, 3.0, 2.0, 1.0])
    assert reversed_.spearman == pytest.approx(-1.0)
    assert reversed_.mean_abs_rank_error == pytest.approx(2 / 3)
    assert reversed_.coverage == 0.0
    assert calibration_of(0, Forecast(mean, std), [2.0] * 4).spearman is None
    with pytest.raises(ValueError, match="4 forecasts"):
        calibration_of(0, Forecast(mean, std), [1.0])
