"""UniPC and Adams steps against formulas written out here."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from s3search.processes import edm, flow, vp_linear
from s3search.rules import LINEAR_PREDICTIONS, Adams, Prediction, Taylor, UniPC, Variant, level
from s3search.rules.adams import integrated_basis
from s3search.schedules.published.k_diffusion import K_SIGMAS
from tests.support.helpers import exact_trajectory, max_abs

_VP, _EDM = vp_linear(), edm()


@pytest.mark.parametrize("variant", list(Variant))
def test_unipc_order_three_is_its_published_system(variant: Variant) -> None:
    """As in the authors' code: phi'_1 = (e^z - 1)/z - 1, phi'_{i+1} = phi'_i / z - 1/(i+1)!."""
    run = exact_trajectory(_VP, [0.9, 0.7, 0.55])
    start, to = run.levels[-1], level(_VP, 0.4)
    h = to.lam - start.lam
    z = -h
    b = z if variant is Variant.BH1 else math.expm1(z)
    psi1 = math.expm1(z) / z - 1
    psi2 = psi1 / z - 0.5
    r = [(run.levels[i].lam - start.lam) / h for i in (0, 1)]
    rho = np.linalg.solve([[1, 1], r], [psi1 / b, 2 * psi2 / b])
    x = to.sigma / start.sigma * run.states[-1] - to.alpha * math.expm1(z) * run.answers[-1]
    for i in (0, 1):
        x = x - to.alpha * b * rho[i] * (run.answers[i] - run.answers[-1]) / r[i]
    rule = UniPC(prediction=Prediction.DATA, variant=variant, points=(-3, -2))
    assert max_abs(run.next_state(rule, to) - x) < 1e-13


@pytest.mark.parametrize("prediction", LINEAR_PREDICTIONS)
def test_unipc_with_all_points_does_not_depend_on_b_above_one_point(
    prediction: Prediction,
) -> None:
    """With two or more points the system is solved, and B cancels: it is the Taylor step."""
    run = exact_trajectory(_VP, [0.9, 0.7, 0.55])
    to = level(_VP, 0.4)
    one, two = (
        run.next_state(UniPC(prediction=prediction, variant=v, points=(-3, -2)), to)
        for v in Variant
    )
    taylor = run.next_state(Taylor(prediction=prediction, order=3), to)
    assert max_abs(one - two) < 1e-13
    assert max_abs(one - taylor) < 1e-13


def test_euler_is_ddim() -> None:
    run = exact_trajectory(_VP, [0.7])
    to = level(_VP, 0.5)
    first = Taylor(prediction=Prediction.NOISE, order=1)
    assert max_abs(run.next_state(Adams(), to) - run.next_state(first, to)) < 1e-15


def test_heun_corrector_is_the_trapezoid_rule() -> None:
    run = exact_trajectory(_EDM, [3.0, 2.0])
    slopes = [(run.states[i] - run.answers[i]) / run.levels[i].t for i in (0, 1)]
    rule = Adams(start=-2, points=(-2, -1))
    expected = run.states[0] - 0.5 * (slopes[0] + slopes[1])
    assert max_abs(run.next_state(rule, run.levels[1]) - expected) < 1e-14


def test_equal_adams_steps_have_the_textbook_weights() -> None:
    weights = integrated_basis([4.0, 3.0, 2.0, 1.0], 1.0, 0.0)
    assert weights == pytest.approx([9 / 24, -37 / 24, 59 / 24, -55 / 24], rel=1e-13)


@pytest.mark.parametrize(
    "sigmas",
    [
        *(make(8, edm()) for make in K_SIGMAS.values()),
        [80.0, 0.8, 0.008, 8e-5, 8e-7, 0.0],
        [80.0, 79.9, 79.8, 79.7, 1e-4, 0.0],
    ],
)
def test_adams_weights_are_those_that_lms_integrates(sigmas: list[float]) -> None:
    """By quadrature at epsrel 1e-4, as k-diffusion and diffusers do: exact for polynomials."""
    for i in range(len(sigmas) - 1):
        nodes = [sigmas[i - j] for j in range(min(i + 1, 4))]
        for own, weight in zip(
            nodes, integrated_basis(nodes, sigmas[i], sigmas[i + 1]), strict=True
        ):
            others = [node for node in nodes if node != own]

            def basis(at: float, own: float = own, others: list[float] = others) -> float:
                return math.prod((at - other) / (own - other) for other in others)

            theirs, _ = quad(basis, sigmas[i], sigmas[i + 1], epsrel=1e-4)
            assert weight == pytest.approx(theirs, rel=1e-13)


def test_adams_above_euler_has_no_value_from_pure_noise() -> None:
    levels = [level(flow(), t) for t in (1.0, 0.7)]
    problem = Adams(points=(-2, -1)).problem(levels, level(flow(), 0.5))
    assert problem is not None
    assert "pure noise" in problem.message
    assert Adams().problem(levels[:1], levels[1]) is None
