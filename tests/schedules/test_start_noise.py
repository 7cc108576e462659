"""Noise of a start, drawn together with the first state."""

import math

import pytest

from s3search.processes import edm
from s3search.rules import NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Start
from s3search.schedules.start_noise import with_one_draw
from s3search.solvers.plan import compile_plan

_BASE = published.dpmpp_2m(edm(), nfe=4)


def test_a_start_that_keeps_the_variance_is_a_start_from_noise() -> None:
    noise = StepNoise(kind=NoiseKind.GAMMA, amount=0.2)
    assert with_one_draw(_BASE.changed(start=Start(noise=noise))) == _BASE


def test_scaled_noise_is_in_the_scale_of_the_first_state() -> None:
    noise = StepNoise(kind=NoiseKind.TIME, amount=40.0, scale=1.1)
    schedule = _BASE.changed(start=Start(noise=noise))
    plan, merged = compile_plan(schedule), compile_plan(with_one_draw(schedule))
    own = math.hypot(plan.p[1, 0] * plan.noise_scale, plan.noise[1])
    assert merged.noise_scale == pytest.approx(own, rel=1e-12)
    assert merged.noisy_rows == ()
    assert merged.q[1:] == pytest.approx(plan.q[2:])


def test_other_starts_stay() -> None:
    assert with_one_draw(_BASE) is _BASE
