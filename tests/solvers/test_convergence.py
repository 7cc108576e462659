"""Measured orders of convergence on a closed-form flow.

Data are one Gaussian, so the flow, the states on it and the network's answers there are exact.

Local: one step of length h from an exact history; a method of order p is off by O(h^{p+1}).
Global: many steps over a fixed interval; a method of order p ends O(h^p) off.

A trap avoided: a run that starts with a first-order step carries that step's O(h^2) error to the
end, which caps every multistep method at global slope two.  The first points of the global runs
are therefore exact as well.
"""

import math

import numpy as np
import pytest
import torch

from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.rules import (
    LINEAR_PREDICTIONS,
    Adams,
    AnyRule,
    Derivative,
    EmsStatistics,
    Point,
    Prediction,
    Taylor,
    UniPC,
    Variant,
    level,
)
from s3search.rules.linear_form import OFFSET, LinearForm, data, state
from s3search.schedules import published
from tests.support.helpers import Trajectory, exact_trajectory, max_abs, slope_over_halvings

_TOLERANCE = 0.15
_VP = vp_linear()
_EDM = edm()
_BOTH = LINEAR_PREDICTIONS

# history of unequal steps, in units of h before the start; the first order's history is [0]
_OFFSETS = (0.0, 1.0, 2.3, 3.1)


def _times(lams: list[float]) -> list[float]:
    return [_VP.time_of_lam(lam) for lam in lams]


def _local_history(n_points: int, h: float) -> Trajectory:
    return exact_trajectory(_VP, _times([-h * o for o in reversed(_OFFSETS[:n_points])]))


def local_order(rule: AnyRule, n_points: int, *, sees_target: bool = False) -> float:
    """Local slope less one; a corrector ``sees_target``: the exact answer at the new time."""

    def error(h: float) -> float:
        history = _local_history(n_points, h)
        to = level(_VP, _VP.time_of_lam(h))
        exact = history.denoiser.exact_flow(history.states[-1], history.levels[-1].t, to.t)
        if sees_target:
            history.call(to, exact)
        return max_abs(history.next_state(rule, to) - exact)

    return slope_over_halvings(error, 0.08) - 1.0


@pytest.mark.parametrize("prediction", _BOTH)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_taylor_step_has_its_order(order: int, prediction: Prediction) -> None:
    measured = local_order(Taylor(prediction=prediction, order=order), order)
    assert measured == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", _BOTH)
@pytest.mark.parametrize("variant", list(Variant))
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_unipc_predictor_has_its_order(
    order: int, variant: Variant, prediction: Prediction
) -> None:
    rule = published.unipc_steps(4, order=4, variant=variant, prediction=prediction)
    predictor = rule[0].predictor.model_copy(update={"points": tuple(range(-order, -1))})
    assert local_order(predictor, order) == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", _BOTH)
@pytest.mark.parametrize("variant", list(Variant))
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_corrector_gains_one_order(
    order: int, variant: Variant, prediction: Prediction
) -> None:
    points = (*range(-order - 1, -2), -1)
    rule = UniPC(prediction=prediction, variant=variant, start=-2, points=points)
    measured = local_order(rule, order, sees_target=True)
    assert measured == pytest.approx(order + 1, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", _BOTH)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_usf_corrector_gains_one_order(order: int, prediction: Prediction) -> None:
    estimate = (Derivative(points=(*range(-order - 1, -2), -1)),) * order
    rule = Taylor(prediction=prediction, order=order + 1, start=-2, derivatives=estimate)
    measured = local_order(rule, order, sees_target=True)
    assert measured == pytest.approx(order + 1, abs=_TOLERANCE)


def _fine_statistics() -> EmsStatistics:
    """Statistics of nothing in particular: v3 keeps its order with any smooth ones."""
    low, high, n = -0.3, 0.1, 8000  # every time of the local test is a node
    lam = np.linspace(low, high, n + 1).reshape(-1, 1, 1, 1)
    pixel = np.linspace(0.0, 1.0, 4).reshape(1, 1, 2, 2)
    l, s = 1 / (1 + np.exp(lam + pixel)), 0.2 * np.sin(lam) - 0.3 * pixel  # noqa: E741
    b = 0.1 * np.cos(lam - pixel)
    return EmsStatistics(lam_start=low, lam_end=high, l=l, s=s, b=b)


def v3_order(order: int) -> float:
    """Local slope less one of a v3 step; its integrals are exact but for 1e-9."""
    ems = _fine_statistics()
    rule = Taylor(prediction=Prediction.V3, order=order)

    def error(h: float) -> float:
        run = _local_history(order, h)
        to = level(_VP, _VP.time_of_lam(h))
        points = []
        for k, at in enumerate(run.levels):
            x = LinearForm.of(state(k))
            points.append(Point(at, x, x, LinearForm.of(data(k))))
        found = torch.zeros_like(run.states[0])
        for symbol, c in rule.next_state_with(ems, points, to).terms.items():
            weight = torch.as_tensor(c, dtype=torch.float64)
            if symbol == OFFSET:
                found = found + weight
            else:
                values = run.answers if symbol % 2 else run.states
                found = found + weight * values[symbol // 2]
        exact = run.denoiser.exact_flow(run.states[-1], run.levels[-1].t, to.t)
        return max_abs(found - exact)

    return slope_over_halvings(error, 0.08, 4) - 1.0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_v3_step_has_its_order(order: int) -> None:
    assert v3_order(order) == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", _BOTH)
def test_dpm_solver_2m_has_order_two(prediction: Prediction) -> None:
    rule = published.dpm_multistep_steps(20, order=2, prediction=prediction)[-1].predictor
    assert local_order(rule, 2) == pytest.approx(2, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", _BOTH)
def test_published_3m_has_order_two_only(prediction: Prediction) -> None:
    """Its second derivative is half of the true one, which costs the third order."""
    rule = published.dpm_multistep_steps(20, order=3, prediction=prediction)[-1].predictor
    assert local_order(rule, 3) == pytest.approx(2, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", _BOTH)
@pytest.mark.parametrize("taylor", [False, True])
@pytest.mark.parametrize("order", [2, 3])
def test_singlestep_solver_has_its_order(order: int, taylor: bool, prediction: Prediction) -> None:
    """From one exact point over the inner nodes, whose states are the solver's own."""

    def error(h: float) -> float:
        outer = _times([0.0, h])
        times, steps = published.singlestep_on(
            _VP, outer, (order,), "logsnr", prediction=prediction, taylor=taylor
        )
        run = exact_trajectory(_VP, outer[:1])
        exact = run.denoiser.exact_flow(run.states[0], outer[0], outer[1])
        for t, step in zip(times[1:], steps, strict=True):
            at = level(_VP, t)
            run.call(at, run.next_state(step.predictor, at))
        return max_abs(run.states[-1] - exact)

    assert slope_over_halvings(error, 0.1) - 1.0 == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_adams_step_has_its_order(order: int) -> None:
    rule = Adams(points=tuple(range(-order, 0)))

    def error(h: float) -> float:
        history = exact_trajectory(_EDM, [1.0 + h * o for o in reversed(_OFFSETS[:order])])
        to = level(_EDM, 1.0 - h)
        exact = history.denoiser.exact_flow(history.states[-1], 1.0, to.t)
        return max_abs(history.next_state(rule, to) - exact)

    assert slope_over_halvings(error, 0.04) - 1.0 == pytest.approx(order, abs=_TOLERANCE)


def test_heun_step_has_order_two() -> None:
    first, _ = published.heun_steps(2, ends_clean=False)
    assert first.corrector is not None
    trapezoid = first.corrector.rule

    def error(h: float) -> float:
        run = exact_trajectory(_EDM, [1.0])
        to = level(_EDM, 1.0 - h)
        exact = run.denoiser.exact_flow(run.states[0], 1.0, to.t)
        run.call(to, run.next_state(first.predictor, to))
        return max_abs(run.next_state(trapezoid, to) - exact)

    assert slope_over_halvings(error, 0.1) - 1.0 == pytest.approx(2, abs=_TOLERANCE)


def _global_error(
    times: list[float], n_seeds: int, rule: AnyRule, process: NoiseProcess = _VP
) -> float:
    run = exact_trajectory(process, times[:n_seeds])
    for t in times[n_seeds:]:
        at = level(process, t)
        run.call(at, run.next_state(rule, at))
    exact = run.denoiser.exact_flow(run.states[0], times[0], times[-1])
    return max_abs(run.states[-1] - exact)


@pytest.mark.parametrize("prediction", _BOTH)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_taylor_run_from_exact_points_has_its_global_order(
    order: int, prediction: Prediction
) -> None:
    rule = Taylor(prediction=prediction, order=order)

    def error(h: float) -> float:
        n = round(2.0 / h)
        return _global_error(_times([-1.0 + h * i for i in range(n + 1)]), order, rule)

    assert slope_over_halvings(error, 2 / 32, 4) == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_adams_run_from_exact_points_has_its_global_order(order: int) -> None:
    rule = Adams(points=tuple(range(-order, 0)))

    def error(h: float) -> float:
        times = [3.0 - h * i for i in range(round(1.5 / h) + 1)]
        return _global_error(times, order, rule, _EDM)

    assert slope_over_halvings(error, 1.5 / 64, 3) == pytest.approx(order, abs=_TOLERANCE)


def test_first_order_start_caps_a_run_at_slope_two() -> None:
    """The trap of the module's docstring, measured: one seed only, then orders 1, 2, 3, 3, ..."""
    full = Taylor(prediction=Prediction.DATA, order=3)

    def error(h: float) -> float:
        n = round(2.0 / h)
        times = _times([-1.0 + h * i for i in range(n + 1)])
        run = exact_trajectory(_VP, times[:1])
        for i, t in enumerate(times[1:]):
            at = level(_VP, t)
            rule = full if i >= 2 else Taylor(prediction=Prediction.DATA, order=i + 1)
            run.call(at, run.next_state(rule, at))
        exact = run.denoiser.exact_flow(run.states[0], times[0], times[-1])
        return max_abs(run.states[-1] - exact)

    assert slope_over_halvings(error, 2 / 128, 3) == pytest.approx(2, abs=_TOLERANCE)


def test_exact_flow_solves_the_probability_flow() -> None:
    """dx/dt = (x - D) / t for edm, by a central difference of the closed form."""
    run = exact_trajectory(_EDM, [1.3])
    x, d = run.states[0], 1e-5
    ahead, behind = (run.denoiser.exact_flow(x, 1.3, 1.3 + e) for e in (d, -d))
    assert max_abs((ahead - behind) / (2 * d) - (x - run.answers[0]) / 1.3) < 1e-8


def test_exact_flow_composes_and_starts_at_pure_noise() -> None:
    process = flow()
    run = exact_trajectory(process, [1.0])
    x = run.states[0]
    through = run.denoiser.exact_flow(run.denoiser.exact_flow(x, 1.0, 0.4), 0.4, 0.0)
    assert max_abs(through - run.denoiser.exact_flow(x, 1.0, 0.0)) < 1e-13
    assert math.isfinite(max_abs(through))
