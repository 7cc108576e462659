"""Compensated predictions: the formulas of DC-Solver and DualFast, and where they are refused."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.rules import LINEAR_PREDICTIONS, Prediction
from s3search.rules.compensation import EarlierCall, Interpolation, lagrange_weights
from s3search.schedules import published
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan
from tests.support.helpers import EXAMPLES, gaussian, max_abs, noise, schedules


@EXAMPLES
@given(schedules(), st.data())
def test_every_compensated_schedule_compiles_and_survives_json(
    schedule: Schedule, data: st.DataObject
) -> None:
    steps = []
    for i, step in enumerate(schedule.steps):
        own: Any = None
        if i:
            own = data.draw(
                st.none()
                | st.builds(
                    Interpolation,
                    prediction=st.sampled_from(LINEAR_PREDICTIONS),
                    ratio=st.floats(0.5, 1.5),
                    order=st.integers(1, min(i, 3)),
                )
                | st.builds(
                    EarlierCall, point=st.integers(-i - 1, -2), coefficient=st.floats(-0.5, 0.5)
                )
            )
        steps.append(step.model_copy(update={"compensation": own}))
    made = Schedule(
        process=schedule.process, times=schedule.times, start=schedule.start, steps=steps
    )
    assert Schedule.from_dict(made.to_dict()) == made
    assert (made.id == schedule.id) == all(step.compensation is None for step in steps)
    plan = compile_plan(made)
    assert np.isfinite(plan.p).all()
    assert np.isfinite(plan.q).all()
    assert plan.nfe == schedule.nfe


def test_lagrange_weights_read_a_cubic_exactly() -> None:
    nodes = [0.9, 0.7, 0.4, 0.1]
    weights = lagrange_weights(nodes, 0.55)
    found = sum(w * (1 - 2 * t + 3 * t**3) for w, t in zip(weights, nodes, strict=True))
    assert found == pytest.approx(1 - 2 * 0.55 + 3 * 0.55**3, abs=1e-14)


@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
def test_ratio_one_and_coefficient_zero_change_nothing(prediction: Prediction) -> None:
    base = published.unipc(vp_linear(), nfe=5, prediction=prediction)
    steps = [
        step.model_copy(
            update={
                "compensation": None
                if i < 2
                else Interpolation(ratio=1.0, prediction=prediction)
                if i < 4
                else EarlierCall(point=-2, coefficient=0.0)
            }
        )
        for i, step in enumerate(base.steps)
    ]
    plan = compile_plan(Schedule(process=base.process, times=base.times, steps=steps))
    np.testing.assert_allclose(plan.p, compile_plan(base).p, atol=1e-13)
    np.testing.assert_allclose(plan.q, compile_plan(base).q, atol=1e-13)


def _mixed_by_hand(process: NoiseProcess, times: Any, x: Tensor, c: Any) -> Tensor:
    """DDIM with eps <- (1 + c) eps - c eps_0."""
    denoiser, first = gaussian(process), None
    for i, (s, t) in enumerate(pairwise(times)):
        a, sigma = process.alpha(s), process.sigma(s)
        eps = (x - a * denoiser(x, x.new_full((len(x),), s))) / sigma
        first = eps if first is None else first
        eps = (1 + c[i]) * eps - c[i] * first
        x = process.alpha(t) * (x - sigma * eps) / a + process.sigma(t) * eps
    return x


@pytest.mark.parametrize("process", [edm(), vp_linear()])
def test_dualfast_mixes_the_noise_of_the_first_call(process: NoiseProcess) -> None:
    c = published.falling(0.3, 5)
    base = published.ddim(process, nfe=5)
    schedule = published.dualfast(base, c)
    x = noise() * process.sigma(base.times[0])
    expected = _mixed_by_hand(process, base.times, x, c)
    found = run_plan(gaussian(process), compile_plan(schedule), x)
    assert max_abs(found - expected) < 1e-11


@pytest.mark.parametrize("make", [published.dpmpp_2m, published.dpmpp_2s, published.unipc])
def test_dualfast_goes_with_every_solver(make: Any) -> None:
    base = make(vp_linear(), nfe=6)
    schedule = published.dualfast(base, published.falling(0.2, 6))
    assert schedule.nfe == base.nfe
    assert max_abs(torch.as_tensor(compile_plan(schedule).q - compile_plan(base).q)) > 1e-3


def test_falling_coefficients_start_at_zero_and_end_there() -> None:
    assert published.falling(0.4, 5) == pytest.approx((0.0, 0.4, 0.8 / 3, 0.4 / 3, 0.0))
    assert published.falling(0.4, 1) == (0.0,)


@pytest.mark.parametrize(
    ("step", "compensation", "message"),
    [
        (1, {"rule": "interpolation", "ratio": 1.1}, r"compensation.order: order 2 needs 3"),
        (0, {"rule": "earlier_call", "point": -2, "coefficient": 0.1}, "does not exist"),
        (2, {"rule": "earlier_call", "point": -1, "coefficient": 0.1}, "an earlier one"),
        (2, {"rule": "interpolation", "ratio": float("nan")}, r"compensation.ratio"),
        (2, {"rule": "interpolation", "ratios": 1.0}, "compensation"),
    ],
)
def test_impossible_compensations_are_refused(step: int, compensation: Any, message: str) -> None:
    data = published.ddim(vp_linear(), nfe=4).to_dict()
    data["steps"][step]["compensation"] = compensation
    with pytest.raises(InvalidSchedule, match=message):
        Schedule.from_dict(data)


def test_compensation_refuses_shifted_network_times() -> None:
    base = published.dc_solver(vp_linear(), [1, 1, 1.1, 0.9])
    with pytest.raises(InvalidSchedule, match=r"steps\[2\].compensation.*network_time"):
        published.with_network_times(base, [None, 0.5, 0.3, 0.1])


def test_first_steps_take_no_compensation() -> None:
    with pytest.raises(InvalidSchedule, match=r"steps\[1\].compensation.order"):
        published.dc_solver(flow(), [1.0, 1.1, 1.0])
    with pytest.raises(InvalidSchedule, match=r"coefficients\[0\]"):
        published.dualfast(published.ddim(edm(), nfe=2), [0.1, 0.1])
    with pytest.raises(InvalidSchedule, match="2 steps take 2"):
        published.dualfast(published.ddim(edm(), nfe=2), [0.0])


def test_ratios_stay_with_their_process() -> None:
    schedule = published.dc_solver(vp_discrete(), [1, 1, 1.1])
    with pytest.raises(InvalidSchedule, match=r"steps\[2\].compensation: it interpolates"):
        retime(schedule, edm())
    mixed = published.dualfast(published.ddim(vp_discrete(), nfe=3), [0.0, 0.2, 0.1])
    moved = retime(mixed, edm())
    assert [step.compensation for step in moved.steps] == [s.compensation for s in mixed.steps]
