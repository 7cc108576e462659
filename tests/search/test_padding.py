"""One call more and the same images."""

import numpy as np
import pytest

from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.search import load_space, problem, random_schedule
from s3search.search.padding import padded
from s3search.solvers.plan import compile_plan

STDS = np.geomspace(0.02, 0.6, 12)


def gains(schedule: Schedule) -> np.ndarray:
    """What the schedule makes of unit noise for data N(0, diag(STDS^2))."""
    plan = compile_plan(schedule)
    states = np.zeros((plan.n_rows, len(STDS)))
    predictions = np.zeros((plan.nfe, len(STDS)))
    calls = {row: j for j, row in enumerate(plan.evaluated)}
    for r, at in enumerate(plan.levels):
        states[r] = plan.p[r] @ states + plan.q[r] @ predictions if r else at.sigma
        if r in calls:
            gain = at.alpha * STDS**2 / (at.alpha**2 * STDS**2 + at.sigma**2)
            predictions[calls[r]] = gain * states[r]
    return states[-1]


@pytest.mark.parametrize("process", [edm(), flow(), vp_linear(), vp_discrete()])
@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_every_baseline_makes_the_same_images_with_a_call_more(
    process: NoiseProcess, nfe: int
) -> None:
    for name, schedule in published.baselines(process, nfe).items():
        longer = padded(schedule)
        assert longer is not None and longer.nfe == nfe + 1, name
        np.testing.assert_allclose(gains(longer), gains(schedule), rtol=1e-9, err_msg=name)


def test_steps_with_a_memory_look_past_the_new_point() -> None:
    slow = published.momentum(edm(), nfe=6, kind="heavy_ball", order=2, beta=0.7)
    for schedule in (slow, published.bdia(edm(), nfe=6), published.dpm2(edm(), nfe=7)):
        longer = padded(schedule)
        assert longer is not None
        np.testing.assert_allclose(gains(longer), gains(schedule), rtol=1e-9)


@pytest.mark.parametrize("space", ["usf", "full"])
def test_found_schedules_are_padded_again_and_again(space: str) -> None:
    rng, within = np.random.default_rng(0), load_space(space)
    for process in (edm(), vp_discrete()):
        for _ in range(40):
            schedule = random_schedule(within, process, 4, rng)
            longer = padded(schedule)
            twice = None if longer is None else padded(longer)
            assert twice is not None and twice.nfe == 6
            np.testing.assert_allclose(gains(twice), gains(schedule), rtol=1e-8)


def test_a_padded_schedule_belongs_to_the_space_that_keeps_published_steps() -> None:
    longer = padded(published.dpmpp_2m(edm(), nfe=4))
    assert longer is not None and problem(load_space("usf"), longer) is None


def test_where_the_newest_call_means_something_nothing_is_padded() -> None:
    assert padded(published.dualfast(published.ddim(edm(), nfe=4), (0, 0.2, 0.1, 0))) is None
    plain = published.ddim(edm(), nfe=3)
    patched = plain.model_copy(update={"model_patch": ModelPatch(skip_layers=((1,), (), ()))})
    assert padded(patched) is None
    scaled = plain.model_copy(update={"model_patch": ModelPatch(skip_scale=(0.9,))})
    longer = padded(scaled)
    assert longer is not None and longer.model_patch == scaled.model_patch
