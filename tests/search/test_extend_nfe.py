"""One call more and the same images."""

import numpy as np
import pytest

from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.rules.compensation import Interpolation
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.search.edit.draft import misfit, random_schedule
from s3search.search.edit.extend_nfe import extended
from s3search.search.space import Problem, load_space
from s3search.solvers.coefficients import as_coefficients
from s3search.solvers.plan import compile_plan

STDS = np.geomspace(0.02, 0.6, 12)


def gains(schedule: Schedule) -> np.ndarray:
    """What the schedule makes of unit noise for data N(0, diag(STDS^2))."""
    plan = compile_plan(schedule)
    states = np.zeros((plan.n_rows, len(STDS)))
    predictions = np.zeros((plan.nfe, len(STDS)))
    calls = {row: j for j, row in enumerate(plan.evaluated)}
    for r, own in enumerate(plan.levels):
        states[r] = plan.p[r] @ states + plan.q[r] @ predictions if r else own.sigma
        if r in calls:
            at = plan.call_levels[calls[r]]
            gain = at.alpha * STDS**2 / (at.alpha**2 * STDS**2 + at.sigma**2)
            predictions[calls[r]] = gain * states[r]
    return states[-1]


def _check(schedule: Schedule, times: int) -> Schedule:
    """The schedule extended so many times, with a call more each time and the same images."""
    longer: Schedule | None = schedule
    for n in range(1, times + 1):
        longer = extended(longer)
        assert longer is not None and longer.nfe == schedule.nfe + n
        np.testing.assert_allclose(gains(longer), gains(schedule), rtol=1e-8)
    return longer


@pytest.mark.parametrize("process", [edm(), flow(), vp_linear(), vp_discrete()])
@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_baselines_make_the_same_images_with_a_call_more(process: NoiseProcess, nfe: int) -> None:
    """Every solver, at a third of the spacings and ends: each of these with several solvers."""
    for name, schedule in [*published.baselines(process, nfe).items()][nfe % 3 :: 3]:
        longer = extended(schedule)
        assert longer is not None and longer.nfe == nfe + 1, name
        np.testing.assert_allclose(gains(longer), gains(schedule), rtol=1e-9, err_msg=name)


def test_steps_with_a_memory_look_past_the_new_point() -> None:
    slow = published.momentum(edm(), nfe=6, kind="heavy_ball", order=2, beta=0.7)
    for schedule in (slow, published.bdia(edm(), nfe=6), published.dpm2(edm(), nfe=7)):
        longer = extended(schedule)
        assert longer is not None
        np.testing.assert_allclose(gains(longer), gains(schedule), rtol=1e-9)


@pytest.mark.parametrize("space", ["usf", "full"])
def test_found_schedules_are_padded_again_and_again(space: str) -> None:
    rng, within = np.random.default_rng(0), load_space(space)
    for process in (edm(), vp_discrete()):
        for _ in range(40):
            _check(random_schedule(Problem(within, process), 4, rng), times=2)


def test_a_padded_schedule_belongs_to_the_space_that_keeps_published_steps() -> None:
    longer = extended(published.dpmpp_2m(edm(), nfe=4))
    assert longer is not None and misfit(Problem(load_space("usf"), edm()), longer) is None


def test_what_a_compensation_leaves_is_what_later_steps_see() -> None:
    for nfe in (3, 5):
        plain = published.dpmpp_2m(edm(), nfe=nfe)
        for schedule in (
            published.dualfast(plain, (0.0, *(0.3,) * (plain.n_steps - 1))),
            published.dc_solver(edm(), (1.0, 1.0, *(0.9,) * (nfe - 2))),
        ):
            assert any(step.compensation is not None for step in schedule.steps)
            _check(schedule, times=3)


def test_an_interpolation_has_no_point_put_between_its_own() -> None:
    """The longest interval is the first; interpolations after it leave the last, or none."""
    plain = published.ddim(vp_linear(), spacing="logsnr", nfe=5)
    for first, order in ((1, 1), (2, 2), (3, 3)):
        dc = Interpolation(ratio=1.2, order=order)
        steps = tuple(
            step.model_copy(update={"compensation": dc if i >= first else None})
            for i, step in enumerate(plain.steps)
        )
        schedule = plain.model_copy(update={"steps": steps})
        longer = _check(schedule, times=2)
        kept = [step.compensation for step in longer.steps if step.compensation is not None]
        assert kept == [dc] * (plain.n_steps - first)


def test_free_steps_get_a_coefficient_of_zero() -> None:
    for schedule in (published.dpmpp_2m(edm(), nfe=5), published.dpm2(edm(), nfe=7)):
        _check(as_coefficients(schedule), times=3)


def test_where_layers_are_left_out_call_by_call_nothing_is_padded() -> None:
    plain = published.ddim(edm(), nfe=3)
    patched = plain.model_copy(update={"model_patch": ModelPatch(skip_layers=((1,), (), ()))})
    assert extended(patched) is None
    assert extended(published.with_guidance(plain, [2.0, 3.0, 1.0])) is None
    scaled = plain.model_copy(update={"model_patch": ModelPatch(skip_scale=(0.9,))})
    longer = extended(scaled)
    assert longer is not None and longer.model_patch == scaled.model_patch
