"""Noise that moves: the plan is that of the moved schedule, and so are its derivatives."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.processes import edm
from s3search.rules import NoiseKind, Prediction, StepNoise, Taylor
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, grid
from s3search.solvers.coefficients import coefficient_table, schedule_of_table
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import AnyPlan, sample
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range
from s3search.solvers.trainable_times import TrainableTimes
from tests.solvers.test_noise_as_numbers import STOCHASTIC
from tests.support.helpers import gaussian, max_abs, noise

_ALL = pytest.mark.parametrize("schedule", STOCHASTIC.values(), ids=list(STOCHASTIC))
_DDIM = Taylor(prediction=Prediction.DATA, order=1)
Trainable = TrainableTable | TrainableTimes


def _table(
    schedule: Schedule, *, carries: bool = False, free: frozenset[Freedom] = frozenset(Freedom)
) -> TrainableTable:
    trained = trained_range(schedule.process)
    return TrainableTable(coefficient_table(schedule), carries=carries, free=free, trained=trained)


def _times(schedule: Schedule) -> TrainableTimes:
    return TrainableTimes(schedule, trained=trained_range(schedule.process), moves_noise=True)


def _with_amounts(*noises: StepNoise | None) -> Schedule:
    steps = [Step(predictor=_DDIM, noise=each) for each in noises]
    times = grid(edm(), len(noises), "logsnr", End(rule=EndRule.DENOISE, sigma=0.05))
    return Schedule(process=edm(), times=times, steps=steps)


def _draws(plan: AnyPlan, n: int = 3) -> list[Tensor]:
    return [noise(n, seed=100 + k) for k in range(len(plan.noisy_rows))]


def _images(schedule: Schedule, plan: AnyPlan, draws: Sequence[Tensor]) -> Tensor:
    return sample(gaussian(schedule.process), plan, noise(3, seed=5), step_noise=draws)


def _shaken(table: Trainable, size: float, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for move in table.moves:
            move.copy_(torch.tensor(rng.normal(size=tuple(move.shape)) * size))
    table.project()


@_ALL
@pytest.mark.parametrize("trainable", [_table, _times])
def test_what_has_not_moved_makes_the_images_of_the_schedule(
    schedule: Schedule, trainable: Callable[[Schedule], Trainable]
) -> None:
    plan, moving = compile_plan(schedule), trainable(schedule).plan()
    assert len(moving.noisy_rows) == len(plan.noisy_rows)
    draws = _draws(plan)
    wanted = _images(schedule, plan, draws)
    assert max_abs(_images(schedule, moving, draws).detach() - wanted) < 1e-9


@_ALL
@pytest.mark.parametrize("carries", [False, True])
def test_wherever_a_table_goes_the_schedule_makes_its_images(
    schedule: Schedule, carries: bool
) -> None:
    table = _table(schedule, carries=carries)
    before = [step.predictor.carries for step in schedule_of_table(table.table).steps]
    for seed in range(3):
        _shaken(table, 0.3, seed)
        with torch.no_grad():
            plan = table.plan()
            made = table.moved_schedule({})
            draws = _draws(plan)
            wanted = _images(schedule, plan, draws)
            drawn = compile_plan(made).noisy_rows
            used = [d for d, r in zip(draws, plan.noisy_rows, strict=True) if r in drawn]
            images = _images(schedule, compile_plan(made), used)
        assert Schedule.from_dict(made.to_dict()).id == made.id
        assert max_abs(images - wanted) < 1e-9 * max(1.0, max_abs(wanted))
        if carries:
            assert [step.predictor.carries for step in made.steps] == before


@_ALL
def test_wherever_amounts_and_levels_go_the_schedule_makes_the_plans_images(
    schedule: Schedule,
) -> None:
    table = _times(schedule)
    _shaken(table, 0.1)
    with torch.no_grad():
        plan, made = table.plan(), table.moved_schedule({})
        draws = _draws(plan)
        wanted = _images(schedule, plan, draws)
        images = _images(schedule, compile_plan(made), draws)
    assert (made.id != schedule.id) == any(move.numel() for move in table.moves)
    assert [type(step.predictor) for step in made.steps] == [
        type(step.predictor) for step in schedule.steps
    ]
    assert max_abs(images - wanted) < 1e-9


@_ALL
@pytest.mark.parametrize("trainable", [_table, _times])
def test_the_gradient_in_the_noise_is_that_of_finite_differences(
    schedule: Schedule, trainable: Callable[[Schedule], Trainable]
) -> None:
    table = trainable(schedule)
    _shaken(table, 0.05)
    with torch.no_grad():
        table.moves[-1 if isinstance(table, TrainableTimes) else -2].sub_(0.01)  # off the edge
    table.project()
    draws = _draws(table.plan())

    def loss() -> Tensor:
        return _images(schedule, table.plan(), draws).square().sum()

    exact = torch.autograd.grad(loss(), table.moves)
    for move, gradient in zip(table.moves[-2:], exact[-2:], strict=True):
        for k in range(move.numel()):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    move.view(-1)[k] += step
                    values.append(loss().item())
                    move.view(-1)[k] -= step
            found = (values[0] - values[1]) / 2e-5
            assert gradient.flatten()[k].item() == pytest.approx(found, rel=1e-4, abs=1e-4)


def test_noise_alone_keeps_the_variance_of_every_level() -> None:
    schedule = _with_amounts(*[StepNoise(kind=NoiseKind.GAMMA, amount=0.2)] * 4, None)
    table = _table(schedule, carries=True, free=frozenset({Freedom.NOISE}))
    _shaken(table, 0.5)
    made = compile_plan(table.moved_schedule({}))
    assert not np.allclose(made.noise, compile_plan(schedule).noise)
    for r, at in enumerate(made.levels[1:], start=1):
        carried = made.p[r, :r] @ [each.sigma for each in made.levels[:r]]
        assert math.hypot(carried, made.noise[r]) == pytest.approx(at.sigma, rel=1e-12, abs=1e-12)


def test_amounts_and_scales_stay_in_their_ranges() -> None:
    noises = (
        StepNoise(amount=0.5, scale=1.003),
        StepNoise(kind=NoiseKind.GAMMA, amount=1.0),
        StepNoise(kind=NoiseKind.FLOW_ETA, amount=0.4),
        StepNoise(amount=0.0),
        None,
    )
    for size in (30.0, 0.3):
        for seed in range(4):
            table = _times(_with_amounts(*noises))
            _shaken(table, size, seed)
            made = [step.noise for step in table.moved_schedule({}).steps]
            assert made[3:] == [*noises[3:]]
            for own, moved in zip(noises[:3], made[:3], strict=True):
                assert own is not None and moved is not None
                assert moved.kind is own.kind
                assert 0.0 < moved.amount <= 1.0
                assert 0.899 < moved.scale / own.scale < 1.101


def test_an_angle_stays_between_all_carried_and_all_drawn() -> None:
    schedule = _with_amounts(*[StepNoise(kind=NoiseKind.GAMMA, amount=0.2)] * 4, None)
    table = _table(schedule, carries=True, free=frozenset({Freedom.NOISE}))
    for sign in (1.0, -1.0):
        with torch.no_grad():
            table.moves[-2].fill_(sign * 9.0)
        table.project()
        made = compile_plan(table.moved_schedule({}))
        for r, at in enumerate(made.levels[1:-1], start=1):
            assert made.noise[r] == pytest.approx(at.sigma if sign > 0.0 else 0.0, abs=1e-12)


def test_levels_of_a_restart_stay() -> None:
    schedule = STOCHASTIC["a restart"]
    for table in (_table(schedule), _times(schedule)):
        _shaken(table, 0.3)
        assert table.moved_schedule({}).times == pytest.approx(schedule.times, rel=1e-12)
