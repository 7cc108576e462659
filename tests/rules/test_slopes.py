"""Rules along slopes against formulas written out here, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.integrate import quad

from s3search.processes import edm, flow, vp_linear
from s3search.rules import (
    Adams,
    AdamsTime,
    AnyRule,
    Bidirectional,
    Clock,
    Momentum,
    MomentumKind,
    NoisePath,
    Prediction,
    Scale,
    Slope,
    SlopeTerm,
    Taylor,
    Velocity,
    level,
)
from s3search.rules.momentum import adams_bashforth
from tests.support.helpers import exact_trajectory, max_abs

_EDM, _VP, _FLOW = edm(), vp_linear(), flow()


@pytest.mark.parametrize(
    "rule",
    [AdamsTime(), Slope(), Momentum(order=3, beta=0.4), Bidirectional(gamma=0.0, previous=-2)],
)
def test_first_step_is_ddim(rule: AnyRule) -> None:
    run, to = exact_trajectory(_VP, [0.9, 0.7]), level(_VP, 0.5)
    ddim = Taylor(prediction=Prediction.NOISE, order=1)
    assert max_abs(run.next_state(rule, to) - run.next_state(ddim, to)) < 1e-14


@pytest.mark.parametrize("betas", [(0.1, 20.0), (-0.004768986493614236, 17.5284248112841)])
@pytest.mark.parametrize("last", [25.0, 0.4, 0.002, 0.0])
def test_time_weights_are_the_integrals(betas: tuple[float, float], last: float) -> None:
    """Against adaptive quadrature, over steps of one to forty thousand in rho."""
    rule = AdamsTime(points=(-3, -2, -1), beta_min=betas[0], beta_max=betas[1])
    first, nodes = 80.0, [200.0, 120.0, 80.0]
    b, d = betas[0], betas[1] - betas[0]

    def time(rho: float) -> float:
        return (math.sqrt(b * b + 2 * d * math.log1p(rho * rho)) - b) / d

    places = [time(rho) for rho in nodes]
    for j, weight in enumerate(rule._integrals(nodes, first, last)):
        others = [p for i, p in enumerate(places) if i != j]

        def basis(u: float, own: float = places[j], others: list[float] = others) -> float:
            t = time(math.sinh(u))
            return math.cosh(u) * math.prod((t - p) / (own - p) for p in others)

        expected, _ = quad(basis, math.asinh(first), math.asinh(last), epsabs=0, limit=500)
        assert weight == pytest.approx(expected, rel=1e-8)


def test_clock_of_a_linear_vp_process_is_its_time() -> None:
    ratios = [_VP.sigma(t) / _VP.alpha(t) for t in (0.9, 0.3, 0.001)]
    assert AdamsTime()._clock(np.array(ratios)) == pytest.approx([0.9, 0.3, 0.001], rel=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_adams_bashforth_constants_are_those_of_equal_steps(order: int) -> None:
    """int_0^1 of the Lagrange basis on 0, -1, .. -k + 1."""
    powers = np.vander(-np.arange(order, dtype=float), order, increasing=True).T
    exact = np.linalg.solve(powers, [1 / (i + 1) for i in range(order)])
    assert adams_bashforth(order) == pytest.approx(exact.tolist(), rel=1e-11)


@pytest.mark.parametrize("kind", list(MomentumKind))
def test_momentum_is_its_recursion(kind: MomentumKind) -> None:
    """Run forward, one velocity after the other."""
    beta, order, times = 0.4, 3, [3.0, 2.6, 2.0, 1.5, 1.1]
    run = exact_trajectory(_EDM, times)
    slopes = [(x - d) / t for x, d, t in zip(run.states, run.answers, times, strict=True)]
    ab = {1: (1.0,), 2: (1.5, -0.5), 3: (23 / 12, -16 / 12, 5 / 12)}
    c3 = [(18 + 5 * beta), -(24 - 8 * beta), (6 - beta)]
    velocity, velocities = slopes[0], []
    for i, slope in enumerate(slopes):
        mixture = ab[min(order, i + 1)]
        adams = sum(w * slopes[i - j] for j, w in enumerate(mixture))
        velocity = (1 - beta) * velocity + beta * (slope if kind is MomentumKind.GHVB else adams)
        velocities.append(velocity)
    expected = {
        MomentumKind.GHVB: sum(c * v for c, v in zip(c3, velocities[:-4:-1], strict=True))
        / (12 * beta),
        MomentumKind.HEAVY_BALL: velocity,
        MomentumKind.NESTEROV: (1 - beta) * velocity + beta * torch.as_tensor(adams),
    }[kind]
    rule = Momentum(kind=kind, order=order, beta=beta, points=(-5, -4, -3, -2, -1))
    made = run.next_state(rule, level(_EDM, 0.8))
    assert max_abs(made - (run.states[-1] + (0.8 - 1.1) * expected)) < 1e-13


def test_reversed_bdia_returns_to_where_it_came_from() -> None:
    """At gamma = 1 the step from r over s to t is undone by the step from t over s to r."""
    run, to = exact_trajectory(_VP, [0.9, 0.7]), level(_VP, 0.5)
    ahead = run.next_state(Bidirectional(gamma=1.0), to)
    back = exact_trajectory(_VP, [0.9, 0.7])
    back.levels[0], back.states[0] = to, ahead
    assert (
        max_abs(back.next_state(Bidirectional(gamma=1.0), run.levels[0]) - run.states[0]) < 1e-13
    )


def test_flow_velocity_is_noise_less_data() -> None:
    run, to = exact_trajectory(_FLOW, [1.0]), level(_FLOW, 0.6)
    x, d = run.states[0], run.answers[0]
    assert max_abs(run.next_state(Velocity(), to) - (x + (0.6 - 1.0) * (x - d))) < 1e-15


def test_linear_path_without_scale_is_euler_in_sigma() -> None:
    run, to = exact_trajectory(_EDM, [2.0]), level(_EDM, 1.2)
    path = NoisePath(clock=Clock.LINEAR, scale=Scale.NONE)
    made = run.next_state(Velocity(path=path), to)
    assert max_abs(made - run.next_state(Adams(), to)) < 1e-15


@pytest.mark.parametrize("clock", [Clock.LINEAR, Clock.VE, Clock.VP])
def test_path_rates_are_derivatives_of_its_levels(clock: Clock) -> None:
    path, d = NoisePath(clock=clock, scale=Scale.VP), 1e-6
    at = level(_EDM, 0.7)
    t = path.time(at)
    assert path.ratio(t) == pytest.approx(0.7, rel=1e-12)
    ahead, behind = (path.levels(level(_EDM, path.ratio(t + e))) for e in (d, -d))
    measured = [(a - b) / (2 * d) for a, b in zip(ahead, behind, strict=True)]
    assert list(path.rates(at)) == pytest.approx(measured, rel=1e-8)


@pytest.mark.parametrize("clock", [Clock.LINEAR, Clock.VE, Clock.VP])
def test_a_path_is_without_noise_at_time_zero(clock: Clock) -> None:
    """Also where beta_min < 0, as EDM's fit to sigma 0.002 to 81 has it, and r(t) is 0 twice."""
    path = NoisePath(clock=clock, scale=Scale.NONE, beta_d=17.588, beta_min=-0.0048)
    assert path.time(level(_EDM, 0.0)) == 0.0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Slope(start=-3), "does not exist"),
        (Slope(terms=(SlopeTerm(point=-1, weight=1.0, secant=True),)), "has no secant"),
        (Momentum(order=2, beta=0.5, points=(-1, -2)), "oldest first"),
        (Momentum(order=2, beta=0.5, points=(-2, -1)), "pure noise"),
        (AdamsTime(points=(-2, -1)), "pure noise"),
        (Bidirectional(gamma=0.5, previous=-1), "twice"),
        (Bidirectional(gamma=0.5, previous=-3), "does not exist"),
        (Velocity(path=NoisePath(clock=Clock.VE, scale=Scale.NONE), points=(-2,)), "pure noise"),
    ],
)
def test_impossible_rules_say_why(rule: AnyRule, message: str) -> None:
    levels = [level(_FLOW, t) for t in (1.0, 0.7)]
    problem = rule.problem(levels, level(_FLOW, 0.5))
    assert problem is not None
    assert message in problem.message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slope(terms=(SlopeTerm(point=-1, weight=0.5),)), "sum to 1, these to 0.5"),
        (lambda: Velocity(points=(-2, -1), weights=(1.0,)), "2 points, 1 weights"),
        (lambda: Velocity(points=(-2, -1), weights=(1.0, 1.0)), "sum to 1"),
        (lambda: NoisePath(clock=Clock.FLOW, scale=Scale.NONE), "the clock 'flow' has"),
        (lambda: AdamsTime(beta_min=3.0, beta_max=2.0), "beta_max > beta_min"),
        (lambda: Momentum(order=6, beta=0.5), "order"),
    ],
)
def test_impossible_parameters_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValidationError, match=message):
        make()
