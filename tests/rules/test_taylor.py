"""Taylor steps: derivative weights, relaxations, and the published formulas they contain."""

import math

import numpy as np
import pytest

from s3search.processes import edm, flow, vp_linear
from s3search.rules import (
    LINEAR_PREDICTIONS,
    Derivative,
    Prediction,
    Relaxation,
    RelaxationKind,
    Taylor,
    level,
)
from s3search.rules.linear_form import LinearForm, data, state
from s3search.rules.points import Level, Point
from s3search.rules.taylor import derivative_weights
from tests.support.helpers import exact_trajectory, max_abs

_VP = vp_linear()


@pytest.mark.parametrize(("d", "m"), [(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)])
def test_derivative_weights_solve_their_system(d: int, m: int) -> None:
    distances = [-0.7, -1.1, 0.4][:m]
    a = derivative_weights(d, distances)
    for i in range(1, m + 1):
        left = sum(w * x**i / math.factorial(i) for w, x in zip(a, distances, strict=True))
        assert left == pytest.approx(float(i == d), abs=1e-13)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_derivative_weights_are_exact_on_cubics(d: int) -> None:
    poly = np.poly1d([0.7, -1.3, 0.4, 2.0])
    distances = [-0.5, -0.9, 0.8]
    values = [poly(x) - poly(0.0) for x in distances]
    estimate = np.dot(derivative_weights(d, distances), values)
    assert estimate == pytest.approx(poly.deriv(d)(0.0), rel=1e-12)


def test_point_at_infinite_distance_has_no_weight() -> None:
    assert derivative_weights(1, [-math.inf, -0.5]) == [0.0, *derivative_weights(1, [-0.5])]
    assert derivative_weights(2, [-math.inf, -0.5]) == [0.0, 0.0]


@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
@pytest.mark.parametrize(
    ("kind", "slope_in_z"),
    [
        (RelaxationKind.DPMSOLVER_2, 1 / 6),
        (RelaxationKind.UNIPC_BH2, 1 / 6),
        (RelaxationKind.UNIPC_BH1, -1 / 3),
        (RelaxationKind.HALF_EXP, 1 / 2),
        (RelaxationKind.MINUS_HALF_EXP, -1 / 2),
    ],
)
def test_relaxation_has_its_small_step_slope(
    kind: RelaxationKind, slope_in_z: float, prediction: Prediction
) -> None:
    h = 1e-5
    sign = 1 if prediction is Prediction.NOISE else -1
    factor = Relaxation(kind=kind).factor(h, prediction)
    assert (factor - 1) / h == pytest.approx(sign * slope_in_z, abs=1e-4)


@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
def test_relaxations_are_their_formulas(prediction: Prediction) -> None:
    h = 0.8
    z = h if prediction is Prediction.NOISE else -h
    e = math.exp(z) - 1
    expected = {
        RelaxationKind.DPMSOLVER_2: 0.5 * z * e / (e - z),
        RelaxationKind.UNIPC_BH2: 0.5 * z * e / (e - z),
        RelaxationKind.UNIPC_BH1: 0.5 * z * z / (e - z),
        RelaxationKind.HALF_EXP: 1 + 0.5 * e,
        RelaxationKind.MINUS_HALF_EXP: 1 - 0.5 * e,
    }
    for kind, value in expected.items():
        assert Relaxation(kind=kind).factor(h, prediction) == pytest.approx(value, rel=1e-13)
    linear = Relaxation(kind=RelaxationKind.LINEAR, coefficient=-0.3)
    assert linear.factor(h, prediction) == pytest.approx(1 - 0.3 * h)
    scale = Relaxation(kind=RelaxationKind.SCALE, coefficient=0.5)
    assert scale.factor(h, prediction) == 0.5


@pytest.mark.parametrize(("kind", "c"), [("linear", None), ("scale", None), ("0.5exp", 1.0)])
def test_relaxation_takes_a_coefficient_where_one_belongs(kind: str, c: float | None) -> None:
    with pytest.raises(ValueError, match="coefficient"):
        Relaxation(kind=RelaxationKind(kind), coefficient=c)


def test_relaxed_order_two_is_dpm_solver_2m() -> None:
    """x_t = (s_t / s_s) x - a_t (e^-h - 1) (D_0 + (D_0 - D_-1) / (2 r)), r = h_prev / h."""
    run = exact_trajectory(_VP, [0.8, 0.6])
    run.states[1] = run.states[1] + 0.1  # any history will do, not only an exact one
    before, start, to = *run.levels, level(_VP, 0.45)
    h, h_prev = to.lam - start.lam, start.lam - before.lam
    d1 = (run.answers[1] - run.answers[0]) / (h_prev / h)
    expected = to.sigma / start.sigma * run.states[1]
    expected = expected - to.alpha * math.expm1(-h) * (run.answers[1] + 0.5 * d1)
    relaxed = Derivative(points=(-2,), relaxation=Relaxation(kind=RelaxationKind.DPMSOLVER_2))
    rule = Taylor(prediction=Prediction.DATA, order=2, derivatives=(relaxed,))
    assert max_abs(run.next_state(rule, to) - expected) < 1e-14


def test_derivatives_are_estimated_in_full_by_default() -> None:
    rule = Taylor(prediction=Prediction.DATA, order=3)
    assert [d.points for d in rule.derivatives] == [(-3, -2), (-3, -2)]


@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
def test_first_order_step_starts_at_pure_noise(prediction: Prediction) -> None:
    start, to = level(flow(), 1.0), level(flow(), 0.6)
    x = LinearForm.of(state(0))
    rule = Taylor(prediction=prediction, order=1)
    assert rule.problem([start], to) is None
    form = rule.next_state([Point(start, x, x, LinearForm.of(data(0)))], to)
    assert dict(form.terms) == pytest.approx({state(0): 0.6, data(0): 0.4})


def _levels(*times: float) -> list[Level]:
    return [level(edm(), t) for t in times]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Taylor(prediction=Prediction.DATA, order=3), "order"),
        (Taylor(prediction=Prediction.DATA, order=1, start=-3), "start"),
        (Taylor(prediction=Prediction.DATA, order=2, derivatives=()), "derivatives"),
        (
            Taylor(prediction=Prediction.DATA, order=2, derivatives=(Derivative(points=(-5,)),)),
            r"derivatives[0].points",
        ),
        (
            Taylor(prediction=Prediction.DATA, order=2, derivatives=(Derivative(points=(-1,)),)),
            r"derivatives[0].points",
        ),
    ],
)
def test_impossible_steps_name_their_field(rule: Taylor, field: str) -> None:
    problem = rule.problem(_levels(10.0, 5.0), _levels(1.0)[0])
    assert problem is not None
    assert problem.field == field


def test_steps_above_order_one_cannot_end_clean() -> None:
    rule = Taylor(prediction=Prediction.DATA, order=2)
    problem = rule.problem(_levels(10.0, 5.0), _levels(0.0)[0])
    assert problem is not None
    assert "clean end" in problem.message
