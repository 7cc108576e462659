"""Runs that begin in the middle of a schedule: what stays, what becomes first order, what not."""

import pytest

from s3search.errors import InvalidSchedule
from s3search.rules import Free, Taylor, UniPC
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step
from s3search.solvers.image_to_image import image_to_image_start
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise


def test_steps_keep_the_order_that_their_new_history_allows() -> None:
    schedule = published.dpmpp_3m(PROCESSES["vp_linear"], nfe=10)
    rest = image_to_image_start(schedule, schedule.times[4])
    assert rest.lowered == ("steps[4].predictor", "steps[5].predictor")
    assert rest.schedule.times == schedule.times[4:]
    assert rest.schedule.steps[2:] == schedule.steps[6:]
    orders = [step.predictor.order for step in rest.schedule.steps[:2]]  # type: ignore[union-attr]
    assert orders == [1, 1]


def test_a_one_step_solver_loses_nothing() -> None:
    schedule = published.ddim(PROCESSES["edm"], nfe=5)
    rest = image_to_image_start(schedule, schedule.times[2])
    assert rest.lowered == ()
    denoiser, x = gaussian(schedule.process), noise() * schedule.times[2]
    whole = compile_plan(schedule)
    for row in range(3, whole.n_rows):  # the same rows by hand
        t = x.new_full((len(x),), schedule.times[row - 1])
        x = whole.p[row, row - 1] * x + whole.q[row, row - 1] * denoiser(x, t)
    found = run_plan(denoiser, compile_plan(rest.schedule), noise() * schedule.times[2])
    assert max_abs(found - x) < 1e-12


def test_free_steps_that_look_back_become_first_order_and_keep_their_levels() -> None:
    process = PROCESSES["edm"]
    reaches = Free(p=((-2, 0.1), (-1, 0.2)), q=(0.3, 0.4), carries=False)
    own = Free(p=((-1, 0.2),), q=(0.4,), carries=False)
    first = published.euler_steps(1)[0]
    steps = [first, Step(predictor=reaches), Step(predictor=reaches), Step(predictor=own)]
    schedule = Schedule(process=process, times=(10.0, 5.0, 2.0, 1.0, 0.5), steps=steps)
    rest = image_to_image_start(schedule, 5.0)
    assert rest.lowered == ("steps[1].predictor",)
    assert rest.schedule.steps[0].predictor == Free(p=((-1, 0.4),), q=(0.6,))
    assert rest.schedule.steps[1:] == schedule.steps[2:]


def test_correctors_stay_so_that_the_calls_do() -> None:
    schedule = published.unipc(PROCESSES["flow"], nfe=5, order=3)
    rest = image_to_image_start(schedule, schedule.times[2])
    assert rest.schedule.nfe == 3
    assert "steps[2].corrector" in rest.lowered
    assert all(isinstance(step.predictor, UniPC | Taylor) for step in rest.schedule.steps)


def test_times_told_apart_from_the_states_are_refused() -> None:
    base = published.ddim(PROCESSES["vp_discrete"], nfe=3)
    told = published.with_network_times(base, [None, *(0.97 * t for t in base.times[1:-1])])
    with pytest.raises(InvalidSchedule, match="network_time: the noise that image-to-image adds"):
        image_to_image_start(told, told.times[1])
