"""The trajectory's error is paid for, and kept only where it says more than a first look."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from s3search.processes import edm
from s3search.schedules.published import baselines
from s3search.schedules.schedule import Schedule
from s3search.search.lab import Measured, Price
from s3search.search.predictor.trajectory import TrajectoryFilter

SCHEDULES = list(baselines(edm(), 4).values())[:40]
TRUE = {s.id: 1.0 + i for i, s in enumerate(SCHEDULES)}


class _Lab:
    """A lab that only traces, with an error of as many ranks as ``wrong``."""

    n_images = 80

    def __init__(self, wrong: float = 0.0) -> None:
        self._wrong = wrong
        self.asked: list[str] = []

    def price(self, proxy: str, nfe: int) -> Price:
        assert proxy == "trajectory"
        return Price(images=10, once=10 * 32 / nfe)

    def scores(self, proxy: str, schedules: Sequence[Schedule]) -> Any:
        assert proxy == "trajectory"
        self.asked += [s.id for s in schedules]
        noise = np.random.default_rng(0).normal(size=len(schedules))
        return np.array([TRUE[s.id] for s in schedules]) + self._wrong * noise


def _measured(schedules: Sequence[Schedule], wrong: float) -> list[Measured]:
    """Whole measurements whose first look is wrong by so many ranks."""
    noise = np.random.default_rng(1).normal(size=len(schedules))
    return [
        Measured(
            schedule=s,
            value=TRUE[s.id],
            n_images=80,
            path={10: TRUE[s.id] + wrong * float(e), 20: TRUE[s.id], 40: TRUE[s.id]},
        )
        for s, e in zip(schedules, noise, strict=True)
    ]


def test_where_a_first_look_says_little_the_error_chooses() -> None:
    lab = _Lab(wrong=1.0)
    errors = TrajectoryFilter(lab, is_used=True)
    errors.learn(_measured(SCHEDULES[:24], wrong=30.0))
    assert errors.is_used
    children = SCHEDULES[24:][::-1]
    kept = errors.best(children, 8)
    ranks = [TRUE[children[i].id] for i in kept]
    assert np.mean(ranks) < np.mean([TRUE[s.id] for s in children]) - 3


def test_where_a_first_look_says_more_the_error_is_not_asked_for_again() -> None:
    lab = _Lab(wrong=30.0)
    errors = TrajectoryFilter(lab, is_used=True)
    errors.learn(_measured(SCHEDULES[:24], wrong=1.0))
    assert not errors.is_used
    errors.learn(_measured(SCHEDULES[24:], wrong=30.0))
    assert lab.asked == [s.id for s in SCHEDULES[:24]]


def test_too_few_schedules_are_no_evidence() -> None:
    errors = TrajectoryFilter(_Lab(), is_used=True)
    errors.learn(_measured(SCHEDULES[:8], wrong=30.0))
    assert not errors.is_used


def test_every_schedule_is_paid_for_once_and_the_fine_solve_with_the_first() -> None:
    errors = TrajectoryFilter(_Lab(), is_used=True)
    errors.learn(_measured(SCHEDULES[:24], wrong=30.0))
    assert errors.images == pytest.approx(24 * 10 + 10 * 32 / 4)
    errors.best(SCHEDULES[20:30], 5)
    assert errors.images == pytest.approx(30 * 10 + 10 * 32 / 4)


def test_without_the_rung_nothing_is_asked() -> None:
    lab = _Lab()
    errors = TrajectoryFilter(lab, is_used=False)
    errors.learn(_measured(SCHEDULES[:24], wrong=30.0))
    assert (lab.asked, errors.images) == ([], 0.0)
