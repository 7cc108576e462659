"""ER-SDE: its limits, its integrals, and what is refused."""

import math

import numpy as np
import pytest

from s3search.errors import InvalidSchedule
from s3search.processes import Flow, NoiseProcess, VpLinear, edm
from s3search.rules import ErSde, NoiseFunction, Prediction, SdeTaylor, Taylor
from s3search.rules.er_sde import _factors
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import grid
from s3search.solvers.plan import compile_plan
from tests.rules.test_sde import deviation, sources

_PROCESSES: list[NoiseProcess] = [edm(), VpLinear()]


def _schedule(process: NoiseProcess, *rules: ErSde | SdeTaylor | Taylor) -> Schedule:
    steps = [Step(predictor=rule) for rule in rules]
    return Schedule(process=process, times=grid(process, len(steps), "logsnr"), steps=steps)


@pytest.mark.parametrize("process", _PROCESSES, ids=lambda process: process.type)
def test_the_ode_s_function_is_the_deterministic_step(process: NoiseProcess) -> None:
    own = _schedule(process, *[ErSde(function=NoiseFunction.ODE)] * 5)
    plain = _schedule(process, *[Taylor(prediction=Prediction.DATA, order=1)] * 5)
    assert deviation(own, plain) < 1e-12
    assert not own.is_stochastic


@pytest.mark.parametrize("process", _PROCESSES, ids=lambda process: process.type)
@pytest.mark.parametrize(
    ("function", "eta"),
    [(NoiseFunction.SDE, 1.0), (NoiseFunction.SDE_2, 0.5), (NoiseFunction.SDE_3, 1.5)],
)
def test_powers_are_the_reverse_sde_with_another_eta(
    process: NoiseProcess, function: NoiseFunction, eta: float
) -> None:
    own = _schedule(process, *[ErSde(function=function)] * 5)
    noise = published.sde_noise(eta)
    plain = SdeTaylor(prediction=Prediction.DATA, order=1, noise=noise)
    other = _schedule(process, *[plain] * 5)
    assert deviation(own, other) < 1e-12
    np.testing.assert_allclose(compile_plan(own).noise, compile_plan(other).noise, rtol=1e-9)


@pytest.mark.parametrize("process", [*_PROCESSES, Flow()], ids=lambda process: process.type)
@pytest.mark.parametrize("function", NoiseFunction)
def test_every_state_has_the_variance_of_its_level(
    process: NoiseProcess, function: NoiseFunction
) -> None:
    times = [process.time_of_lam(lam) for lam in (-3.0, -1.5, 0.0, 1.0, 2.0)]
    steps = published.er_sde_steps(4, function=function)
    plan = compile_plan(Schedule(process=process, times=times, steps=steps))
    assert plan.noisy_rows == (() if function is NoiseFunction.ODE else (1, 2, 3, 4))
    for r, weights in enumerate(sources(plan)):
        assert np.linalg.norm(weights) == pytest.approx(plan.levels[r].sigma, rel=1e-9)


def test_a_prediction_that_is_linear_in_rho_is_integrated_exactly() -> None:
    """With D = u for the level u, (y - D) / u = dy / du has the solution y = u (c - ln u)."""
    rule = ErSde(order=2, function=NoiseFunction.ODE)
    schedule = _schedule(edm(), ErSde(function=NoiseFunction.ODE), rule)
    plan = compile_plan(schedule)
    u = schedule.times
    y = [u[k] * (2.0 - math.log(u[k])) for k in range(3)]
    found = plan.p[2, 1] * y[1] + plan.q[2] @ np.array(u[:2])
    assert plan.p[2, 0] == 0.0
    assert found == pytest.approx(y[2], rel=1e-12)


@pytest.mark.parametrize("function", NoiseFunction)
def test_riemann_sums_approach_the_exact_integrals(function: NoiseFunction) -> None:
    exact = np.array(_factors(function, 0.5, 3.0, None))
    coarse, fine = (np.array(_factors(function, 0.5, 3.0, n)) - exact for n in (200, 2000))
    np.testing.assert_allclose(coarse / fine, 10.0, rtol=0.05)
    assert np.abs(fine).max() < 2e-3


def test_its_json_comes_back_and_it_says_its_function() -> None:
    schedule = published.er_sde(edm(), nfe=5, s_noise=0.9)
    assert Schedule.from_dict(schedule.to_dict()) == schedule
    rule = schedule.steps[2].predictor
    assert (rule.title, rule.extent, rule.details) == ("ER-SDE", "order 3", "sde_5, s_noise 0.9")


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(InvalidSchedule, match=r"steps\[0\].predictor.order: point -2 does not ex"):
        _schedule(edm(), ErSde(order=2))
    steps = [Step(predictor=ErSde())]
    with pytest.raises(InvalidSchedule, match="has no room for fresh noise"):
        Schedule(process=edm(), times=(8.0, 0.0), steps=steps)
    with pytest.raises(InvalidSchedule, match="touches pure noise"):
        Schedule(process=Flow(), times=(1.0, 0.5), steps=steps)
    with pytest.raises(InvalidSchedule, match=r"function: begins at sigma / alpha = 1e\+06"):
        Schedule(process=Flow(), times=(1.0 - 1e-8, 0.5), steps=steps)
