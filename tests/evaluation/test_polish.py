"""Gradient polish: it lowers the true distance, keeps what it must, and says when it cannot."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, InvalidSchedule
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish import PolishedSchedule, PolishSettings, polish
from s3search.metrics.frechet import FrechetReference
from s3search.models.gaussian import GaussianDenoiser, gaussian_distance
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample

MEAN = torch.tensor([0.2, -0.1, 0.4, 0.0]).reshape(1, 2, 2)
VARIANCES = torch.tensor([0.9, 0.3, 0.1, 0.02])
REFERENCE = FrechetReference(
    mean=MEAN.double().flatten().numpy(), covariance=np.diag(VARIANCES.double().numpy()), n=1000
)


def _flat(images: Tensor) -> Tensor:
    return images.flatten(1)


def _polished(
    schedule: Schedule, features: Any = _flat, batch_size: int = 1000, **changes: Any
) -> PolishedSchedule:
    denoiser = GaussianDenoiser(schedule.process, MEAN, VARIANCES)
    settings = PolishSettings(**{"iterations": 40, "n_images": 400, **changes})
    noise = NoiseBank(denoiser, torch.device("cpu"))
    return polish(
        denoiser,
        features,
        REFERENCE,
        schedule,
        settings,
        noise=noise,
        noise_seed=7,
        batch_size=batch_size,
    )


def _true_distance(schedule: Schedule) -> float:
    mean, variances = MEAN.double().numpy(), VARIANCES.double().numpy()
    return float(gaussian_distance(compile_plan(schedule), mean, variances)[0])


@pytest.mark.parametrize("process", [edm(), vp_linear(), flow()], ids=lambda p: p.type)
def test_the_true_distance_falls(process: NoiseProcess) -> None:
    start = published.ddim(process, nfe=3)
    made = _polished(start)
    assert _true_distance(made.schedule) < 0.3 * _true_distance(start)
    assert made.schedule.nfe == 3
    assert Schedule.from_dict(made.schedule.to_dict()).id == made.schedule.id


def test_invariants_are_kept_when_asked() -> None:
    made = _polished(published.ddim(edm(), nfe=3), keep_invariants=True)
    assert all(step.predictor.carries_constants for step in made.schedule.steps)
    loose = _polished(published.ddim(edm(), nfe=3))
    assert not all(step.predictor.carries_constants for step in loose.schedule.steps)


def test_batches_change_nothing_but_the_cost() -> None:
    start = published.dpmpp_2m(edm(), nfe=3)
    whole = _polished(start, iterations=3)
    parts = _polished(start, iterations=3, batch_size=150)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    assert parts.network_calls > whole.network_calls == 3 * 3 * 400 * 2
    noise = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    denoiser = GaussianDenoiser(start.process, MEAN, VARIANCES)
    a, b = (sample(denoiser, compile_plan(p.schedule), noise) for p in (whole, parts))
    assert torch.allclose(a, b, atol=1e-4)


def test_the_seed_decides() -> None:
    start = published.ddim(edm(), nfe=2)
    assert _polished(start, iterations=4) == _polished(start, iterations=4)


def test_what_has_no_gradient_is_said() -> None:
    with pytest.raises(EvaluationFailed, match=r"search\.ladder"):
        _polished(published.ddim(edm(), nfe=2), features=lambda x: _flat(x).detach())


def test_a_loss_that_stays_not_finite_is_said() -> None:
    with pytest.raises(EvaluationFailed, match="not finite"):
        _polished(published.ddim(edm(), nfe=2), features=lambda x: _flat(x) * float("nan"))


def test_a_patched_network_is_refused() -> None:
    patched = published.ddim(edm(), nfe=2).model_copy(
        update={"model_patch": ModelPatch(skip_scale=(0.9, 0.9))}
    )
    with pytest.raises(InvalidSchedule, match="model_patch"):
        _polished(patched)
