"""Closed forms: denoisers against definitions, gains and distances against sampling."""

import numpy as np
import pytest
import torch
from hypothesis import given

from s3search.errors import IncompatibleStatistics
from s3search.models.gaussian import (
    GaussianDenoiser,
    GaussianMixture,
    eigenmode_gains,
    gaussian_distance,
)
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.rules import NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan, compile_plans
from s3search.solvers.sample import sample
from tests.support.helpers import EXAMPLES, PROCESSES, gaussian, max_abs, noise, schedules

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def _mixed(process: NoiseProcess) -> list[Schedule]:
    """Plans of different lengths, so that the batch is padded."""
    return [
        published.ddim(process, nfe=3),
        published.unipc(process, nfe=6, order=3),
        published.dpmpp_3m(process, nfe=7),
        published.dpmpp_2m(process, nfe=4),
    ]


def _numpy(denoiser: GaussianDenoiser) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert denoiser.eigenvectors is not None
    parts = (denoiser.mean, denoiser.eigenvalues, denoiser.eigenvectors)
    mean, values, vectors = (part.numpy() for part in parts)
    return mean, values, vectors


@_EACH
def test_denoiser_is_the_regression_on_the_state(process: NoiseProcess) -> None:
    """E[x_0 | x] = mu + alpha Sigma (alpha^2 Sigma + sigma^2 I)^-1 (x - alpha mu)."""
    denoiser = gaussian(process)
    mean, values, vectors = _numpy(denoiser)
    covariance = vectors @ np.diag(values) @ vectors.T
    t = process.time_range[0] + 0.3 * (process.time_range[1] - process.time_range[0])
    a, s = process.alpha(t), process.sigma(t)
    x = noise()
    regression = a * covariance @ np.linalg.inv(a * a * covariance + s * s * np.eye(4))
    expected = mean + (x.flatten(1).numpy() - a * mean) @ regression.T
    answer = denoiser(x, torch.full((4,), t, dtype=torch.float64))
    np.testing.assert_allclose(answer.flatten(1).numpy(), expected, rtol=1e-12)
    full = GaussianDenoiser.of_covariance(
        process, denoiser.mean.reshape(1, 2, 2), torch.from_numpy(covariance)
    )
    assert max_abs(full(x, torch.full((4,), t, dtype=torch.float64)) - answer) < 1e-13


def test_mixture_of_one_is_the_gaussian() -> None:
    process, mean = vp_linear(), torch.tensor([[[0.3, -0.5], [0.1, 0.8]]], dtype=torch.float64)
    one = GaussianDenoiser(process, mean, torch.full((4,), 0.36, dtype=torch.float64))
    mixture = GaussianMixture(process, mean[None], torch.tensor([0.6]).double(), torch.ones(1))
    t = torch.tensor([0.9, 0.5, 0.2, 0.01], dtype=torch.float64)
    assert max_abs(one(noise(), t) - mixture(noise(), t)) < 1e-7  # 0.6 was rounded to float32


def test_denoisers_answer_the_mean_at_pure_noise() -> None:
    process, t = flow(), torch.ones(4, dtype=torch.float64)
    denoiser = gaussian(process)
    mean = denoiser.mean.reshape(1, 1, 2, 2)
    assert max_abs(denoiser(noise(), t) - mean) < 1e-15
    means = torch.stack([mean[0], -mean[0]])
    mixture = GaussianMixture(process, means, torch.tensor([0.5, 0.2]), torch.tensor([0.75, 0.25]))
    assert max_abs(mixture(noise(), t) - 0.5 * mean) < 1e-15


def test_mixture_recovers_a_component_at_low_noise() -> None:
    means = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), -1.0)])
    mixture = GaussianMixture(edm(), means, torch.tensor([0.01, 0.01]), torch.tensor([0.5, 0.5]))
    x = torch.full((3, 1, 2, 2), 0.9, dtype=torch.float64)
    answer = mixture(x, torch.full((3,), 0.3, dtype=torch.float64))
    assert max_abs(answer - 1.0) < 1e-3


@EXAMPLES
@given(schedules(max_steps=4))
def test_gains_are_what_sampling_does(schedule: Schedule) -> None:
    denoiser, plan, z = gaussian(schedule.process), compile_plan(schedule), noise()
    mean, values, vectors = _numpy(denoiser)
    gains = eigenmode_gains(plan, values)
    image = np.zeros(4) if plan.image is None else plan.image.reshape(-1)
    modes = gains.noise[0] * (z.flatten(1).numpy() @ vectors)
    modes = modes + gains.mean[0] * (mean @ vectors) + gains.image[0] * (image @ vectors)
    sampled = sample(denoiser, plan, z).flatten(1).numpy()
    largest = max(1.0, np.abs(plan.p).max(), np.abs(plan.q).max(initial=0.0))
    np.testing.assert_allclose(modes @ vectors.T, sampled, atol=1e-11 * largest**2)


@_EACH
def test_gains_of_a_padded_batch_are_those_of_its_plans(process: NoiseProcess) -> None:
    batch, values = compile_plans(_mixed(process)), np.array([0.0, 0.1, 1.0, 4.0])
    together = eigenmode_gains(batch, values)
    for b, plan in enumerate(batch):
        for whole, single in zip(together, eigenmode_gains(plan, values), strict=True):
            np.testing.assert_allclose(whole[b], single[0], rtol=1e-12, atol=1e-14)


@_EACH
def test_distance_is_the_frechet_distance_of_samples(process: NoiseProcess) -> None:
    """Against the general formula with the exact mean and covariance of what the plan makes."""
    denoiser = gaussian(process)
    mean, values, vectors = _numpy(denoiser)
    batch = compile_plans(_mixed(process))
    distances = gaussian_distance(batch, mean, values, vectors)
    corners = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double().reshape(5, 1, 2, 2)
    for plan, distance in zip(batch, distances, strict=True):
        made = sample(denoiser, plan, corners).flatten(1).numpy()
        linear = (made[1:] - made[0]).T
        cov, data = linear @ linear.T, vectors @ np.diag(values) @ vectors.T
        cross = np.sqrt(np.linalg.eigvals(cov @ data).real.clip(0)).sum()
        expected = ((made[0] - mean) ** 2).sum() + np.trace(cov) + np.trace(data) - 2 * cross
        assert distance == pytest.approx(expected, rel=1e-6, abs=1e-9)


def _noisy(process: NoiseProcess) -> list[Schedule]:
    """Noise in every step but the last, in the rules themselves, in two steps alone, and none."""
    gamma = StepNoise(kind=NoiseKind.GAMMA, amount=0.4, scale=1.05)
    plain = published.dpmpp_2m(process, nfe=5)
    some = [step.model_copy(update={"noise": gamma}) for step in plain.steps[:2]]
    return [
        published.ddim(process, nfe=6, eta=1.0),
        published.dpmpp_2m_sde(process, nfe=5),
        plain.changed(steps=[*some, *plain.steps[2:]]),
        plain,
    ]


@_EACH
def test_noise_in_steps_adds_to_the_covariance(process: NoiseProcess) -> None:
    """Against the covariance of the plan's own linear map of all that it draws."""
    denoiser = gaussian(process)
    mean, values, vectors = _numpy(denoiser)
    batch = compile_plans(_noisy(process))
    distances = gaussian_distance(batch, mean, values, vectors)
    gains = eigenmode_gains(batch, values)
    zero = torch.zeros(4, 1, 2, 2, dtype=torch.float64)
    ones = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
    for b, plan in enumerate(batch):
        n_draws = len(plan.noisy_rows)
        centre = sample(denoiser, plan, zero, step_noise=[zero] * n_draws).flatten(1)
        covariance = torch.zeros(4, 4, dtype=torch.float64)
        for k in range(-1, n_draws):
            draws = [ones if k == j else zero for j in range(n_draws)]
            made = sample(denoiser, plan, ones if k < 0 else zero, step_noise=draws).flatten(1)
            covariance += (made - centre).T @ (made - centre)
        in_modes = vectors.T @ covariance.numpy() @ vectors
        np.testing.assert_allclose(in_modes, np.diag(gains.deviation[b] ** 2), atol=1e-9)
        offset = ((centre[0].numpy() - mean) ** 2).sum()
        spread = ((np.sqrt(np.diag(in_modes)) - np.sqrt(values)) ** 2).sum()
        assert distances[b] == pytest.approx(offset + spread, rel=1e-6, abs=1e-9)
    alone = gaussian_distance(batch[3], mean, values, vectors)
    assert alone[0] == pytest.approx(distances[3], rel=1e-12)


def test_distance_falls_with_more_calls() -> None:
    mean, values, vectors = _numpy(gaussian(edm()))
    batch = compile_plans([published.dpmpp_2m(edm(), nfe=n) for n in (4, 8, 16, 32)])
    distances = gaussian_distance(batch, mean.reshape(1, 2, 2), values, vectors)
    assert list(distances) == sorted(distances, reverse=True)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_diagonal_distance_needs_no_eigenvectors(n: int) -> None:
    mean, values = np.array([0.2, -0.1, 0.0, 0.4]), np.array([0.1, 0.2, 0.3, 0.4])
    plan = compile_plan(published.ddim(edm(), nfe=n))
    plain, rotated = (gaussian_distance(plan, mean, values, u) for u in (None, np.eye(4)))
    assert plain == pytest.approx(rotated)


def test_shapes_that_do_not_fit_are_refused() -> None:
    mean = torch.zeros(1, 2, 2)
    with pytest.raises(IncompatibleStatistics, match="4 eigenvalues"):
        GaussianDenoiser(edm(), mean, torch.ones(3))
    with pytest.raises(IncompatibleStatistics, match="eigenvalues >= 0"):
        GaussianDenoiser(edm(), mean, torch.tensor([1.0, 1.0, 1.0, -1.0]))
    with pytest.raises(IncompatibleStatistics, match="eigenvectors"):
        GaussianDenoiser(edm(), mean, torch.ones(4), torch.eye(3))
    with pytest.raises(IncompatibleStatistics, match="a single number"):
        GaussianDenoiser(edm(), torch.tensor(0.0), torch.ones(1))
    with pytest.raises(TypeError, match="labels"):
        gaussian(edm())(noise(), torch.ones(4), labels=1)
