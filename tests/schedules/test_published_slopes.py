"""Published solvers along slopes: their steps, grids, calls, and what they refuse."""

import json

import numpy as np
import pytest

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.rules import AdamsTime, MomentumKind
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.golden.cases import case_files
from tests.support.helpers import gaussian, max_abs, noise

_DENOISE = End(rule=EndRule.DENOISE)
_TAB = {name: path for name, path in case_files().items() if name.startswith("deis_tab")}


@pytest.mark.parametrize("path", _TAB.values(), ids=_TAB.keys())
def test_deis_weights_are_the_exact_integrals_of_the_golden_cases(path) -> None:  # type: ignore[no-untyped-def]
    """The cases compare end states at the quadrature error of the published code only."""
    case = json.loads(path.read_text())
    solver, times = case["solver"], case["timesteps"]
    low, high = published.clock_of(edm(solver["sigma_min"], solver["sigma_max"]))
    for i, row in enumerate(case["coeff_list_exact"]):
        if not row:
            continue
        rule = AdamsTime(points=tuple(range(-len(row), 0)), beta_min=low, beta_max=high)
        ours = rule._integrals(times[i - len(row) + 1 : i + 1], times[i], times[i + 1])
        np.testing.assert_allclose(ours[::-1], row, rtol=0, atol=2e-11 * max(map(abs, row)))


@pytest.mark.parametrize("process", [edm(), vp_linear(), vp_discrete("scaled_linear")])
@pytest.mark.parametrize("end", [End(), _DENOISE])
def test_every_solver_makes_its_calls_and_nears_the_flow(process: NoiseProcess, end: End) -> None:
    nfe = 24 + (end.rule is EndRule.DENOISE)
    made: dict[str, Schedule] = {
        "deis": published.deis(process, nfe=nfe, end=end),
        "rho_ab": published.rho_ab(process, nfe=nfe, end=end),
        "ipndm": published.ipndm(process, nfe=nfe, order=2, end=end),
        "dpm2": published.dpm2(process, nfe=nfe, end=end),
        "ghvb": published.momentum(process, nfe=nfe, order=2, beta=0.8, spacing="karras", end=end),
        "hb": published.momentum(
            process, nfe=nfe, order=2, beta=0.9, kind="heavy_ball", spacing="karras", end=end
        ),
        "bdia": published.bdia(process, nfe=nfe, gamma=0.3, spacing="logsnr", end=end),
    }
    denoiser, z = gaussian(process), noise()
    for name, schedule in made.items():
        assert schedule.nfe == nfe, name
        first, last = schedule.times[0], schedule.times[-1]
        exact = denoiser.exact_flow(z * process.sigma(first), first, last)
        error = max_abs(sample(denoiser, compile_plan(schedule), z) - exact)
        assert error < 0.3 * max_abs(exact), name


def test_flow_solvers_run_from_pure_noise_to_the_clean_end() -> None:
    process, z = flow(), noise()
    exact = gaussian(process).exact_flow(z, 1.0, 0.0)
    errors = []
    for make in (published.flow_euler, published.flow_2m, published.flow_heun):
        plan = compile_plan(make(process, nfe=25, shift=1.5))
        assert (plan.nfe, plan.levels[0].alpha, plan.levels[-1].sigma) == (25, 0.0, 0.0)
        errors.append(max_abs(sample(gaussian(process), plan, z) - exact))
    assert max(errors) < 0.2 * max_abs(exact)
    assert errors[1] < errors[0]


def test_flow_shift_moves_times_towards_the_noise() -> None:
    schedule = published.flow_euler(flow(), nfe=4, shift=3.0)
    assert schedule.times == pytest.approx((1.0, 0.9, 0.75, 0.5, 0.0))


def test_runge_kutta_calls_its_stages_and_shares_levels() -> None:
    times, steps = published.runge_kutta_on(vp_linear(), [0.9, 0.5, 0.1], "rk4")
    plan = compile_plan(Schedule(process=vp_linear(), times=times, steps=steps))
    calls = plan.network_times
    assert len(times) == 5
    assert len(calls) == 8
    assert calls[1] == calls[2]
    assert calls[3] == calls[4] == 0.5


def test_f_pndm_warms_up_with_runge_kutta() -> None:
    """Four calls in each of the first three steps, one in each later."""
    outer = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    middles = [0.85, 0.75, 0.65]
    times = sorted([*outer, *middles], reverse=True)
    steps = published.f_pndm_steps(len(outer) - 1)
    assert Schedule(process=vp_linear(), times=times, steps=steps).nfe == 12 + 2


def test_ddim_on_chosen_timesteps_visits_them_and_ends_clean() -> None:
    schedule = published.ddim_on(vp_discrete("linear"), [102, 926, 424, 10])
    assert compile_plan(schedule).network_times == (926.0, 424.0, 102.0, 10.0)
    assert schedule.times[-1] == -1.0
    with pytest.raises(InvalidSchedule, match="one timestep twice"):
        published.ddim_on(vp_discrete("linear"), [3, 3])


@pytest.mark.parametrize(
    ("order", "split"), [(0.8, (1, 0.8)), (2, (2, 1.0)), (2.25, (3, 0.25)), (4.5, (5, 0.5))]
)
def test_fractional_orders_are_an_order_and_a_beta(order: float, split: tuple[int, float]) -> None:
    assert published.split_order(order) == pytest.approx(split)


def test_momentum_at_beta_one_is_ipndm() -> None:
    process = vp_linear()
    given = {"nfe": 6, "spacing": "uniform"}
    theirs = compile_plan(published.ipndm(process, order=3, **given))
    for kind in MomentumKind:
        ours = compile_plan(published.momentum(process, order=3, beta=1.0, kind=kind, **given))
        np.testing.assert_allclose(ours.q, theirs.q, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: published.deis(flow(), nfe=4), "infinite where a flow starts"),
        (lambda: published.ipndm(flow(), nfe=4), "infinite where a flow starts"),
        (lambda: published.deis(edm(), nfe=4, order=5), "orders 1 to 4, asked for 5"),
        (lambda: published.dpm2(edm(), nfe=4), "needs an odd nfe, asked 4"),
        (lambda: published.dpm2(edm(), nfe=5, r=1.0), "0 < r < 1"),
        (lambda: published.flow_heun(flow(), nfe=4), "odd nfe"),
        (lambda: published.flow_euler(flow(), nfe=4, shift=0.0), "above 0"),
        (lambda: published.runge_kutta_steps("rk5"), "unknown Runge-Kutta method 'rk5'"),
    ],
)
def test_impossible_requests_say_why(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSchedule, match=message):
        make()
