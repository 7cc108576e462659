"""Polish: downhill where the truth is known, the same images afterwards, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule
from s3search.evaluation.descent import Descent
from s3search.evaluation.gradient import TableGradient
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish import Polished, PolishSettings, polish
from s3search.metrics.frechet import FrechetReference
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.models.gaussian import GaussianDenoiser, gaussian_distance
from s3search.processes import NoiseProcess, edm
from s3search.rules import Prediction, Taylor
from s3search.schedules import published
from s3search.schedules.jump import gaussian_jump
from s3search.schedules.schedule import (
    ModelPatch,
    Schedule,
    Start,
    StartKind,
    StatisticsReference,
    Step,
)
from s3search.search import load_space, random_schedule
from s3search.solvers.freed import free_table, schedule_of_table
from s3search.solvers.movable import Freedom, MovableTable, run_rows, trained_range
from s3search.solvers.plan import compile_plan, compile_plans
from s3search.solvers.sample import sample
from tests.helpers import PROCESSES, gaussian, noise

_CPU = torch.device("cpu")
_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
_QUICK = PolishSettings(iterations=25, n_images=200)


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


def _truth(data: GaussianDenoiser) -> FrechetReference:
    u = data.eigenvectors
    assert u is not None
    covariance = (u * data.eigenvalues) @ u.T
    return FrechetReference(mean=data.mean.numpy(), covariance=covariance.numpy())


def _distance(schedule: Schedule) -> float:
    """The exact Fréchet distance, by another path than the optimiser's."""
    data = gaussian(schedule.process)
    assert data.eigenvectors is not None
    plans = compile_plans([schedule])
    u = data.eigenvectors.numpy()
    return float(gaussian_distance(plans, data.mean.numpy(), data.eigenvalues.numpy(), u)[0])


def _polish(
    schedule: Schedule, settings: PolishSettings = _QUICK, *, seed: int = 3, **changes: Any
) -> Polished:
    data = gaussian(schedule.process)
    denoiser = changes.pop("denoiser", data)
    given: dict[str, Any] = {
        "features": _pixels,
        "reference": _truth(data),
        "noise": NoiseBank(denoiser, _CPU),
        "noise_seed": seed,
        "device": _CPU,
        "batch_size": 1000,
    }
    given |= changes
    features, reference = given.pop("features"), given.pop("reference")
    return polish(denoiser, features, reference, schedule, settings, **given)


@_EACH
@pytest.mark.parametrize("keep", [False, True], ids=["free", "carrying"])
def test_polish_lowers_the_exact_distance_on_every_process(
    process: NoiseProcess, keep: bool
) -> None:
    schedule = published.ddim(process, nfe=3)
    found = _polish(schedule, replace(_QUICK, keep_invariants=keep, iterations=50)).schedule
    assert found.nfe == schedule.nfe == compile_plan(found).nfe
    assert _distance(found) < (0.7 if keep else 0.3) * _distance(schedule)
    carries = {step.predictor.carries_constants for step in found.steps}
    assert carries == ({True} if keep else {False})
    assert Schedule.from_dict(found.to_dict()).id == found.id


def test_free_coefficients_reach_the_optimum_of_zero() -> None:
    schedule = published.dpmpp_2m(edm(), nfe=4)
    found = _polish(schedule, PolishSettings(iterations=100)).schedule
    assert _distance(found) < 0.02 * _distance(schedule)


def _moved(schedule: Schedule, *, carries: bool, seed: int) -> MovableTable:
    table = MovableTable(
        free_table(schedule),
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
    drawn = [random_schedule(space, process, 4, rng) for _ in range(8)]
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
            wanted = run_rows(denoiser, table.table, table.rows(), unit)
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
        table = MovableTable(
            free_table(published.ddim(process, nfe=4)),
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


@pytest.mark.parametrize("freedom", Freedom)
def test_only_what_is_free_moves(freedom: Freedom) -> None:
    schedule = published.dpmpp_2m(edm(sigma_max=10.0), nfe=3)
    settings = replace(_QUICK, iterations=3, free=frozenset({freedom}))
    found = _polish(schedule, settings, denoiser=gaussian(edm())).schedule
    a, b = free_table(schedule), free_table(found)
    first, others = b.times[0] != a.times[0], (b.times[1:] != a.times[1:]).any()
    assert first == (freedom is Freedom.START)
    assert others == (freedom is Freedom.TIMES)
    apart = b.network_times != b.times[:-1]
    assert apart.any() == (freedom is Freedom.NETWORK_TIMES)
    if freedom is Freedom.NETWORK_TIMES:
        assert np.allclose(a.q, b.q, atol=1e-15)
    else:
        assert not np.allclose(a.q, b.q, atol=1e-6) or freedom is Freedom.START


def _gradient(process: NoiseProcess, batch_size: int, recompute: bool) -> tuple[Any, int]:
    denoiser = gaussian(process)
    table = _moved(published.unipc(process, nfe=3), carries=False, seed=1)
    made = TableGradient(
        denoiser=denoiser,
        seen=_pixels,
        table=table,
        noise=NoiseBank(denoiser, _CPU),
        device=_CPU,
        batch_size=batch_size,
        recompute=recompute,
    )
    batches = [(n.double(), given) for n, given in made.batches(5, 240)]
    loss, gradient = made(batches, FrechetLoss(_truth(denoiser), _CPU))
    return (loss, torch.cat([g.flatten() for g in gradient])), made.network_calls


def test_batches_and_recomputation_change_no_gradient_and_are_paid_for() -> None:
    (loss, whole), calls = _gradient(edm(), 1000, False)
    assert calls == 240 * 3 * 2
    for batch_size, recompute, passes in ((100, False, 3), (1000, True, 3), (70, True, 4)):
        (again, parts), paid = _gradient(edm(), batch_size, recompute)
        assert again == pytest.approx(loss, rel=1e-10)
        assert torch.allclose(parts, whole, rtol=1e-8, atol=1e-9 * float(whole.abs().max()))
        assert paid == 240 * 3 * passes


@_EACH
def test_the_gradient_is_that_of_finite_differences(process: NoiseProcess) -> None:
    denoiser, unit = gaussian(process), noise(20, seed=4)
    table = _moved(published.unipc(process, nfe=3), carries=False, seed=1)
    loss_of = FrechetLoss(_truth(denoiser), _CPU)

    def loss() -> Tensor:
        return loss_of(run_rows(denoiser, table.table, table.rows(), unit).flatten(1))

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


def test_trajectory_loss_lowers_the_error_of_the_end_point() -> None:
    process, data = edm(), gaussian(edm())
    schedule = published.ddim(process, nfe=3)
    settings = PolishSettings(
        loss="trajectory", target="pixels", iterations=40, n_images=100, keep_invariants=True
    )
    found = _polish(schedule, settings)
    unit = noise(200, seed=9)
    exact = data.exact_flow(unit * 80.0, 80.0, 0.0)

    def error(of: Schedule) -> float:
        return float((sample(data, compile_plan(of), unit) - exact).square().mean())

    assert error(found.schedule) < 0.1 * error(schedule)
    fine = 4 * 100 * settings.fine_nfe
    assert found.network_calls == fine + 40 * 100 * 3 * 2 + 100 * 3


def test_a_polish_repeats_itself_and_depends_on_its_seed() -> None:
    schedule = published.ddim(edm(), nfe=3)
    few = replace(_QUICK, iterations=4)
    one, two, other = (_polish(schedule, few, seed=seed) for seed in (1, 1, 2))
    assert one.losses == two.losses
    assert one.schedule.id == two.schedule.id != other.schedule.id
    assert one.schedule.provenance["polished_from"] == schedule.id


def test_noise_made_in_inference_mode_and_a_caller_in_it_are_no_obstacle() -> None:
    schedule, few = published.ddim(edm(), nfe=2), replace(_QUICK, iterations=3)
    with torch.inference_mode():
        inside = _polish(schedule, few)
    assert inside.schedule.id == _polish(schedule, few).schedule.id


class _Network(nn.Module):
    """A denoiser with a weight, and a fault if asked."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.process, self.sample_shape = edm(), (1, 2, 2)
        self.weight = nn.Parameter(torch.ones(()))
        self.fault, self.calls = fault, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        scale = self.weight / (1.0 + t * t).reshape(-1, 1, 1, 1)
        if self.fault == "no_grad":
            return (x * scale).detach()
        if self.fault == "nan" or (self.fault == "later" and self.calls % 8 == 5):
            return x * torch.nan
        return x * scale


def test_weights_keep_their_gradients_to_themselves() -> None:
    network = _Network()
    _polish(published.ddim(edm(), nfe=2), replace(_QUICK, iterations=2), denoiser=network)
    assert network.weight.requires_grad
    assert network.weight.grad is None


def test_a_loss_that_is_not_finite_sends_the_polish_back() -> None:
    found = _polish(
        published.ddim(edm(), nfe=2), replace(_QUICK, iterations=20), denoiser=_Network("later")
    )
    missing = np.isnan(found.losses)
    assert missing.any()
    assert not missing.all()
    assert np.isfinite(free_table(found.schedule).q).all()


def test_a_descent_that_meets_nan_goes_on_from_the_last_good_values_more_slowly() -> None:
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    seen = []

    def objective(i: int) -> tuple[float, list[Tensor]]:
        seen.append(leaf.item())
        loss = (leaf - 3.0) ** 2
        value = float("nan") if i == 6 else loss.item()
        return value, list(torch.autograd.grad(loss.sum(), [leaf]))

    losses = Descent([leaf], lambda: None, 0.1).run(objective, 12)
    assert [i for i, loss in enumerate(losses) if np.isnan(loss)] == [6]
    assert seen[7] == seen[5]
    assert 0.0 < seen[8] - seen[7] < 0.75 * (seen[6] - seen[5])


def test_a_descent_without_a_way_out_stops_at_the_last_good_values() -> None:
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def objective(i: int) -> tuple[float, list[Tensor]]:
        return (1.0 if i == 0 else float("nan")), [torch.ones_like(leaf)]

    losses = Descent([leaf], lambda: None, 0.1).run(objective, 50)
    assert len(losses) == 6
    assert leaf.item() == 0.0


@pytest.mark.parametrize(
    ("fault", "message"), [("no_grad", "network's answer carries no grad"), ("nan", "finite")]
)
def test_networks_that_give_no_gradient_are_refused(fault: str, message: str) -> None:
    with pytest.raises(EvaluationFailed, match=message):
        _polish(published.ddim(edm(), nfe=2), denoiser=_Network(fault))


def test_extractors_that_give_no_gradient_are_refused() -> None:
    with pytest.raises(EvaluationFailed, match="extractor"):
        _polish(published.ddim(edm(), nfe=2), features=lambda x: x.detach().flatten(1))


def test_weights_made_in_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        network = _Network()
    with pytest.raises(EvaluationFailed, match="inference mode"):
        _polish(published.ddim(edm(), nfe=2), denoiser=network)


def test_schedules_without_a_table_of_numbers_are_refused() -> None:
    plain = published.ddim(edm(), nfe=2)
    patched = plain.model_copy(update={"model_patch": ModelPatch(skip_scale=(1.1,))})
    with pytest.raises(InvalidSchedule, match="model_patch"):
        _polish(patched)
    v3 = Schedule(
        process=edm(),
        times=(80.0, 1.0),
        steps=(Step(predictor=Taylor(prediction=Prediction.V3, order=1)),),
        statistics=StatisticsReference(digest="0" * 32),
    )
    with pytest.raises(InvalidSchedule, match="v3"):
        _polish(v3)
    with pytest.raises(InvalidSchedule, match="process"):
        _polish(plain, denoiser=gaussian(PROCESSES["flow"]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("n_images", 3),
        ("target_batches", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("free", frozenset()),
        ("loss", "mse"),
        ("target", "latents"),
    ],
)
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(InvalidConfig, match=field):
        PolishSettings(**{field: value})
