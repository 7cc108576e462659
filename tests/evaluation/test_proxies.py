"""Proxies: closed forms where there are any, ranks, what has no score, and what they cost."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, InvalidSchedule
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.proxies import ProxyScorer, ProxySettings
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.paired import Pairing
from s3search.metrics.references import StatisticsFile
from s3search.metrics.statistic import FrechetStatistic
from s3search.models.gaussian import gaussian_distance
from s3search.processes import NoiseProcess, edm, vp_linear
from s3search.rules import EmsStatistics
from s3search.schedules import published
from s3search.schedules.jump import GaussianJump
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.solvers.plan import compile_plans
from tests.support.helpers import PROCESSES, gaussian

_CPU = torch.device("cpu")
_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
_SMALL = ProxySettings(n_components=3, mixture_images=64, fine_nfe=32)


def _images(process: NoiseProcess, n: int = 600) -> Tensor:
    """Samples of the Gaussian that the tests' denoiser knows."""
    data = gaussian(process)
    assert data.eigenvectors is not None
    z = torch.randn((n, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = data.mean + (z * data.eigenvalues.sqrt()) @ data.eigenvectors.T
    return rows.reshape(n, 1, 2, 2)


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


def _proxies(
    process: NoiseProcess, settings: ProxySettings = _SMALL, **changes: Any
) -> ProxyScorer:
    denoiser, images = gaussian(process), _images(process)
    reference = FrechetReference.of(FeatureStatistics.of(_pixels(images).numpy()))
    fields: dict[str, Any] = {
        "denoiser": denoiser,
        "features": _pixels,
        "distance": FrechetStatistic(reference).value,
        "images": images,
        "noise": NoiseBank(denoiser, _CPU),
    }
    return ProxyScorer(**(fields | changes), settings=settings)


def _schedules(process: NoiseProcess) -> list[Schedule]:
    """From bad to fine, of different lengths."""
    return [
        published.ddim(process, nfe=2),
        published.dpmpp_2m(process, nfe=6),
        published.unipc(process, nfe=12, order=3),
        published.dpmpp_2m(process, nfe=40),
    ]


def _scores(proxies: ProxyScorer, schedules: list[Schedule]) -> dict[str, np.ndarray]:
    """Every proxy."""
    return {
        "gaussian": proxies.gaussian(schedules),
        "mixture": proxies.mixture(schedules),
        "trajectory": proxies.trajectory(schedules, 40, 3),
    }


@_EACH
def test_gaussian_is_the_closed_form(process: NoiseProcess) -> None:
    rows = _pixels(_images(process))
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    expected = gaussian_distance(
        compile_plans(_schedules(process)), rows.mean(0).numpy(), values.numpy(), vectors.numpy()
    )
    found = _proxies(process).gaussian(_schedules(process))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@_EACH
def test_mixture_of_one_approaches_the_closed_form(process: NoiseProcess) -> None:
    """On Gaussian data, with the pixels as features; what is left is the noise's finite number."""
    settings = ProxySettings(n_components=1, mixture_images=20_000)
    proxies = _proxies(process, settings)
    schedules = _schedules(process)
    found, expected = proxies.mixture(schedules), proxies.gaussian(schedules)
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=2e-3)


@_EACH
def test_schedules_with_noise_have_the_scores_of_closed_forms(process: NoiseProcess) -> None:
    """On Gaussian data, with the pixels as features; noise leads away from a fine solve."""
    noisy = [
        published.ddim(process, nfe=8, eta=1.0),
        published.dpmpp_2m_sde(process, nfe=12),
        published.ddim(process, nfe=8, eta=0.3),
    ]
    settings = ProxySettings(n_components=1, mixture_images=20_000)
    proxies, together = _proxies(process, settings), [*_schedules(process), *noisy]
    found, expected = proxies.mixture(noisy), proxies.gaussian(noisy)
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=2e-3)
    np.testing.assert_array_equal(proxies.gaussian(together)[:4], proxies.gaussian(together[:4]))
    np.testing.assert_allclose(proxies.gaussian(together)[4:], expected, rtol=1e-12)
    assert np.isnan(proxies.trajectory(noisy, 4, 3)).all()


@_EACH
def test_every_proxy_ranks_a_bad_schedule_last(process: NoiseProcess) -> None:
    for name, scores in _scores(_proxies(process), _schedules(process)).items():
        assert scores[0] > 2 * scores[3], name


def test_a_score_depends_on_its_schedule_alone() -> None:
    schedules = _schedules(edm())
    together = _scores(_proxies(edm()), schedules)
    backwards = _scores(_proxies(edm()), schedules[::-1])
    proxies = _proxies(edm())
    alone = [_scores(proxies, [schedule]) for schedule in schedules]
    for name, scores in together.items():
        np.testing.assert_allclose(backwards[name][::-1], scores, rtol=1e-12)
        np.testing.assert_allclose([one[name][0] for one in alone], scores, rtol=1e-12)
    for name in ("mixture", "trajectory"):
        assert np.array_equal(backwards[name][::-1], together[name])


@pytest.mark.parametrize("size", [1, 7])
def test_the_batch_size_does_not_matter(size: int) -> None:
    settings = ProxySettings(n_components=3, mixture_images=64, fine_nfe=32, batch_size=size)
    schedules = _schedules(edm())[:2]
    small, usual = (_scores(_proxies(edm(), own), schedules) for own in (settings, _SMALL))
    for name, scores in usual.items():
        np.testing.assert_allclose(small[name], scores, rtol=1e-4)


def test_labels_replace_the_clusters() -> None:
    labels = torch.arange(600) % 2
    by_label, by_cluster = (
        _proxies(edm(), labels=own).mixture(_schedules(edm())) for own in (labels, None)
    )
    assert not np.allclose(by_label, by_cluster)


def _late(process: NoiseProcess) -> Schedule:
    times = published.ddim(process, nfe=3).times[1:]
    jump = GaussianJump(from_time=process.time_range[1], mean=[[[0.0, 0.0], [0.0, 0.0]]])
    late = published.on_times(process, times, published.ddim_steps(2))
    return published.with_jump(late, jump)


def _statistics(process: NoiseProcess) -> EmsStatistics:
    """With these, DPM-Solver-v3 is DPM-Solver++."""
    first, last = process.lam(1.0), process.lam(1e-3)
    ones = np.ones((9, 1, 2, 2))
    return EmsStatistics(lam_start=first, lam_end=last, l=ones, s=0 * ones, b=0 * ones)


def test_what_a_proxy_cannot_run_has_no_score() -> None:
    process = vp_linear()
    plain = published.ddim(process, nfe=3)
    v3 = published.dpm_solver_v3(process, _statistics(process), nfe=3)
    patched = plain.model_copy(update={"model_patch": ModelPatch(skip_scale=(0.9,))})
    scores = _scores(_proxies(process), [plain, v3, _late(process), patched])
    for name in ("gaussian", "mixture"):
        assert np.isfinite(scores[name]).tolist() == [True, False, False, False]
    # the network itself can follow a jump
    assert np.isfinite(scores["trajectory"]).tolist() == [True, False, True, False]


def test_a_reference_without_images_leaves_the_trajectory(tmp_path: Any) -> None:
    rows = _pixels(_images(edm())).numpy()
    np.savez(tmp_path / "reference.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    reference = StatisticsFile.load(tmp_path / "reference.npz").reference
    scores = _scores(
        _proxies(edm(), images=None, distance=FrechetStatistic(reference).value), _schedules(edm())
    )
    assert np.isnan(scores["gaussian"]).all()
    assert np.isnan(scores["mixture"]).all()
    assert np.isfinite(scores["trajectory"]).all()


@pytest.mark.parametrize("images", [_images(edm()).repeat(1, 3, 1, 1), torch.zeros(9, 1, 2, 2)])
def test_images_of_another_shape_or_all_alike_fit_nothing(images: Tensor) -> None:
    proxies = _proxies(edm(), images=images)
    assert np.isnan(proxies.gaussian(_schedules(edm()))).all()
    assert np.isnan(proxies.mixture(_schedules(edm()))).all()


def test_a_schedule_for_another_process_is_an_error() -> None:
    with pytest.raises(InvalidSchedule, match="process"):
        _proxies(edm()).gaussian(_schedules(vp_linear()))


def test_the_fine_solve_is_paid_once_for_each_noise() -> None:
    proxies, schedules = _proxies(edm()), _schedules(edm())[:2]  # 2 + 6 calls
    proxies.gaussian(schedules)
    proxies.mixture(schedules)
    assert proxies.network_calls == 0
    proxies.trajectory(schedules, 40, 3)
    assert proxies.network_calls == 40 * (32 + 2 + 6)
    proxies.trajectory(schedules, 40, 3, pairing=Pairing.DIAGONAL)
    assert proxies.network_calls == 40 * (32 + 2 * (2 + 6))
    proxies.trajectory(schedules, 40, 4)
    assert proxies.network_calls == 40 * (2 * 32 + 3 * (2 + 6))


def test_the_fine_solve_is_at_no_distance_from_itself() -> None:
    fine = published.dpmpp_2m(edm(), nfe=32, end=published.End(rule="denoise"))
    for pairing in Pairing:
        for in_pixels in (False, True):
            (score,) = _proxies(edm()).trajectory(
                [fine], 40, 3, pairing=pairing, in_pixels=in_pixels
            )
            assert score == pytest.approx(0.0, abs=1e-6)


def test_square_in_pixels_is_the_mean_squared_error() -> None:
    """Of an extractor that sees twice the pixels: four times it."""
    proxies = _proxies(edm(), features=lambda images: 2 * images.flatten(1))
    inside, outside = (
        proxies.trajectory(_schedules(edm()), 40, 3, pairing=Pairing.SQUARE, in_pixels=in_pixels)
        for in_pixels in (True, False)
    )
    np.testing.assert_allclose(outside, 4 * inside)


class _Failing:
    """A denoiser whose answers are not finite below a level."""

    def __init__(self, below: float) -> None:
        self.process, self.sample_shape = edm(), (1, 2, 2)
        self._exact = gaussian(edm())
        self.below = below

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[:, None, None, None] < self.below, torch.nan, self._exact(x, t))


def test_images_that_are_not_finite_have_no_score() -> None:
    low, high = (
        published.on_times(edm(), (80.0, 5.0, t, 0.0), published.ddim_steps(3))
        for t in (0.002, 0.5)
    )
    failing = _Failing(0.1)
    with pytest.raises(EvaluationFailed, match="fine solve"):
        _proxies(edm(), denoiser=failing).trajectory([high], 40, 3)
    proxies = _proxies(edm(), denoiser=failing)
    failing.below = 0.0
    proxies.trajectory([high], 40, 3)
    failing.below = 0.1
    scores = proxies.trajectory([low, high], 40, 3)
    assert np.isfinite(scores).tolist() == [False, True]
