"""The mixture: its denoiser against the density, its samples against closed forms."""

import pytest
import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.evaluation.denoiser_cache import DenoiserCache
from s3search.models.gaussian import GaussianDenoiser
from s3search.models.mixture import MixtureDenoiser, MixtureSampler, clusters, fit_mixture
from s3search.models.principal import PrincipalAxes, principal_axes
from s3search.processes import NoiseProcess, edm
from s3search.schedules import published
from s3search.schedules.jump import GaussianJump
from s3search.schedules.schedule import Start, StartKind
from s3search.solvers.plan import compile_plan
from s3search.solvers.prefix import call_keys
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, max_abs

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _parts(k: int = 3, p: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances."""
    roots = _random(k, p, p, seed=1)
    return _random(k, seed=2).softmax(0), 2 * _random(k, p, seed=3), roots @ roots.mT


def _log_density(y: Tensor, alpha: float, sigma: float) -> Tensor:
    weights, means, covariances = _parts()
    eye = torch.eye(y.shape[1], dtype=torch.float64)
    logs = [
        w.log()
        + torch.distributions.MultivariateNormal(
            alpha * m, alpha**2 * c + sigma**2 * eye
        ).log_prob(y)
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    return torch.stack(logs).logsumexp(0)


@pytest.mark.parametrize(
    ("alpha", "sigma"), [(1.0, 0.05), (1.0, 1.0), (1.0, 40.0), (0.6, 0.8), (0.02, 0.98)]
)
def test_the_denoiser_is_tweedies_formula(alpha: float, sigma: float) -> None:
    y = (alpha * 2 * _random(20, 4, seed=5) + sigma * _random(20, 4)).requires_grad_()
    (score,) = torch.autograd.grad(_log_density(y, alpha, sigma).sum(), y)
    expected = (y + sigma**2 * score) / alpha
    answer = MixtureDenoiser.of_covariances(*_parts())(y.detach(), alpha, sigma)
    torch.testing.assert_close(answer, expected.detach(), rtol=1e-8, atol=1e-9)


def test_pure_noise_has_the_mean_as_its_answer() -> None:
    weights, means, covariances = _parts()
    denoiser = MixtureDenoiser.of_covariances(weights, means, covariances)
    answer = denoiser(_random(5, 4), 0.0, 1.0)
    torch.testing.assert_close(answer, (weights @ means).expand(5, 4))


def test_single_precision_is_the_same_mixture() -> None:
    wide = MixtureDenoiser.of_covariances(*_parts())
    narrow = wide.to(torch.device("cpu"), torch.float32)
    y = _random(20, 4)
    for sigma in (0.1, 1.0, 80.0):
        answer = narrow((sigma * y).float(), 1.0, sigma)
        assert answer.dtype == torch.float32
        assert max_abs(answer - wide(sigma * y, 1.0, sigma)) < 1e-4


def test_flat_components_are_refused() -> None:
    weights, means, covariances = _parts()
    with pytest.raises(IncompatibleStatistics, match="flat direction"):
        MixtureDenoiser.of_covariances(weights, means, torch.zeros_like(covariances))


def test_clusters_find_groups_that_lie_apart() -> None:
    groups = torch.arange(60) % 3
    y = 0.1 * _random(60, 2) + 5 * torch.eye(3, 2).double()[groups]
    found = clusters(y, 3)
    assert len(found.unique()) == 3
    assert all(len(found[groups == k].unique()) == 1 for k in range(3))
    assert torch.equal(found, clusters(y, 3))


def test_there_are_no_more_clusters_than_points() -> None:
    assert len(clusters(torch.ones(10, 2).double(), 4).unique()) == 1
    assert len(clusters(torch.eye(3).double(), 8).unique()) == 3


def _images(n: int = 400) -> Tensor:
    spread = torch.tensor([0.8, 0.5, 0.2, 0.1]).double()
    return (0.2 + _random(n, 4) * spread).reshape(n, 1, 2, 2)


def _gaussian(process: NoiseProcess, axes: PrincipalAxes) -> GaussianDenoiser:
    """The same Gaussian with every eigenvector."""
    inside = axes.directions @ axes.directions.T
    covariance = axes.directions @ torch.diag(axes.variances) @ axes.directions.T
    covariance = covariance + axes.rest * (torch.eye(4).double() - inside)
    return GaussianDenoiser.of_covariance(process, axes.mean.reshape(1, 2, 2), covariance)


@_EACH
@pytest.mark.parametrize("n_directions", [4, 2])
def test_a_mixture_of_one_is_the_gaussian(process: NoiseProcess, n_directions: int) -> None:
    images, noise = _images(), _random(16, 1, 2, 2, seed=9)
    axes = principal_axes(images, n_directions)
    denoiser = fit_mixture(axes, images, n_components=1)
    sampler = MixtureSampler(axes, denoiser, noise)
    schedules = [published.ddim(process, nfe=4), published.unipc(process, nfe=5, order=3)]
    if process.alpha(process.time_range[1]) > 0:
        start = Start(kind=StartKind.AVERAGE_X0, image=[[[0.1, 0.2], [0.3, -0.4]]])
        schedules.append(schedules[0].model_copy(update={"start": start}))
    for schedule in schedules:
        plan = compile_plan(schedule)
        expected = sample(_gaussian(process, axes), plan, noise)
        assert max_abs(sampler.images(plan) - expected) < 1e-4  # a variance is floored at 1e-6


@_EACH
@pytest.mark.parametrize("n_directions", [4, 2])
def test_what_rows_draw_is_common_to_all_schedules(
    process: NoiseProcess, n_directions: int
) -> None:
    images, noise = _images(), _random(16, 1, 2, 2, seed=9)
    axes = principal_axes(images, n_directions)
    denoiser = fit_mixture(axes, images, n_components=1)

    def drawn(row: int) -> Tensor:
        return _random(16, 1, 2, 2, seed=100 + row)

    cache = DenoiserCache(2**20)
    sampler = MixtureSampler(axes, denoiser, noise, cache, step_noise=drawn)
    for schedule in (
        published.ddim(process, nfe=5, eta=0.6),
        published.dpmpp_2m_sde(process, nfe=4),
        published.ddim(process, nfe=4),
        published.ddim(process, nfe=5, eta=0.3),
    ):
        plan = compile_plan(schedule)
        draws = [drawn(row) for row in plan.noisy_rows]
        expected = sample(_gaussian(process, axes), plan, noise, step_noise=draws)
        assert max_abs(sampler.images(plan) - expected) < 1e-4  # a variance is floored at 1e-6


def test_a_plan_that_draws_is_refused_without_step_noise() -> None:
    images, noise = _images(), _random(4, 1, 2, 2)
    axes = principal_axes(images, 4)
    sampler = MixtureSampler(axes, fit_mixture(axes, images, n_components=2), noise)
    with pytest.raises(InvalidSchedule, match="row 1 of the plan draws noise, and none was given"):
        sampler.images(compile_plan(published.ddim(edm(), nfe=4, eta=1.0)))


def test_a_cache_of_calls_changes_no_image() -> None:
    images, noise = _images(), _random(16, 1, 2, 2, seed=9)
    axes = principal_axes(images, 4)
    denoiser, cache = fit_mixture(axes, images, n_components=3), DenoiserCache(2**20)
    alone, cached = (MixtureSampler(axes, denoiser, noise, kept) for kept in (None, cache))
    for schedule in published.baselines(edm(), 3).values():
        plan = compile_plan(schedule)
        if plan.start_map is None:
            assert torch.equal(alone.images(plan), cached.images(plan))
            assert cache.get(call_keys(plan)[0]) is not None


def test_labels_are_components() -> None:
    """Two classes on one line: by class the covariance is theirs, not that of the clusters."""
    labels = torch.arange(400) % 2
    images = _images() * (1.0 + 2.0 * labels)[:, None, None, None]
    axes = principal_axes(images, 4)
    y = axes.mean[None] @ axes.directions
    answers = [
        fit_mixture(axes, images, n_components=2, labels=own)(y, 1.0, 1.0)
        for own in (labels, 7 - labels, None)
    ]
    torch.testing.assert_close(answers[0], answers[1])
    assert max_abs(answers[0] - answers[2]) > 1e-3


def test_a_jump_is_refused() -> None:
    images = _images()
    axes = principal_axes(images, 4)
    sampler = MixtureSampler(axes, fit_mixture(axes, images, n_components=2), _random(4, 1, 2, 2))
    jump = GaussianJump(from_time=80.0, mean=[[[0.0, 0.0], [0.0, 0.0]]])
    times = published.ddim(edm(), nfe=3).times[1:]
    late = published.on_times(edm(), times, published.ddim_steps(2))
    with pytest.raises(IncompatibleStatistics, match="Gaussian jumps"):
        sampler.images(compile_plan(published.with_jump(late, jump)))
