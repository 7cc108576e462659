"""Measured weak orders of solvers with noise: mean and covariance on a Gaussian, exactly.

They are those of docs/solvers.md, which ``python -m tests.benchmarks.bench_orders`` prints.
"""

import numpy as np
import pytest

from s3search.processes import VpLinear, edm
from s3search.rules import NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.published.restart import RestartInterval
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import grid
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import gaussian, noise, slope
from tests.support.weak import order_of_steps, weak_error, weak_order

_TOLERANCE = 0.15


def ancestral_order(eta: float = 1.0) -> float:
    """DDIM's steps with eta, which at 1 are DDPM's and Euler's ancestral ones."""
    return order_of_steps(lambda n: published.ddim_steps(n, eta), eta**2)


def two_call_order(method: str, eta: float = 1.0) -> float:
    """Ancestral steps of two calls."""

    def make(times: tuple[float, ...]) -> Schedule:
        return published.ancestral_on(edm(), times, method, eta=eta)

    return weak_order(make, eta, calls=2)


def churn_order(method: str) -> float:
    """Steps that begin at raised levels, with an S_churn that is shared out among all of them."""
    churn = published.Churn(s_churn=2.0, s_min=0.0, s_noise=1.0)

    def make(times: tuple[float, ...]) -> Schedule:
        return published.churn_on(edm(), times, method, churn)

    return weak_order(make, calls=published.Method(method).n_calls)


def kind_order(kind: NoiseKind, amount: float) -> float:
    """First-order steps with another kind of noise."""
    steps = (Step(predictor=published.ddim_steps(1)[0].predictor, noise=_noise(kind, amount)),)
    return order_of_steps(lambda n: steps * n)


def _noise(kind: NoiseKind, amount: float) -> StepNoise:
    return StepNoise(kind=kind, amount=amount)


def sde_order(order: int, prediction: str = "data", variant: str = "midpoint") -> float:
    """SDE-DPM-Solver(++) of an order, its first steps of lower order left out."""
    if order == 3:
        variant = "heun"
    return order_of_steps(
        lambda n: published.sde_steps(n, order=order, prediction=prediction, variant=variant),
        n_exact=order - 1,
    )


def dpmpp_sde_order(eta: float = 1.0) -> float:
    """DPM-Solver++(SDE), two calls a step."""

    def make(times: tuple[float, ...]) -> Schedule:
        visited, steps = published.dpmpp_sde_on(edm(), times, eta)
        return Schedule(process=edm(), times=visited, steps=steps)

    return weak_order(make, eta, calls=2)


def seeds_order(order: int, prediction: str = "data", variant: str = "midpoint") -> float:
    """SEEDS of an order, as many calls a step."""

    def make(times: tuple[float, ...]) -> Schedule:
        visited, steps = published.seeds_on(
            edm(), times, order, prediction=prediction, variant=variant
        )
        return Schedule(process=edm(), times=visited, steps=steps)

    return weak_order(make, calls=order)


def er_sde_order(order: int, function: str = "sde_5") -> float:
    """ER-SDE with the noise that its authors sample with."""
    return order_of_steps(lambda n: published.er_sde_steps(n, order=order, function=function))


def sa_order(predictor: int, corrector: int = 0, tau: float = 1.0) -> float:
    """SA-Solver with such orders, the same in all steps but the first."""

    def steps(n: int) -> tuple[Step, ...]:
        orders = [(min(predictor, i + 1), min(corrector, i + 2)) for i in range(n)]
        own = [published.sa_step(each, tau, rescaled=False) for each in orders[:-1]]
        return (*own, published.sa_step((orders[-1][0], 0), tau, rescaled=False))

    n_exact = max(predictor, corrector) - 1
    return order_of_steps(steps, tau * tau, n_exact if corrector == 0 else 0)


def restart_order() -> float:
    """A whole run with the restart interval that is usual for its calls."""
    calls = (81, 161, 321)
    return slope([restart_error(nfe) for nfe in calls], [1.0 / nfe for nfe in calls])


def restart_error(nfe: int, interval: RestartInterval | None = None) -> float:
    """The weak error of a run to the clean end, with one interval or the usual one."""
    intervals = None if interval is None else (interval,)
    return weak_error(compile_plan(published.restart(edm(), nfe=nfe, intervals=intervals)))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_steps_have_weak_order_one(eta: float) -> None:
    assert ancestral_order(eta) == pytest.approx(1.0, abs=_TOLERANCE)


@pytest.mark.parametrize("method", ["heun", "dpm_2", "dpmpp_2s"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_steps_of_two_calls_have_weak_order_two(method: str, eta: float) -> None:
    """An exact step below and noise make exact marginals, so that the order is the solver's."""
    assert two_call_order(method, eta) == pytest.approx(2.0, abs=_TOLERANCE)


@pytest.mark.parametrize(("method", "order"), [("euler", 1.0), ("heun", 2.0), ("dpm_2", 2.0)])
def test_churn_keeps_the_order_of_its_solver(method: str, order: float) -> None:
    assert churn_order(method) == pytest.approx(order, abs=_TOLERANCE)


def test_restarts_keep_the_order_of_heun_as_their_interval_has_more_steps_with_more_calls() -> (
    None
):
    assert restart_order() == pytest.approx(2.0, abs=_TOLERANCE)
    assert restart_error(161) < 0.01
    one_step = published.RestartInterval()
    assert restart_error(321, one_step) == pytest.approx(restart_error(161, one_step), rel=0.05)


@pytest.mark.parametrize(("kind", "amount"), [(NoiseKind.SDE, 0.5), (NoiseKind.FLOW_ETA, 1.0)])
def test_first_order_steps_with_other_noise_have_weak_order_one(
    kind: NoiseKind, amount: float
) -> None:
    assert kind_order(kind, amount) == pytest.approx(1.0, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_first_order_sde_steps_have_weak_order_one(prediction: str) -> None:
    assert sde_order(1, prediction) == pytest.approx(1.0, abs=_TOLERANCE)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
def test_second_order_sde_steps_have_weak_order_two(prediction: str, variant: str) -> None:
    assert sde_order(2, prediction, variant) == pytest.approx(2.0, abs=_TOLERANCE)


def test_dpmpp_sde_has_weak_order_one_as_its_inner_draw_is_not_on_the_path() -> None:
    assert dpmpp_sde_order() == pytest.approx(1.0, abs=_TOLERANCE)
    assert dpmpp_sde_order(0.0) == pytest.approx(2.0, abs=_TOLERANCE)


@pytest.mark.parametrize(("order", "measured"), [(1, 1.0), (2, 2.0), (3, 2.0)])
def test_seeds_has_weak_order_two_at_most(order: int, measured: float) -> None:
    assert seeds_order(order) == pytest.approx(measured, abs=_TOLERANCE)


@pytest.mark.parametrize(("order", "measured"), [(1, 1.0), (2, 2.0), (3, 2.2)])
def test_sa_predictors_have_weak_order_two_at_most(order: int, measured: float) -> None:
    assert sa_order(order) == pytest.approx(measured, abs=_TOLERANCE)


@pytest.mark.parametrize(("order", "measured"), [(1, 1.0), (2, 2.0), (3, 3.0)])
def test_sa_predictors_without_noise_have_their_order(order: int, measured: float) -> None:
    assert sa_order(order, tau=0.0) == pytest.approx(measured, abs=_TOLERANCE)


def test_a_corrector_raises_the_weak_order_to_two() -> None:
    assert sa_order(1, 2) == pytest.approx(2.0, abs=_TOLERANCE)


@pytest.mark.parametrize(("order", "measured"), [(1, 1.0), (2, 2.0), (3, 2.0)])
def test_er_sde_has_weak_order_two_at_most(order: int, measured: float) -> None:
    assert er_sde_order(order) == pytest.approx(measured, abs=_TOLERANCE)


def test_moments_are_those_of_many_images() -> None:
    """The matrix Gaussian of the other tests, sampled and compared with a much finer plan."""
    process, denoiser = VpLinear(), gaussian(VpLinear())
    times = grid(process, 40, "logsnr")
    steps = published.sde_steps(40, order=2)
    plan = compile_plan(Schedule(process=process, times=times, steps=steps))
    images = sample(denoiser, plan, noise(4000)).flatten(1).numpy()
    u, values = denoiser.eigenvectors, denoiser.eigenvalues
    assert u is not None
    exact = (u * values) @ u.T
    assert np.abs(images.mean(axis=0) - denoiser.mean.numpy().ravel()).max() < 0.1
    assert np.abs(np.cov(images.T) - exact.numpy()).max() < 0.1


def test_a_plan_of_no_error_has_none() -> None:
    times = (6.0, 3.0, 1.0)
    schedule = Schedule(process=edm(), times=times, steps=published.sde_steps(2, order=1))
    assert weak_error(compile_plan(schedule), 1.0, n_exact=2) < 1e-12
