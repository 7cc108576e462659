"""Re-noising samplers, ancestral steps of flows, interpolants and AdaSDE: limits and formulas."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from s3search.errors import InvalidSchedule
from s3search.processes import Flow, NoiseProcess, VpDiscrete, edm, flow, vp_discrete
from s3search.schedules import published
from s3search.schedules.published import InnerPoint
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule, grid
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
_CLEAN = End(rule=EndRule.DENOISE)


def _assert_one_table(own: Schedule, other: Schedule) -> None:
    plans = compile_plan(own), compile_plan(other)
    for table in ("p", "q", "noise"):
        np.testing.assert_allclose(*(getattr(plan, table) for plan in plans), atol=1e-9)


# -- interpolants ----------------------------------------------------------------------------


@_EACH
def test_an_interpolant_without_diffusion_is_the_ode(process: NoiseProcess) -> None:
    own = published.interpolant_sde(process, nfe=5, epsilon=0.0, spacing="uniform")
    assert not own.is_stochastic
    _assert_one_table(own, published.ddim(process, nfe=5, end=_CLEAN))


@_EACH
def test_an_interpolant_with_the_full_diffusion_is_ddpm(process: NoiseProcess) -> None:
    full = published.full_diffusion
    own = published.interpolant_sde(process, nfe=5, epsilon=full, spacing="uniform")
    _assert_one_table(own, published.ddpm(process, nfe=5))


def test_a_diffusion_without_bound_is_re_noising() -> None:
    own = published.interpolant_sde(flow(), nfe=5, epsilon=1e6, spacing="uniform")
    _assert_one_table(own, published.renoised(flow(), nfe=5))


@pytest.mark.parametrize(
    ("epsilon", "kept"),
    [
        (published.sit_diffusion, lambda s, t: math.sqrt(t / s)),
        (0.3, lambda s, t: math.exp(-0.3 * (1 / t - 1 / s))),
        (lambda u: u * u, lambda s, t: math.exp(t - s)),
    ],
)
def test_noise_decays_by_the_integral_of_the_diffusion(epsilon: object, kept: object) -> None:
    """rho_d / rho_t = exp(-int epsilon / u^2 du), from pure noise on."""
    assert callable(kept)
    schedule = published.interpolant_sde(flow(), nfe=4, epsilon=epsilon)  # type: ignore[arg-type]
    for (s, t), step in zip(pairwise(schedule.times[:-1]), schedule.steps, strict=False):
        assert step.noise is not None
        assert 1.0 - step.noise.amount == pytest.approx(kept(s, t), rel=1e-9)


def test_a_negative_diffusion_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match="epsilon: a diffusion coefficient is at least 0"):
        published.interpolant_sde(flow(), nfe=4, epsilon=-0.1)


# -- re-noising ------------------------------------------------------------------------------


def test_distilled_models_run_on_the_steps_of_their_distillation() -> None:
    assert published.distilled_times(VpDiscrete(), 4) == [999.0, 759.0, 499.0, 259.0]
    with pytest.raises(InvalidSchedule, match="take 1 to that many calls"):
        published.distilled_times(VpDiscrete(), 51)


def test_lcm_is_re_noising_but_for_its_boundary_condition() -> None:
    process = vp_discrete()
    own = published.lcm(process, nfe=4)
    assert Schedule.from_dict(own.to_dict()) == own
    plan = compile_plan(own)
    assert (plan.nfe, len(plan.noisy_rows)) == (4, 3)
    steps = published.renoised_steps(4)
    plain = compile_plan(published.on_times(process, own.times, steps))
    np.testing.assert_allclose(plan.q, plain.q, atol=1e-6)
    strong = compile_plan(published.lcm(process, nfe=4, timestep_scaling=0.01))
    assert strong.p[1, 0] / strong.levels[1].alpha == pytest.approx(0.25 / (9.99**2 + 0.25))


def test_tcd_without_noise_is_ddim_and_with_all_of_it_goes_to_index_0() -> None:
    process = vp_discrete()
    times = [*published.distilled_times(process, 4), 0.0]
    plain = published.on_times(process, times, published.ddim_steps(4))
    _assert_one_table(published.tcd(process, nfe=4, eta=0.0), plain)
    noises = [step.noise for step in published.tcd(process, nfe=4, eta=1.0).steps]
    assert [own.amount for own in noises if own is not None] == [0.0] * 3
    with pytest.raises(InvalidSchedule, match="eta: a share of the next time"):
        published.tcd(process, nfe=4, eta=1.5)


# -- flows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("times", [(1.0, 0.8, 0.5, 0.2, 0.0), (0.9, 0.5, 0.2, 0.0), (1.0, 0.0)])
def test_two_calls_of_a_flow_are_those_of_the_published_sampler(
    times: tuple[float, ...], eta: float
) -> None:
    """ComfyUI's formulas: u = (m / s) x + (1 - m / s) D, then the same to below with D(u)."""
    schedule = published.flow_2s_ancestral_on(Flow(), times, eta=eta, s_noise=1.1)
    denoiser, x = gaussian(flow()), noise(3)
    plan = compile_plan(schedule)
    draws = [noise(3, seed=5 + i) for i in plan.noisy_rows]
    expected, left = x * times[0], list(draws)
    for s, t in pairwise(times):
        below = t * (1.0 + (t / s - 1.0) * eta)
        d = denoiser(expected, torch.full((3,), s, dtype=torch.float64))
        if t > 0.0:
            m = _middle(s, below)
            u = m / s * expected + (1.0 - m / s) * d
            d = denoiser(u, torch.full((3,), m, dtype=torch.float64))
        expected = below / s * expected + (1.0 - below / s) * d
        if t > 0.0 and eta > 0.0:
            raised = (1.0 - t) / (1.0 - below)
            fresh = math.sqrt(t**2 - (below * raised) ** 2)
            expected = raised * expected + 1.1 * fresh * left.pop(0)
    assert plan.nfe == 2 * (len(times) - 1) - 1
    assert max_abs(sample(denoiser, plan, x, step_noise=draws) - expected) < 1e-9


def _middle(s: float, t: float) -> float:
    if s == 1.0:
        return 0.9999
    ratio = math.sqrt((1.0 - s) / s * (1.0 - t) / t)
    return 1.0 / (1.0 + ratio)


def test_ancestral_flows_make_the_calls_asked_for() -> None:
    schedule = published.flow_2s_ancestral(Flow(), nfe=7)
    assert schedule.nfe == compile_plan(schedule).nfe == 7
    assert schedule.is_stochastic


# -- AdaSDE ----------------------------------------------------------------------------------


def test_ada_sde_with_plain_parameters_is_dpm_solver_2() -> None:
    times = grid(edm(), 4, "karras")
    own = compile_plan(published.ada_sde(edm(), times, [[InnerPoint()]] * 4))
    x, denoiser = noise(3), gaussian(edm())
    plain = compile_plan(published.dpm2(edm(), nfe=8, end=End()))
    assert own.nfe == plain.nfe == 8
    assert max_abs(sample(denoiser, own, x) - sample(denoiser, plain, x)) < 1e-10


def test_ada_sde_draws_as_much_as_its_gammas_say() -> None:
    times = (80.0, 10.0, 1.0, 0.1)
    points = [[InnerPoint(weight=0.5, gamma=0.2)] for _ in range(3)]
    plan = compile_plan(published.ada_sde(edm(), times, points))
    hats = [1.1 * 10.0, 1.1 * 1.0]
    assert plan.noise[[*plan.noisy_rows]] == pytest.approx(
        [math.sqrt(hat**2 - t**2) for hat, t in zip(hats, times[1:], strict=False)]
    )
    with pytest.raises(InvalidSchedule, match="points: 3 steps need 3 lists of points, found 2"):
        published.ada_sde(edm(), times, points[:2])
