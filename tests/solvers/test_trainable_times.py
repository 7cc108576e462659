"""Levels that move under fixed steps: the plan is that of the moved schedule, and so are its
derivatives.
"""

import numpy as np
import pytest
import torch

from s3search.processes import NoiseProcess, VpDiscrete
from s3search.schedules.published.listed import ListedSolver, listed_for, listed_solver_of
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule, Spacing, grid
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.solvers.trainable import trained_range
from s3search.solvers.trainable_times import TrainableTimes
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise

_CASES = [
    pytest.param(process, solver, id=f"{name}-{solver.name}")
    for name, process in PROCESSES.items()
    for solver in listed_for(process)
]


def _schedule(process: NoiseProcess, solver: ListedSolver) -> Schedule:
    end = End(rule=EndRule.DENOISE, sigma=0.05)
    times = grid(process, 5, Spacing.LOGSNR, end)
    return solver.on(process, times[:-1])


@pytest.mark.parametrize(("process", "solver"), _CASES)
def test_the_plan_moves_with_its_levels(process: NoiseProcess, solver: ListedSolver) -> None:
    schedule = _schedule(process, solver)
    table = TrainableTimes(schedule, trained=trained_range(process))
    denoiser = gaussian(process)
    same = sample(denoiser, table.plan(), noise())
    assert max_abs(same.detach() - sample(denoiser, compile_plan(schedule), noise())) < 1e-9
    (levels,) = table.moves
    with torch.no_grad():
        levels += torch.tensor([0.1, -0.2, 0.05, -0.1], dtype=torch.float64)
    moved = table.moved_schedule({})
    assert moved.steps == schedule.steps and listed_solver_of(moved) is solver
    images = sample(denoiser, table.plan(), noise())
    assert max_abs(images.detach() - sample(denoiser, compile_plan(moved), noise())) < 1e-9
    (slopes,) = torch.autograd.grad(images.square().sum(), levels)
    for k in range(4):
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                levels[k] += step
                found = sample(denoiser, table.plan(), noise()).detach()
                values.append(float(found.square().sum()))
                levels[k] -= step
        expected = (values[0] - values[1]) / 2e-3
        assert float(slopes[k]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("process", "solver"), _CASES)
def test_levels_stay_in_order_and_in_range(process: NoiseProcess, solver: ListedSolver) -> None:
    schedule = _schedule(process, solver)
    trained = trained_range(process)
    table = TrainableTimes(schedule, trained=trained, rounds=True)
    with torch.no_grad():
        table.moves[0] += torch.tensor([9.0, -9.0, 50.0, -50.0], dtype=torch.float64)
    table.project()
    made = table.moved_schedule({"from": "here"})
    assert (made.times[0], made.times[-1]) == (schedule.times[0], schedule.times[-1])
    assert made.provenance == {"from": "here"}
    lams = np.array([process.lam(t) for t in made.times[:-1]])
    assert (np.diff(lams) > 0).all()
    assert made.times[-2] >= trained[0] * (1 - 1e-9)
    if isinstance(process, VpDiscrete):
        assert all(t == round(t) for t in made.times[:-1])


def test_one_call_has_nothing_to_move() -> None:
    process = PROCESSES["edm"]
    solver = listed_for(process)[0]
    table = TrainableTimes(solver.on(process, (80.0,)), trained=trained_range(process))
    table.project()
    images = sample(gaussian(process), table.plan(), noise())
    assert images.requires_grad
    assert table.moved_schedule({}).times == (80.0, 0.0)
