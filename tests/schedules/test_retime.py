"""Free steps on the times of another process."""

import pytest

from s3search import Schedule, compile_plan
from s3search.processes import NoiseProcess, edm
from s3search.rules import Free, NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Corrector, CorrectorKind, Start, Step
from s3search.solvers.coefficients import as_coefficients
from s3search.solvers.sample import run_plan
from tests.support.helpers import PROCESSES, gaussian, noise

_TARGETS = [name for name in PROCESSES if name != "edm"]


def _image(schedule: Schedule) -> tuple[float, ...]:
    """x / alpha at the end, from one x / alpha."""
    process, plan = schedule.process, compile_plan(schedule)
    first, last = plan.levels[0], plan.levels[-1]
    x = noise(2) * 50.0 * first.alpha
    image = run_plan(gaussian(process), plan, x) / last.alpha
    return tuple(image.flatten().tolist())


@pytest.mark.parametrize("name", _TARGETS)
def test_a_free_schedule_makes_the_same_trajectory_on_another_process(name: str) -> None:
    target: NoiseProcess = PROCESSES[name]
    schedule = as_coefficients(published.unipc(edm(sigma_min=0.05, sigma_max=10.0), nfe=4))
    moved = retime(schedule, target)
    assert all(isinstance(step.predictor, Free) for step in moved.steps)
    assert _image(moved) == pytest.approx(_image(schedule), rel=1e-8, abs=1e-8)
    back = retime(moved, schedule.process)
    assert compile_plan(back).q == pytest.approx(compile_plan(schedule).q, abs=1e-8)


def test_a_free_corrector_is_scaled_with_the_new_point() -> None:
    corrector = Corrector(
        kind=CorrectorKind.PSEUDO, rule=Free(p=((-2, 0.2), (-1, 0.0)), q=(0.3, 0.5))
    )
    ddim = published.ddim_steps(1)[0].predictor
    schedule = Schedule(
        process=edm(), times=(10.0, 2.0), steps=(Step(predictor=ddim, corrector=corrector),)
    )
    assert _image(retime(schedule, PROCESSES["flow"])) == pytest.approx(_image(schedule), rel=1e-8)


@pytest.mark.parametrize("name", _TARGETS)
def test_noise_from_a_time_is_from_the_time_of_equal_lam(name: str) -> None:
    restart = StepNoise(kind=NoiseKind.TIME, amount=1.0)
    ddim = published.ddim_steps(1)[0]
    schedule = Schedule(
        process=edm(),
        times=(9.0, 1.0, 4.0, 0.5),
        start=Start(noise=StepNoise(kind=NoiseKind.TIME, amount=6.0)),
        steps=(ddim, Step(predictor=ddim.predictor, noise=restart), ddim),
    )
    moved = retime(schedule, PROCESSES[name])
    plan, own = compile_plan(moved), compile_plan(schedule)
    assert plan.noisy_rows == own.noisy_rows == (1, 3)
    for row in plan.noisy_rows:
        scaled = plan.noise[row] / plan.levels[row].alpha
        assert scaled == pytest.approx(own.noise[row], rel=1e-8)
    assert moved.start.noise is not None
    assert retime(moved, edm()).start.noise.amount == pytest.approx(6.0)  # type: ignore[union-attr]
