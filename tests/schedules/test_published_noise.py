"""Published samplers that draw noise: calls, variances, limits, files."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, edm, vp_linear
from s3search.rules import NoiseKind
from s3search.schedules import published
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule, grid
from s3search.solvers.plan import Plan, compile_plan
from tests.support.helpers import PROCESSES

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
_CLEAN = End(rule=EndRule.DENOISE)


def deviations(plan: Plan) -> np.ndarray:
    """The standard deviation of every state for data that are one image, from the table."""
    sources = np.zeros((plan.n_rows, plan.n_rows))
    sources[0, 0] = plan.noise_scale
    for r in range(1, plan.n_rows):
        sources[r] = plan.p[r, :r] @ sources[:r]
        sources[r, r] = plan.noise[r]
    return np.asarray(np.linalg.norm(sources, axis=1))


@_EACH
@pytest.mark.parametrize("nfe", [2, 5, 8])
def test_baselines_with_noise_make_exactly_the_calls_asked_for(
    process: NoiseProcess, nfe: int
) -> None:
    plain = published_solvers(process, nfe)
    found = published_solvers(process, nfe, noise=True)
    assert found[: len(plain)] == plain
    names = {each.solver for each in found[len(plain) :]}
    assert "Euler ancestral (DDPM)" in names
    for each in found[len(plain) :]:
        assert each.schedule.is_stochastic, each.name
        assert compile_plan(each.schedule).nfe == each.schedule.nfe == nfe, each.name
        assert Schedule.from_dict(each.schedule.to_dict()) == each.schedule, each.name
    assert len({each.name for each in found}) == len(found)


def test_no_baseline_draws_noise_unless_asked() -> None:
    assert not any(each.schedule.is_stochastic for each in published_solvers(edm(), 5))


@_EACH
def test_states_have_the_variance_of_their_level_unless_the_noise_is_scaled(
    process: NoiseProcess,
) -> None:
    for each in published_solvers(process, 5, noise=True):
        if not each.schedule.is_stochastic:
            continue
        plan = compile_plan(each.schedule)
        sigmas = np.array([at.sigma for at in plan.levels])
        noises = [each.schedule.start.noise, *(step.noise for step in each.schedule.steps)]
        is_scaled = any(noise is not None and noise.scale != 1.0 for noise in noises)
        kept = np.allclose(deviations(plan), sigmas, rtol=1e-8, atol=1e-9)
        assert kept != is_scaled, each.name


_UNLIMITED = published.Churn(s_churn=0.0)
_LIMITS: dict[str, tuple[Callable[[NoiseProcess], Schedule], Callable[[NoiseProcess], Schedule]]]
_LIMITS = {
    "ddim": (
        lambda p: published.ddim(p, nfe=5, eta=0.0, end=_CLEAN),
        lambda p: published.ddim(p, nfe=5, end=_CLEAN),
    ),
    "euler ancestral": (
        lambda p: published.euler_ancestral(p, nfe=5, eta=0.0),
        lambda p: published.euler(p, nfe=5, end=_CLEAN),
    ),
    "heun ancestral": (
        lambda p: published.heun_ancestral(p, nfe=5, eta=0.0),
        lambda p: published.heun(p, nfe=5),
    ),
    "dpm_2 ancestral": (
        lambda p: published.dpm_2_ancestral(p, nfe=5, eta=0.0),
        lambda p: published.dpm2(p, nfe=5),
    ),
    "dpmpp_2s ancestral": (
        lambda p: published.dpmpp_2s_ancestral(p, nfe=5, eta=0.0, spacing="logsnr"),
        lambda p: published.dpmpp_2s(p, nfe=5, end=_CLEAN),
    ),
    "euler churn": (
        lambda p: published.euler_churn(p, nfe=5, churn=_UNLIMITED),
        lambda p: published.euler(p, nfe=5, end=_CLEAN),
    ),
    "heun churn": (
        lambda p: published.heun_churn(p, nfe=5, churn=_UNLIMITED),
        lambda p: published.heun(p, nfe=5),
    ),
    "dpm_2 churn": (
        lambda p: published.dpm_2_churn(p, nfe=4, churn=_UNLIMITED, end=End()),
        lambda p: published.dpm2(p, nfe=4, end=End()),
    ),
    "ddpm": (
        lambda p: published.ddpm(p, nfe=5),
        lambda p: published.ddim(p, nfe=5, eta=1.0, end=_CLEAN),
    ),
}
_FROM_PURE_NOISE = ("ddim", "ddpm", "euler ancestral")


@_EACH
@pytest.mark.parametrize("name", _LIMITS)
def test_limits_are_the_samplers_that_they_say(process: NoiseProcess, name: str) -> None:
    if process.alpha(process.time_range[1]) == 0.0 and name not in _FROM_PURE_NOISE:
        with pytest.raises(InvalidSchedule, match="infinite where a flow starts"):
            _LIMITS[name][0](process)
        return
    own, limit = (compile_plan(make(process)) for make in _LIMITS[name])
    for table in ("p", "q", "noise"):
        np.testing.assert_allclose(getattr(own, table), getattr(limit, table), atol=1e-9)


def test_ddpm_steps_have_the_posteriors_variance() -> None:
    """arXiv:2006.11239, eq. 7, with beta = 1 - A / A'."""
    process = vp_linear()
    small, large = (
        compile_plan(published.ddpm(process, nfe=4, variance=variance))
        for variance in ("fixed_small", "fixed_large")
    )
    squared = [at.alpha**2 for at in small.levels]
    for r in (1, 2, 3):
        beta = 1.0 - squared[r - 1] / squared[r]
        posterior = (1.0 - squared[r]) / (1.0 - squared[r - 1]) * beta
        assert small.noise[r] ** 2 == pytest.approx(posterior, rel=1e-9)
        assert large.noise[r] ** 2 == pytest.approx(beta, rel=1e-9)
    assert small.noisy_rows == large.noisy_rows == (1, 2, 3)


def test_noise_moves_with_its_schedule_to_another_process() -> None:
    made = published.euler_ancestral(edm(sigma_max=80.0), nfe=5, eta=0.8)
    moved = compile_plan(retime(made, vp_linear()))
    plan = compile_plan(made)
    alphas = np.array([at.alpha for at in moved.levels])
    np.testing.assert_allclose(moved.noise / alphas, plan.noise, rtol=1e-9)


def test_the_network_sees_churned_states_at_their_raised_level() -> None:
    """EDM, alg. 2, lines 4 to 6: gamma is S_churn / N below its cap, and 0 outside its levels."""
    churn = published.Churn(s_churn=1.5, s_min=0.01, s_max=50.0, s_noise=1.01)
    plan = compile_plan(published.heun_churn(edm(), nfe=9, churn=churn))
    sigmas = grid(edm(), 5, "karras", _CLEAN)
    raised = [1.3 * sigma if 0.01 <= sigma <= 50.0 else sigma for sigma in sigmas]
    seen = [at.t for at in plan.call_levels]
    assert seen == pytest.approx([*_alternating(raised[:-1], sigmas[1:]), raised[-2]])
    added = [1.01 * np.sqrt(b**2 - a**2) for a, b in zip(sigmas, raised, strict=True) if b > a]
    assert plan.noise[[*plan.noisy_rows]] == pytest.approx(added)
    assert len(added) == 3


def _alternating(first: list[float], second: tuple[float, ...]) -> list[float]:
    """The calls of all Heun steps but the last, which ends clean in one."""
    pairs = zip(first[:-1], second[:-1], strict=True)
    return [value for pair in pairs for value in pair]


def test_churn_at_the_first_level_is_in_the_start() -> None:
    schedule = published.euler_churn(edm(), nfe=3, churn=published.Churn(s_max=100.0))
    plan = compile_plan(schedule)
    assert schedule.start.noise is not None
    assert (plan.noise_scale, plan.noisy_rows, plan.nfe) == (80.0, (1, 2), 3)


def test_a_restart_passes_its_interval_again() -> None:
    interval = published.RestartInterval(low=0.5, high=2.0, n_steps=2, repeats=3)
    schedule = published.restart(edm(), nfe=21, intervals=(interval,))
    low = min(grid(edm(), 5, "karras", _CLEAN), key=lambda t: abs(t - 0.5))
    assert interval.nfe == 12
    assert [b for a, b in pairwise(schedule.times) if b > a] == [2.0] * 3
    assert [a for a, b in pairwise(schedule.times) if b > a] == [low] * 3
    plan = compile_plan(schedule)
    assert len(plan.noisy_rows) == 3
    assert plan.noise[plan.noisy_rows[0]] == pytest.approx(np.sqrt(4.0 - low**2))


def test_intervals_at_one_level_are_passed_one_after_another() -> None:
    intervals = (
        published.RestartInterval(low=0.5, high=2.0, n_steps=2),
        published.RestartInterval(low=0.45, high=1.0, n_steps=1, repeats=2),
    )
    schedule = published.restart_on(edm(), (80.0, 5.0, 0.5, 0.002), intervals)
    rises = [(a, b) for a, b in pairwise(schedule.times) if b > a]
    assert rises == [(0.5, 2.0), (0.5, 1.0), (0.5, 1.0)]
    assert schedule.nfe == 2 * (3 + 2 + 2)


def test_a_run_with_restarts_has_churn_in_its_own_steps() -> None:
    churn = published.Churn(s_churn=0.6, s_min=0.1, s_max=100.0, s_noise=1.01)
    interval = published.RestartInterval(low=0.5, high=2.0)
    schedule = published.restart_on(
        edm(), (80.0, 5.0, 0.5, 0.0), (interval,), s_noise=1.5, churn=churn
    )
    plan = compile_plan(schedule)
    seen = [at.t for at in plan.call_levels]
    assert seen == pytest.approx([96.0, 5.0, 6.0, 0.5, 2.0, 0.5, 0.6])
    assert schedule.start.noise is not None
    raises = ((80.0, 96.0, 1.01), (5.0, 6.0, 1.01), (0.5, 2.0, 1.5), (0.5, 0.6, 1.01))
    added = [scale * np.sqrt(high**2 - low**2) for low, high, scale in raises]
    assert plan.noise[[*plan.noisy_rows]] == pytest.approx(added)
    without = published.restart_on(edm(), (80.0, 5.0, 0.5, 0.0), (interval,), s_noise=1.5)
    calm = published.Churn(s_churn=0.0)
    assert without == published.restart_on(
        edm(), (80.0, 5.0, 0.5, 0.0), (interval,), s_noise=1.5, churn=calm
    )


@_EACH
def test_times_rise_at_restarts_and_at_the_end_of_steps_of_two_calls_only(
    process: NoiseProcess,
) -> None:
    for each in published_solvers(process, 5, noise=True):
        times = each.schedule.times
        rises = [i for i, (a, b) in enumerate(pairwise(times)) if b >= a]
        noises = [each.schedule.steps[i].noise for i in rises]
        assert all(noise is not None and noise.kind is NoiseKind.TIME for noise in noises)
        if any(name in each.solver for name in ("DDIM", "DDPM", "Euler")):
            assert not rises, each.name


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: published.restart(edm(), nfe=2, end=End()), "2 calls leave 0 beside those"),
        (
            lambda: published.restart(
                edm(), nfe=9, intervals=(published.RestartInterval(low=0.5, high=0.4),)
            ),
            "intervals.0.: the level nearest to 0.5 is",
        ),
        (lambda: published.heun_ancestral(edm(), nfe=4), "needs an odd nfe, asked 4"),
        (lambda: published.dpm_2_ancestral(edm(), nfe=9, eta=1.3), "make . calls, asked 9"),
        (lambda: published.ddpm(edm(), nfe=4, variance="learned"), "not a valid Variance"),
    ],
)
def test_what_cannot_be_is_said(make: Callable[[], Schedule], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_noise_of_a_capped_eta_is_all_that_is_left() -> None:
    schedule = published.ancestral_on(edm(), (14.0, 12.0, 3.0, 0.0), "dpm_2", eta=2.0)
    plan = compile_plan(schedule)
    assert schedule.nfe == 3
    assert plan.noise[[*plan.noisy_rows]].tolist() == [12.0, 3.0]
