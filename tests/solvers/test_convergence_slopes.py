"""Measured orders of the solvers along slopes, on a closed-form flow; see test_convergence.

Rules with constants of equal steps have their order on equal steps only, so their histories are
equally spaced; the others see unequal steps.
"""

import pytest

from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.rules import (
    AdamsTime,
    AnyRule,
    Bidirectional,
    Clock,
    Momentum,
    MomentumKind,
    NoisePath,
    Scale,
    Velocity,
    level,
)
from s3search.schedules import published
from s3search.schedules.schedule import Step
from tests.support.helpers import Trajectory, exact_trajectory, max_abs, slope_over_halvings

_TOLERANCE = 0.15
_EDM, _VP, _FLOW = edm(), vp_linear(), flow()

_UNEQUAL = (0.0, 1.0, 2.3, 3.1)
_EQUAL = (0.0, 1.0, 2.0, 3.0, 4.0)


def local_order(
    rule: AnyRule,
    process: NoiseProcess,
    start: float,
    offsets: tuple[float, ...],
    *,
    sees_target: bool = False,
    largest: float = 0.04,
    n: int = 5,
) -> float:
    """Local slope less one, in the process's own time, from an exact history; a corrector
    ``sees_target``: the exact answer at the new time.
    """

    def error(h: float) -> float:
        run = exact_trajectory(process, [start + h * o for o in reversed(offsets)])
        to = level(process, start - h)
        exact = run.denoiser.exact_flow(run.states[-1], start, to.t)
        if sees_target:
            run.call(to, exact)
        return max_abs(run.next_state(rule, to) - exact)

    return slope_over_halvings(error, largest, n) - 1.0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_deis_in_time_has_its_order(order: int) -> None:
    rule = AdamsTime(points=tuple(range(-order, 0)))
    measured = local_order(rule, _VP, 0.5, _UNEQUAL[:order], largest=0.02)
    assert measured == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_ipndm_has_its_order_on_equal_steps(order: int) -> None:
    rule = published.ipndm_steps(5, order)[-1].predictor
    # where the fifth order's error is asymptotic and still a hundred times the rounding
    measured = local_order(rule, _EDM, 2.5, _EQUAL[:order], largest=0.05, n=3)
    assert measured == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_ipndm_has_order_one_on_unequal_steps(order: int) -> None:
    """Why iPNDM_v, and rhoAB, integrate for the steps as they are."""
    rule = published.ipndm_steps(5, order)[-1].predictor
    measured = local_order(rule, _EDM, 1.0, (0.0, 1.7, 2.3, 3.1)[:order])
    assert measured == pytest.approx(1, abs=_TOLERANCE)


def _advance(run: Trajectory, steps: tuple[Step, ...], times: list[float]) -> None:
    """Runs steps as a plan does; an implicit corrector replaces the newest point."""
    for step, t in zip(steps, times, strict=True):
        at = level(_EDM, t)
        run.call(at, run.next_state(step.predictor, at))
        if step.corrector is not None:
            corrected = run.next_state(step.corrector.rule, at)
            for column in (run.levels, run.states, run.answers):
                column.pop()
            run.call(at, corrected)


@pytest.mark.parametrize(
    ("method", "order"),
    [
        ("euler", 1),
        ("midpoint", 3),  # two, but y^2 is a parabola in rho for a Gaussian: h^3 cancels
        ("heun2", 2),
        ("kutta3", 3),
        ("ralston3", 3),
        ("heun3", 3),
        ("houwen3", 3),
        ("rk4", 4),
    ],
)
def test_runge_kutta_in_rho_has_its_order(method: str, order: int) -> None:
    def error(h: float) -> float:
        times, steps = published.runge_kutta_on(_EDM, [1.6, 1.6 - h], method)
        run = exact_trajectory(_EDM, [1.6])
        exact = run.denoiser.exact_flow(run.states[0], 1.6, 1.6 - h)
        _advance(run, steps, list(times[1:]))
        return max_abs(run.states[-1] - exact)

    measured = slope_over_halvings(error, 0.2, 4) - 1.0
    assert measured == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("r", [0.3, 0.5, 0.7])
def test_dpm2_has_order_two(r: float) -> None:
    """For any place of its inner node, although the weights assume one in equal steps."""

    def error(h: float) -> float:
        times, steps = published.dpm2_on(_EDM, [1.0, 1.0 - h], r)
        run = exact_trajectory(_EDM, [1.0])
        exact = run.denoiser.exact_flow(run.states[0], 1.0, 1.0 - h)
        _advance(run, steps, list(times[1:]))
        return max_abs(run.states[-1] - exact)

    assert slope_over_halvings(error, 0.1) - 1.0 == pytest.approx(2, abs=_TOLERANCE)


def momentum_order(kind: MomentumKind, order: int, beta: float) -> float:
    """Global, over 1.5 in sigma on equal steps; the exact history is so long that the momentum has
    forgotten its start.
    """

    def error(h: float) -> float:
        n, n_seeds = round(1.5 / h), 40
        times = [2.5 - h * (i - n_seeds + 1) for i in range(n + n_seeds)]
        run = exact_trajectory(_EDM, times[:n_seeds])
        exact = run.denoiser.exact_flow(run.states[n_seeds - 1], times[n_seeds - 1], times[-1])
        for i, t in enumerate(times[n_seeds:], start=n_seeds):
            rule = Momentum(kind=kind, order=order, beta=beta, points=tuple(range(-i, 0)))
            at = level(_EDM, t)
            run.call(at, run.next_state(rule, at))
        return max_abs(run.states[-1] - exact)

    return slope_over_halvings(error, 1.5 / 24, 3)


@pytest.mark.parametrize("beta", [0.6, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_ghvb_has_its_order(order: int, beta: float) -> None:
    measured = momentum_order(MomentumKind.GHVB, order, beta)
    assert measured == pytest.approx(order, abs=2 * _TOLERANCE)


@pytest.mark.parametrize("kind", [MomentumKind.HEAVY_BALL, MomentumKind.NESTEROV])
def test_momentum_on_adams_bashforth_has_order_one(kind: MomentumKind) -> None:
    assert momentum_order(kind, 3, 0.6) == pytest.approx(1, abs=2 * _TOLERANCE)


@pytest.mark.parametrize(("gamma", "order"), [(0.0, 1), (0.5, 1), (1.0, 2)])
def test_bdia_has_order_two_at_gamma_one_only(gamma: float, order: int) -> None:
    measured = local_order(Bidirectional(gamma=gamma), _EDM, 1.0, _EQUAL[:2])
    assert measured == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_flow_multistep_has_its_order(order: int) -> None:
    rule = Velocity(points=tuple(range(-order, 0)))
    measured = local_order(rule, _FLOW, 0.5, _UNEQUAL[:order], largest=0.02)
    assert measured == pytest.approx(order, abs=_TOLERANCE)


@pytest.mark.parametrize("clock", [Clock.LINEAR, Clock.VE, Clock.VP])
@pytest.mark.parametrize("scale", [Scale.NONE, Scale.VP])
def test_trapezoid_in_the_time_of_a_path_has_order_two(clock: Clock, scale: Scale) -> None:
    rule = Velocity(start=-2, points=(-2, -1), path=NoisePath(clock=clock, scale=scale))
    measured = local_order(rule, _EDM, 1.0, (0.0,), sees_target=True)
    assert measured == pytest.approx(2, abs=_TOLERANCE)


def test_flow_trapezoid_has_order_two_from_pure_noise() -> None:
    rule = Velocity(start=-2, points=(-2, -1))
    measured = local_order(rule, _FLOW, 1.0, (0.0,), sees_target=True)
    assert measured == pytest.approx(2, abs=_TOLERANCE)
