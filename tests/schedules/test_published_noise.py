"""Published samplers that draw noise: calls, variances, limits, files."""

from collections.abc import Callable

import numpy as np
import pytest

from s3search.processes import NoiseProcess, edm, vp_linear
from s3search.schedules import published
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule
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
def test_states_have_the_variance_of_their_level_but_for_large_variances(
    process: NoiseProcess,
) -> None:
    for each in published_solvers(process, 5, noise=True):
        if not each.schedule.is_stochastic:
            continue
        plan = compile_plan(each.schedule)
        sigmas = np.array([at.sigma for at in plan.levels])
        kept = np.allclose(deviations(plan), sigmas, rtol=1e-8, atol=1e-9)
        assert kept != ("large" in each.solver), each.name


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
    "ddpm": (
        lambda p: published.ddpm(p, nfe=5),
        lambda p: published.ddim(p, nfe=5, eta=1.0, end=_CLEAN),
    ),
}


@_EACH
@pytest.mark.parametrize("name", _LIMITS)
def test_limits_are_the_samplers_that_they_say(process: NoiseProcess, name: str) -> None:
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
