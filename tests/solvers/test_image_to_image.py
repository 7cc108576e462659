"""Runs that begin in the middle of a schedule: what stays, what becomes first order, what not."""

import math

import pytest

from s3search.errors import InvalidSchedule
from s3search.rules import Free, NoiseKind, StepNoise, Taylor, UniPC
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


def test_noise_of_steps_stays() -> None:
    base, noise_ = published.dpmpp_2m(PROCESSES["edm"], nfe=6), StepNoise(amount=0.4)
    steps = [step.model_copy(update={"noise": noise_}) for step in base.steps[:-1]]
    schedule = base.changed(steps=(*steps, base.steps[-1]))
    rest = image_to_image_start(schedule, schedule.times[3])
    assert rest.lowered == ("steps[3].predictor",)
    assert [step.noise for step in rest.schedule.steps] == [noise_, noise_, None]


def test_nothing_looks_back_beyond_a_restart() -> None:
    restart = StepNoise(kind=NoiseKind.TIME, amount=1.0)
    ddim = published.ddim_steps(1)[0]
    second = published.dpm_multistep_steps(2, order=2, lower_order_final=False)[1]
    schedule = Schedule(
        process=PROCESSES["edm"],
        times=(40.0, 10.0, 1.0, 8.0, 1.5, 0.5, 0.1),
        steps=(ddim, ddim, Step(predictor=ddim.predictor, noise=restart), ddim, second, second),
    )
    assert image_to_image_start(schedule, 10.0).schedule.steps == schedule.steps[1:]
    rest = image_to_image_start(schedule, 1.5)
    assert rest.lowered == ("steps[4].predictor",)


def test_a_free_step_keeps_its_noise() -> None:
    first = published.euler_steps(1)[0]
    noisy = Step(predictor=Free(p=((-2, 0.1), (-1, 0.2)), q=(0.3,), noise=1.5, carries=False))
    schedule = Schedule(
        process=PROCESSES["edm"], times=(10.0, 5.0, 2.0, 1.0), steps=(first, noisy, first)
    )
    left = image_to_image_start(schedule, 5.0).schedule.steps[0].predictor
    assert isinstance(left, Free)
    assert left.noise == 1.5
    assert left.carries and math.isclose(left.p[0][1] * 5.0, math.sqrt(2.0**2 - 1.5**2))


_SDE = {
    "2m": published.dpmpp_2m_sde(PROCESSES["edm"], nfe=6, eta=0.6, s_noise=1.01),
    "er": published.er_sde(PROCESSES["edm"], nfe=6, order=2, s_noise=1.01),
}


@pytest.mark.parametrize("schedule", _SDE.values(), ids=_SDE.keys())
def test_a_step_of_the_sde_that_looks_back_keeps_its_noise(schedule: Schedule) -> None:
    rest = image_to_image_start(schedule, schedule.times[3])
    assert rest.lowered == ("steps[3].predictor",)
    plan, whole = compile_plan(rest.schedule), compile_plan(schedule)
    assert plan.noisy_rows == (1, 2)  # of three steps, the last of which ends clean
    assert plan.noise[1:3].tolist() == pytest.approx(whole.noise[4:6].tolist(), rel=1e-12)
    assert plan.p[1, 0] == pytest.approx(whole.p[4, 3], rel=1e-12)
