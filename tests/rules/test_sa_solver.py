"""SA-Solver: its limit without noise, the draw that its corrector shares, and what is refused."""

import math

import numpy as np
import pytest
import torch

from s3search.errors import InvalidSchedule
from s3search.processes import Flow, NoiseProcess, VpLinear, edm
from s3search.rules import (
    Derivative,
    Prediction,
    Relaxation,
    RelaxationKind,
    StochasticAdams,
    Taylor,
)
from s3search.schedules import published
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Step
from s3search.schedules.spacing import grid
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.rules.test_sde import deviation, sources
from tests.support.helpers import gaussian, noise

_PROCESSES: list[NoiseProcess] = [edm(), VpLinear()]
_BH1 = Relaxation(kind=RelaxationKind.UNIPC_BH1)


def _schedule(process: NoiseProcess, steps: tuple[Step, ...]) -> Schedule:
    return Schedule(process=process, times=grid(process, len(steps), "logsnr"), steps=steps)


def _taylor(rule: StochasticAdams) -> Taylor:
    """The Taylor step through the points of a stochastic Adams step."""
    others = tuple(p for p in rule.points if p != rule.start)
    one = Derivative(points=others, relaxation=_BH1 if rule.rescaled else None) if others else None
    return Taylor(
        prediction=rule.prediction,
        order=rule.n_points,
        start=rule.start,
        derivatives=() if one is None else (one,) * len(others),
    )


@pytest.mark.parametrize("process", _PROCESSES, ids=lambda process: process.type)
@pytest.mark.parametrize("prediction", [Prediction.DATA, Prediction.NOISE])
@pytest.mark.parametrize("orders", [(1, 0), (2, 0), (4, 0), (2, 2), (3, 4)])
@pytest.mark.parametrize("tau", [0.0, 1e-7])
def test_without_noise_it_is_the_deterministic_predictor_and_corrector(
    process: NoiseProcess, prediction: Prediction, orders: tuple[int, int], tau: float
) -> None:
    predictor, corrector = orders
    steps = published.sa_solver_steps(
        [tau] * 6, predictor_order=predictor, corrector_order=corrector, prediction=prediction
    )
    plain = []
    for step in steps:
        assert isinstance(step.predictor, StochasticAdams)
        own = None
        if step.corrector is not None:
            assert isinstance(step.corrector.rule, StochasticAdams)
            own = Corrector(rule=_taylor(step.corrector.rule))
        plain.append(Step(predictor=_taylor(step.predictor), corrector=own))
    first, second = (_schedule(process, tuple(each)) for each in (steps, plain))
    assert first.is_stochastic == (tau > 0.0)
    if corrector and tau:  # the corrector's row writes the draw out in the predicted state
        plans = (compile_plan(each) for each in (first, second))
        images = [sample(gaussian(process), plan, noise()) for plan in plans]
        torch.testing.assert_close(*images, atol=1e-4, rtol=1e-4)
    else:
        assert deviation(first, second) < 1e-12


@pytest.mark.parametrize("process", [*_PROCESSES, Flow()], ids=lambda process: process.type)
@pytest.mark.parametrize("orders", [(1, 1), (2, 2), (3, 4)])
def test_predictor_and_corrector_share_one_draw_and_keep_the_variance(
    process: NoiseProcess, orders: tuple[int, int]
) -> None:
    schedule = published.sa_solver(
        process, nfe=6, predictor_order=orders[0], corrector_order=orders[1], tau=0.8
    )
    plan = compile_plan(schedule)
    assert (schedule.nfe, len(plan.noisy_rows)) == (6, 5)
    if not isinstance(process, Flow):  # whose first step, from pure noise, has no corrector
        assert plan.noisy_rows == (1, 3, 5, 7, 9)
    for r, weights in enumerate(sources(plan)):
        own = np.linalg.norm(weights)
        assert own == pytest.approx(plan.levels[r].sigma, rel=1e-9, abs=1e-12)


def test_pece_calls_the_network_twice_a_step() -> None:
    steps = published.sa_solver_steps([0.5] * 4, kind=CorrectorKind.IMPLICIT)
    schedule = _schedule(edm(), steps)
    assert (schedule.nfe, compile_plan(schedule).noisy_rows) == (7, (1, 3, 5, 7))


def test_tau_is_a_number_or_a_function_of_time() -> None:
    process = VpLinear()
    constant = published.sa_solver(process, nfe=5, tau=0.6)
    found = published.sa_solver(process, nfe=5, tau=lambda t: 0.6 if t > 0.5 else 0.0)
    taus = [step.predictor.tau for step in found.steps[:-1]]  # type: ignore[attr-defined]
    early = [0.6 if t > 0.5 else 0.0 for t in found.times[:-2]]
    assert taus == pytest.approx(early)
    assert 0.0 in early
    assert found.steps[0] == constant.steps[0]


def test_its_json_comes_back_and_it_says_its_tau() -> None:
    schedule = published.sa_solver(edm(), nfe=5, tau=0.5)
    assert Schedule.from_dict(schedule.to_dict()) == schedule
    rule = schedule.steps[2].predictor
    assert (rule.title, rule.extent, rule.details) == ("SA-Solver", "order 2", "tau 0.5, rescaled")


def test_the_usual_corrector_takes_one_point_more_with_the_same_draw() -> None:
    rule = published.sa_step((2, 0), 0.5).predictor
    assert isinstance(rule, StochasticAdams)
    corrector = rule.corrector()
    assert (corrector.start, corrector.points, corrector.rescaled) == (-2, (-3, -2, -1), False)
    assert corrector.tau == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"noise": {"kind": "eta"}}, "SA-Solver needs 'sde', found 'eta'"),
        ({"rescaled": True}, "rescaled: only a step of the data through two points can be"),
        ({"prediction": "v3"}, "an SDE step extrapolates 'noise' or 'data'"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StochasticAdams.model_validate({"prediction": "data", **fields})


def test_points_must_exist_and_leave_room_for_noise() -> None:
    steps = [Step(predictor=StochasticAdams(prediction=Prediction.DATA, points=(-2, -1)))]
    with pytest.raises(InvalidSchedule, match=r"steps\[0\].predictor.points: point -2 does not"):
        Schedule(process=edm(), times=(8.0, 1.0), steps=steps)
    steps = [Step(predictor=StochasticAdams(prediction=Prediction.DATA))]
    with pytest.raises(InvalidSchedule, match=r"a step to the clean end .* has no room for fresh"):
        Schedule(process=edm(), times=(8.0, 0.0), steps=steps)


def test_a_first_order_step_is_sde_dpm_solver_pp() -> None:
    own = published.sa_step((1, 0), math.sqrt(0.7))
    plain = published.sde_step(1, noise=published.sde_noise(0.7))
    assert deviation(_schedule(edm(), (own,) * 4), _schedule(edm(), (plain,) * 4)) < 1e-12
