"""Moves of a table: always a valid schedule with the loop's images, and exact gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish.differentiable import DifferentiableDenoiser
from s3search.evaluation.polish.gradient import PlanGradient
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.processes import NoiseProcess, edm
from s3search.schedules import published
from s3search.schedules.schedule import (
    Schedule,
    Start,
    StartKind,
)
from s3search.search.edit.draft import random_schedule
from s3search.search.space import Problem, load_space
from s3search.solvers.coefficients import coefficient_table, schedule_of_table
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range
from tests.schedules.test_jump import gaussian_jump
from tests.support.helpers import PROCESSES, gaussian, gaussian_reference, noise

_CPU = torch.device("cpu")
_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


def _moved(schedule: Schedule, *, carries: bool, seed: int) -> TrainableTable:
    table = TrainableTable(
        coefficient_table(schedule),
        carries=carries,
        free=frozenset(Freedom),
        trained=trained_range(schedule.process),
    )
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for move in table.moves:
            move.copy_(torch.tensor(rng.normal(size=tuple(move.shape)) * 0.3))
    table.project()
    return table


def _starts(process: NoiseProcess) -> list[Schedule]:
    """Every kind of start, and a pseudo and an implicit corrector."""
    plain = published.unipc(process, nfe=4)
    rng = np.random.default_rng(0)
    space = load_space("full")
    drawn = [random_schedule(Problem(space, process), 4, rng) for _ in range(8)]
    mean = (((0.3, -0.5), (0.1, 0.8)),)
    short = published.ddim(process, nfe=3)
    starts = [Start(kind=StartKind.ZERO_X0), Start(kind=StartKind.AVERAGE_X0, image=mean)]
    if process.alpha(short.times[0]) > 0.0:
        starts.append(Start(kind=StartKind.UNIT_NOISE))
    values = np.array([1.5, 0.7, 0.2, 0.04])
    jump = gaussian_jump(short.times[0], mean, values, np.eye(4), n_modes=2)
    analytic = [
        Schedule(process=process, times=short.times, start=start, steps=short.steps)
        for start in starts
    ]
    ddim, late = short.steps[:2], Start(jump=jump)
    return [
        plain,
        short,
        *drawn,
        *analytic,
        Schedule(process=process, times=short.times[1:], start=late, steps=ddim),
    ]


@_EACH
@pytest.mark.parametrize("carries", [False, True], ids=["free", "carrying"])
def test_wherever_the_moves_go_the_schedule_is_valid_and_makes_the_loops_images(
    process: NoiseProcess, carries: bool
) -> None:
    denoiser, unit = gaussian(process), noise(5, seed=2)
    for k, schedule in enumerate(_starts(process)):
        table = _moved(schedule, carries=carries, seed=k)
        with torch.no_grad():
            wanted = sample(denoiser, table.plan(), unit)
            made = schedule_of_table(table.moved_table())
            images = sample(denoiser, compile_plan(made), unit)
        assert made.nfe == schedule.nfe
        assert torch.allclose(images, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
        if carries:
            before = [s.predictor.carries for s in schedule_of_table(table.table).steps]
            assert [s.predictor.carries for s in made.steps] == before


@_EACH
def test_moves_stay_in_range_and_in_order(process: NoiseProcess) -> None:
    low, high = trained_range(process)
    for seed in range(5):
        table = TrainableTable(
            coefficient_table(published.ddim(process, nfe=4)),
            carries=False,
            free=frozenset(Freedom),
            trained=(low, high),
        )
        own = table.table.network_times
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for move in table.moves:
                move.copy_(torch.tensor(rng.normal(size=tuple(move.shape)) * 20.0))
        table.project()
        found = table.moved_table()
        assert (np.diff(found.times) <= 0.0).all()
        slack = 1e-9 * high
        assert (found.network_times >= min(low, own.min()) - slack).all()
        assert (found.network_times <= max(high, own.max()) + slack).all()


def _gradient(process: NoiseProcess, batch_size: int, recompute: bool) -> tuple[Any, int]:
    denoiser = gaussian(process)
    table = _moved(published.unipc(process, nfe=3), carries=False, seed=1)
    made = PlanGradient(
        denoiser=DifferentiableDenoiser(denoiser, 3, recompute=recompute),
        seen=lambda x, _: _pixels(x),
        table=table,
        noise=NoiseBank(denoiser, _CPU),
        batch_size=batch_size,
    )
    batches = [each._replace(noise=each.noise.double()) for each in made.batches(5, 240)]
    loss, gradient = made(batches, FrechetLoss(gaussian_reference(denoiser), _CPU))
    return (loss, torch.cat([g.flatten() for g in gradient])), made.denoiser.network_calls


def test_batches_and_recomputation_change_no_gradient_and_are_paid_for() -> None:
    (loss, whole), calls = _gradient(edm(), 1000, False)
    assert calls == 240 * 3 * 2
    for batch_size, recompute, passes in ((100, False, 3), (1000, True, 3), (70, True, 4)):
        (again, parts), paid = _gradient(edm(), batch_size, recompute)
        assert again == pytest.approx(loss, rel=1e-10)
        assert torch.allclose(parts, whole, rtol=1e-8, atol=1e-9 * float(whole.abs().max()))
        assert paid == 240 * 3 * passes


def test_batches_that_fit_together_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = gaussian(edm())
    made = PlanGradient(
        denoiser=DifferentiableDenoiser(denoiser, 3, recompute=None),
        seen=lambda x, _: _pixels(x),
        table=_moved(published.unipc(edm(), nfe=3), carries=False, seed=1),
        noise=NoiseBank(denoiser, _CPU),
        batch_size=100,
    )
    batches = [each._replace(noise=each.noise.double()) for each in made.batches(5, 240)]
    loss_of = FrechetLoss(gaussian_reference(denoiser), _CPU)
    found, paid = [], []
    room = [10**9]
    for module in ("differentiable", "gradient"):
        name = f"s3search.evaluation.polish.{module}.allowed_bytes"
        monkeypatch.setattr(name, lambda _: room[0])
    for _ in range(3):  # unknown at first; then known to be enough; then decided, whatever comes
        before = made.denoiser.network_calls
        found.append(made(batches, loss_of))
        paid.append((made.denoiser.network_calls - before) / (240 * 3))
        room[0] = 10**9 if len(paid) == 1 else 0
    assert paid == [3, 2, 2]
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-10)
        for own, other in zip(gradient, found[0][1], strict=True):
            assert torch.allclose(own, other, rtol=1e-8, atol=1e-9)


@_EACH
def test_the_gradient_is_that_of_finite_differences(process: NoiseProcess) -> None:
    denoiser, unit = gaussian(process), noise(20, seed=4)
    table = _moved(published.unipc(process, nfe=3), carries=False, seed=1)
    loss_of = FrechetLoss(gaussian_reference(denoiser), _CPU)

    def loss() -> Tensor:
        return loss_of(sample(denoiser, table.plan(), unit).flatten(1))

    exact = torch.autograd.grad(loss(), table.moves)
    for move, gradient in zip(table.moves, exact, strict=True):
        for k in range(move.numel()):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    move.view(-1)[k] += step
                    values.append(loss().item())
                    move.view(-1)[k] -= step
            found = (values[0] - values[1]) / 2e-5
            assert gradient.flatten()[k].item() == pytest.approx(found, rel=1e-4, abs=1e-6)
