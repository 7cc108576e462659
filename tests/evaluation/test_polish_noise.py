"""Polish of schedules that draw noise: lower on noise that no iteration had, and repeatable."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from s3search.evaluation.metric import Metric
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish.guarding import GuardedBy
from s3search.evaluation.polish.polishing import PolishSettings
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.metrics.statistic import FrechetStatistic
from s3search.models.gaussian import GaussianDenoiser
from s3search.processes import NoiseProcess, edm
from s3search.rules import Free, NoiseKind, Prediction, StepNoise, Taylor
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step
from s3search.search.direction import Direction
from s3search.search.guard import Guard
from s3search.solvers.coefficients import coefficient_table
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.solvers.step_noise import of_seed
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range
from s3search.solvers.trainable_times import TrainableTimes
from tests.evaluation.test_differences import _both
from tests.evaluation.test_polish import _polish
from tests.support.helpers import PROCESSES, gaussian, gaussian_reference, noise
from tests.support.specs import extractor_of

_DDIM = Taylor(prediction=Prediction.DATA, order=1)
_GAMMA = StepNoise(kind=NoiseKind.GAMMA, amount=0.3)
_QUICK = PolishSettings(iterations=25, n_images=200)
_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def _noisy(process: NoiseProcess, noise: StepNoise = _GAMMA, nfe: int = 4) -> Schedule:
    plain = published.ddim(process, nfe=nfe, end=published.End(rule=published.EndRule.DENOISE))
    last = plain.n_steps - 1
    steps = [Step(predictor=_DDIM, noise=noise if i < last else None) for i in range(last + 1)]
    return plain.changed(steps=steps)


def _held_out(schedule: Schedule, denoiser: GaussianDenoiser | None = None) -> float:
    """The distance of images of other noise, in the steps too."""
    data = denoiser or gaussian(schedule.process)
    with torch.no_grad():
        plan = compile_plan(schedule)
        images = sample(data, plan, noise(20_000, seed=77), step_noise=of_seed(78))
    return FrechetStatistic(gaussian_reference(data)).value(images.flatten(1).numpy())


def _amounts(schedule: Schedule) -> list[float]:
    return [step.noise.amount for step in schedule.steps if step.noise is not None]


@_EACH
@pytest.mark.parametrize("by_differences", [False, True], ids=["gradient", "differences"])
def test_polish_lowers_the_held_out_distance_of_a_noisy_schedule(
    process: NoiseProcess, by_differences: bool
) -> None:
    schedule = _noisy(process)
    found = _polish(schedule, replace(_QUICK, by_differences=by_differences)).made.schedule
    assert found.nfe == schedule.nfe
    assert all(isinstance(step.predictor, Free) for step in found.steps)
    assert _held_out(found) < 0.5 * _held_out(schedule)
    assert Schedule.from_dict(found.to_dict()).id == found.id


@pytest.mark.parametrize("kind", [NoiseKind.ETA, NoiseKind.GAMMA, NoiseKind.FLOW_ETA])
def test_amounts_alone_go_where_the_distance_is_lower(kind: NoiseKind) -> None:
    """A Gaussian's flow needs no noise, so that its amount falls, and the steps stay."""
    schedule = _noisy(edm(), StepNoise(kind=kind, amount=0.5), nfe=6)
    settings = replace(_QUICK, keeps_steps=True, free=frozenset({Freedom.NOISE}))
    found = _polish(schedule, settings).made.schedule
    assert [step.predictor for step in found.steps] == [step.predictor for step in schedule.steps]
    assert found.is_stochastic
    assert np.mean(_amounts(found)) != np.mean(_amounts(schedule))
    assert _held_out(found) < 0.95 * _held_out(schedule)


def test_noise_alone_moves_where_noise_alone_is_free() -> None:
    schedule = _noisy(edm(), nfe=6)
    settings = replace(_QUICK, free=frozenset({Freedom.NOISE}), keep_invariants=True)
    found = _polish(schedule, settings).made.schedule
    a, b = coefficient_table(schedule), coefficient_table(found)
    np.testing.assert_allclose(a.times, b.times, rtol=1e-12)
    assert np.abs(a.noise - b.noise)[:-1].max() > 1e-3
    assert all(step.predictor.carries_constants for step in found.steps)
    assert _held_out(found) < 0.95 * _held_out(schedule)


def test_a_noisy_polish_repeats_itself_to_the_bit_and_depends_on_its_seed() -> None:
    few = replace(_QUICK, iterations=4)
    one, two, other = (_polish(_noisy(edm()), few, seed=seed) for seed in (1, 1, 2))
    assert one.made.losses == two.made.losses
    assert one.made.schedule.id == two.made.schedule.id != other.made.schedule.id


def test_batches_change_nothing_but_rounding() -> None:
    few = replace(_QUICK, iterations=3)
    whole, parts = (_polish(_noisy(edm()), few, batch_size=size) for size in (1000, 70))
    assert parts.made.losses == pytest.approx(whole.made.losses, rel=1e-4)


def test_every_iteration_draws_other_noise_and_the_same_when_asked_again() -> None:
    schedule = _noisy(edm())
    table = TrainableTable(
        coefficient_table(schedule),
        carries=False,
        free=frozenset(Freedom),
        trained=trained_range(edm()),
    )
    gradient, _ = _both(schedule, table)
    like = noise(40, dtype=torch.float32)
    first, again, other = (gradient.batches(seed, 80)[1].draws(2, like) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first, of_seed(5, first=40)(2, like))


@pytest.mark.parametrize("keeps_steps", [False, True])
def test_slopes_by_differences_are_the_gradients_of_noise_too(keeps_steps: bool) -> None:
    schedule, trained = _noisy(edm()), trained_range(edm())
    table: Any = TrainableTimes(schedule, trained=trained, moves_noise=True)
    if not keeps_steps:
        numbers, free = coefficient_table(schedule), frozenset(Freedom)
        table = TrainableTable(numbers, carries=False, free=free, trained=trained)
    gradient, differences = _both(schedule, table)
    loss = FrechetLoss(gaussian_reference(gaussian(edm())), torch.device("cpu"))
    batches = gradient.batches(0, 100)
    value, exact = gradient(batches, loss)
    with torch.no_grad():
        features, slopes, places = differences._linear(batches, 100)
    moves = torch.zeros(len(places), dtype=torch.float64, requires_grad=True)
    at = loss(features + torch.tensordot(moves, slopes, dims=1))
    assert at.item() == pytest.approx(value)
    (found,) = torch.autograd.grad(at, moves)
    known = torch.stack([exact[leaf].view(-1)[place] for leaf, place in places])
    assert torch.linalg.vector_norm(found - known) < 0.1 * torch.linalg.vector_norm(known)
    assert sum(int((g != 0).sum()) for g in exact) <= len(places)


@pytest.mark.parametrize(("times", "is_kept"), [(5.0, True), (0.01, False)])
def test_guards_are_held_on_images_of_fresh_step_noise(times: float, is_kept: bool) -> None:
    schedule = _noisy(edm())
    metric = Metric(
        view=extractor_of(lambda x: x.flatten(1)),
        statistic=FrechetStatistic(gaussian_reference(gaussian(edm()))),
        direction=Direction.MINIMIZE,
    )
    guarded = GuardedBy(
        guards=(Guard(name="own", direction=Direction.MINIMIZE, times=times),),
        metrics=(metric,),
        published=compile_plan(schedule),
    )
    found, free = _polish(schedule, guarded_by=guarded), _polish(schedule)
    if is_kept:
        assert found.made.schedule.id == free.made.schedule.id
    else:
        a, b = coefficient_table(schedule), coefficient_table(found.made.schedule)
        np.testing.assert_allclose(a.noise, b.noise, rtol=1e-12)
        np.testing.assert_allclose(a.q, b.q, rtol=1e-12, atol=1e-12)


def test_step_noise_made_in_inference_mode_is_no_obstacle() -> None:
    few, data = replace(_QUICK, iterations=3), gaussian(edm())
    bank = NoiseBank(data, torch.device("cpu"))
    with torch.inference_mode():
        bank.step_noise(3, 0)(1, noise(200))
        inside = _polish(_noisy(edm()), few, denoiser=data, noise=bank)
    assert inside.made.schedule.id == _polish(_noisy(edm()), few).made.schedule.id
