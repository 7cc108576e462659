"""Polish: downhill where the truth is known, the same images afterwards, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule
from s3search.evaluation.metric import Metric
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish.adam import RecoveringAdam
from s3search.evaluation.polish.polishing import PolishSettings, polish
from s3search.evaluation.record import PolishReply
from s3search.metrics.statistic import FrechetStatistic
from s3search.models.gaussian import gaussian_distance
from s3search.processes import NoiseProcess, edm
from s3search.rules import Prediction, Taylor
from s3search.schedules import published
from s3search.schedules.schedule import (
    ModelPatch,
    Schedule,
    StatisticsReference,
    Step,
)
from s3search.search.direction import Direction
from s3search.solvers.coefficients import coefficient_table
from s3search.solvers.plan import compile_plan, compile_plans
from s3search.solvers.sample import sample
from s3search.solvers.trainable import Freedom
from tests.support.helpers import PROCESSES, gaussian, gaussian_reference, noise
from tests.support.specs import extractor_of

_CPU = torch.device("cpu")
_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
_QUICK = PolishSettings(iterations=25, n_images=200)


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


def _distance(schedule: Schedule) -> float:
    """The exact Fréchet distance, by another path than the optimiser's."""
    data = gaussian(schedule.process)
    assert data.eigenvectors is not None
    plans = compile_plans([schedule])
    u = data.eigenvectors.numpy()
    return float(gaussian_distance(plans, data.mean.numpy(), data.eigenvalues.numpy(), u)[0])


def _polish(
    schedule: Schedule, settings: PolishSettings = _QUICK, *, seed: int = 3, **changes: Any
) -> PolishReply:
    data = gaussian(schedule.process)
    denoiser = changes.pop("denoiser", data)
    given: dict[str, Any] = {
        "features": _pixels,
        "reference": gaussian_reference(data),
        "noise": NoiseBank(denoiser, _CPU),
        "noise_seed": seed,
        "batch_size": 1000,
    }
    given |= changes
    features, reference = given.pop("features"), given.pop("reference")
    metric = Metric(
        view=extractor_of(features),
        statistic=FrechetStatistic(reference),
        direction=Direction.MINIMIZE,
    )
    return polish(denoiser, metric, schedule, settings, **given)


@_EACH
@pytest.mark.parametrize("keep", [False, True], ids=["free", "carrying"])
def test_polish_lowers_the_exact_distance_on_every_process(
    process: NoiseProcess, keep: bool
) -> None:
    schedule = published.ddim(process, nfe=3)
    found = _polish(schedule, replace(_QUICK, keep_invariants=keep, iterations=50)).made.schedule
    assert found.nfe == schedule.nfe == compile_plan(found).nfe
    assert _distance(found) < (0.7 if keep else 0.3) * _distance(schedule)
    carries = {step.predictor.carries_constants for step in found.steps}
    assert carries == ({True} if keep else {False})
    assert Schedule.from_dict(found.to_dict()).id == found.id


def test_free_coefficients_reach_the_optimum_of_zero() -> None:
    schedule = published.dpmpp_2m(edm(), nfe=4)
    found = _polish(schedule, PolishSettings(iterations=100)).made.schedule
    assert _distance(found) < 0.02 * _distance(schedule)


@pytest.mark.parametrize("freedom", sorted(set(Freedom) - {Freedom.NOISE}))
def test_only_what_is_free_moves(freedom: Freedom) -> None:
    schedule = published.dpmpp_2m(edm(sigma_max=10.0), nfe=3)
    settings = replace(_QUICK, iterations=3, free=frozenset({freedom}))
    found = _polish(schedule, settings, denoiser=gaussian(edm())).made.schedule
    a, b = coefficient_table(schedule), coefficient_table(found)
    first, others = b.times[0] != a.times[0], (b.times[1:] != a.times[1:]).any()
    assert first == (freedom is Freedom.START)
    assert others == (freedom is Freedom.TIMES)
    apart = b.network_times != b.times[:-1]
    assert apart.any() == (freedom is Freedom.NETWORK_TIMES)
    if freedom is Freedom.NETWORK_TIMES:
        assert np.allclose(a.q, b.q, atol=1e-15)
    else:
        assert not np.allclose(a.q, b.q, atol=1e-6) or freedom is Freedom.START


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

    assert error(found.made.schedule) < 0.1 * error(schedule)
    fine = 4 * 100 * settings.fine_nfe
    assert found.network_calls == fine + 40 * 100 * 3 * 2 + 2 * 4 * 100 * 3


def test_a_polish_repeats_itself_and_depends_on_its_seed() -> None:
    schedule = published.ddim(edm(), nfe=3)
    few = replace(_QUICK, iterations=4)
    one, two, other = (_polish(schedule, few, seed=seed) for seed in (1, 1, 2))
    assert one.made.losses == two.made.losses
    assert one.made.schedule.id == two.made.schedule.id != other.made.schedule.id
    assert one.made.schedule.provenance["polished_from"] == schedule.id


def test_a_schedule_without_a_level_that_may_move_comes_back() -> None:
    schedule = published.ddim(edm(), nfe=1, end=published.End(rule=published.EndRule.DENOISE))
    found = _polish(schedule, replace(_QUICK, iterations=2, keeps_steps=True))
    assert found.made.schedule.times == schedule.times


def test_a_polish_that_climbs_gives_its_start_back() -> None:
    schedule = published.dpmpp_2m(edm(), nfe=3)
    wild = replace(_QUICK, iterations=4, learning_rate=500.0)
    found = _polish(schedule, wild)
    a, b = coefficient_table(schedule), coefficient_table(found.made.schedule)
    assert found.made.losses[-1] > found.made.losses[0]
    assert np.allclose(a.q, b.q, rtol=0, atol=1e-12) and np.allclose(a.times, b.times)
    calls = 2 * 200 * 3 * (4 + 1)  # forward and backward, and one comparison of two
    assert found.network_calls == calls


def test_numbers_that_act_together_are_moved_together() -> None:
    """A valley that no axis points along: the mean of the gradients is scaled by their matrix."""
    turned = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5
    steep = turned.T @ torch.diag(torch.tensor([1.0, 1e-4], dtype=torch.float64)) @ turned

    leaf = (turned.T @ torch.tensor([0.5, 1.0], dtype=torch.float64)).requires_grad_()
    draw = torch.Generator().manual_seed(0)

    def objective(_: int) -> tuple[float, list[Tensor]]:
        noisy = 1.0 + 0.3 * torch.randn((), generator=draw, dtype=torch.float64)
        with torch.no_grad():
            return float(leaf @ steep @ leaf), [2.0 * noisy * steep @ leaf]

    losses = RecoveringAdam([leaf], lambda: None, 0.04).run(objective, 100)
    assert losses[-1] < 0.01 * losses[0]


def test_noise_made_in_inference_mode_and_a_caller_in_it_are_no_obstacle() -> None:
    schedule, few = published.ddim(edm(), nfe=2), replace(_QUICK, iterations=3)
    with torch.inference_mode():
        inside = _polish(schedule, few)
    assert inside.made.schedule.id == _polish(schedule, few).made.schedule.id


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
    missing = np.isnan(found.made.losses)
    assert missing.any()
    assert not missing.all()
    assert np.isfinite(coefficient_table(found.made.schedule).q).all()


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
