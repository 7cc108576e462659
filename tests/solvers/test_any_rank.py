"""The rank of a state changes no number: the same samples in any shape have the same end."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.models.gaussian import GaussianDenoiser
from s3search.models.statistics.gaussian import gaussian_statistics
from s3search.processes import edm, vp_linear
from s3search.rules import EmsStatistics
from s3search.schedules import published
from s3search.schedules.published.common import on_times
from s3search.schedules.schedule import Schedule, Start, StartKind
from s3search.schedules.spacing import grid
from s3search.solvers.coefficients import coefficient_table
from s3search.solvers.plan import check_table, compile_plan
from s3search.solvers.sample import sample
from s3search.solvers.step_noise import BLOCK, block_noise
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range

N = 60
SHAPES = [(N,), (6, 10), (3, 4, 5), (2, 3, 2, 5)]
Shape = tuple[int, ...]
_MEAN = np.sin(np.arange(N)) / 3


def plain(_: Shape) -> Schedule:
    """A multistep solver."""
    return published.dpmpp_2m(edm(), nfe=5)


def noisy(_: Shape) -> Schedule:
    """One whose steps draw noise."""
    return published.dpmpp_2m_sde(edm(), nfe=5)


def from_mean(shape: Shape) -> Schedule:
    """One whose first prediction is the mean sample."""
    start = Start(kind=StartKind.AVERAGE_X0, image=_MEAN.reshape(shape).tolist())
    return published.dpmpp_2m(edm(), nfe=5).changed(start=start, provenance={})


def jumping(shape: Shape) -> Schedule:
    """One that a Gaussian jump begins."""
    rows = block_noise(5, 0, 0, (N,)).double() * torch.linspace(0.1, 1.0, N) + torch.tensor(_MEAN)
    statistics = gaussian_statistics([rows.reshape(BLOCK, *shape)], 6)
    times = grid(edm(), 8, "karras")
    late = on_times(edm(), times[3:], published.dpm_multistep_steps(5, order=2))
    return published.with_jump(late, statistics.jump(times[0], n_modes=4))


@pytest.mark.parametrize("make", [plain, noisy, from_mean, jumping])
def test_a_schedule_makes_the_same_numbers_in_any_shape(make: Callable[[Shape], Schedule]) -> None:
    ends = [_end(make(shape), shape) for shape in SHAPES]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-12)


def _end(schedule: Schedule, shape: Shape) -> Tensor:
    variances = torch.linspace(0.01, 1.0, N, dtype=torch.float64)
    denoiser = GaussianDenoiser(edm(), torch.tensor(_MEAN).reshape(shape), variances)
    noise, plan = block_noise(1, 0, 0, (N,))[:3].double(), compile_plan(schedule)
    draws = [
        block_noise(2, 0, row, (N,))[:3].double().reshape(3, *shape) for row in plan.noisy_rows
    ]
    wire = json.loads(json.dumps({**schedule.to_dict(), "plan": plan.to_dict()}))
    again = Schedule.from_dict(wire)
    assert again.id == schedule.id
    check_table(again, wire["plan"])
    made = sample(denoiser, compile_plan(again), noise.reshape(3, *shape), step_noise=draws)
    assert made.shape == (3, *shape)
    return made.flatten(1)


@pytest.mark.parametrize("make", [plain, from_mean, jumping])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_trainable_table_begins_where_the_plan_is(
    make: Callable[[Shape], Schedule], shape: Shape
) -> None:
    schedule, process = make(shape), edm()
    table = TrainableTable(
        coefficient_table(schedule),
        carries=False,
        free=frozenset(Freedom),
        trained=trained_range(process),
    )
    denoiser = GaussianDenoiser(process, torch.tensor(_MEAN).reshape(shape), torch.ones(N))
    noise = block_noise(1, 0, 0, shape)[:3].double()
    trained = sample(denoiser, table.plan(), noise)
    torch.testing.assert_close(trained, sample(denoiser, compile_plan(schedule), noise))


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_of_one_number_a_node_hold_for_any_shape(shape: Shape) -> None:
    process = vp_linear()
    ems = EmsStatistics.degenerate(process.lam(1.0), process.lam(1e-3), 120)
    assert ems.fits(shape)
    assert _v3_end(ems, shape) == pytest.approx(_v3_end(ems, (1, 1, N)), abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_of_a_shape_are_for_it_alone(shape: Shape) -> None:
    own = _statistics(shape)
    assert own.shape == shape
    assert own.fits(shape) and not own.fits((N, 1))
    assert _v3_end(own, shape) == pytest.approx(_v3_end(_statistics((N,)), (N,)), abs=1e-12)


def _statistics(shape: Shape) -> EmsStatistics:
    """Smooth ones that differ at every number."""
    process = vp_linear()
    low, high = process.lam(1.0), process.lam(1e-3)
    lam = np.linspace(low, high, 121).reshape(-1, *[1] * len(shape))
    number = np.linspace(0.0, 1.0, N).reshape(shape)
    return EmsStatistics(
        lam_start=low,
        lam_end=high,
        l=1 / (1 + np.exp(lam + number)),
        s=0.2 * np.sin(lam) - 0.3 * number,
        b=0.1 * np.cos(lam - number),
    )


def _v3_end(ems: EmsStatistics, shape: Shape) -> list[float]:
    process = vp_linear()
    schedule = published.dpm_solver_v3(process, ems, nfe=5)
    mean, variances = torch.tensor(_MEAN).reshape(shape), torch.linspace(0.01, 1.0, N)
    noise = block_noise(1, 0, 0, (N,))[:2].double().reshape(2, *shape)
    made = sample(GaussianDenoiser(process, mean, variances), compile_plan(schedule, ems), noise)
    return made.flatten().tolist()
