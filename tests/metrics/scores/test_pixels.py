"""Mean squared error, PSNR and SSIM against torchmetrics and their formulas."""

import pytest
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from s3search.errors import InvalidConfig
from s3search.metrics.scores import pixels, ssim
from s3search.metrics.scores.contract import Score
from tests.metrics.scores.inputs import images


def test_mse_is_the_mean_of_squares() -> None:
    x, y = images(seed=0), images(seed=1)
    torch.testing.assert_close(
        pixels.load_mse()(x, target=y), ((x - y) ** 2).mean(dim=(1, 2, 3)), rtol=1e-12, atol=0
    )


def test_psnr_is_that_of_torchmetrics_image_by_image() -> None:
    x, y = images(seed=0), images(seed=1)
    expected = [
        peak_signal_noise_ratio(a, b, data_range=2.0).item() for a, b in zip(x, y, strict=True)
    ]
    found = pixels.load_psnr()(x, target=y)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=x.dtype), rtol=1e-6, atol=0)


def test_psnr_of_equal_images_is_finite_and_has_a_gradient_of_zero() -> None:
    x = images(n=1).requires_grad_()
    found = pixels.load_psnr()(x, target=x.detach())
    assert found.item() == pytest.approx(106.0206, abs=1e-4)
    found.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_what_a_screen_cannot_show_makes_no_difference() -> None:
    x, y = images(seed=0) * 3, images(seed=1)
    found = pixels.load_mse()(x, target=y)
    torch.testing.assert_close(found, pixels.load_mse()(x.clamp(-1, 1), target=y))


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_torchmetrics_inside_the_edge(channels: int) -> None:
    x, y = (images(seed=seed, channels=channels, side=24) for seed in (0, 1))
    _, whole = structural_similarity_index_measure(
        (x + 1) / 2, (y + 1) / 2, data_range=1.0, reduction="none", return_full_image=True
    )
    expected = whole[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim.load()(x, target=y), expected, rtol=1e-6, atol=0)


def test_ssim_is_its_formula_in_one_window() -> None:
    x, y = (images(seed=seed, channels=1, side=11)[:1] for seed in (0, 1))
    places = torch.arange(-5, 6, dtype=x.dtype)
    line = torch.exp(-places.square() / (2 * 1.5**2))
    weights = torch.outer(line, line) / line.sum() ** 2
    a, b = (x[0, 0] + 1) / 2, (y[0, 0] + 1) / 2
    m, n = (weights * a).sum(), (weights * b).sum()
    spread = (weights * (a - m) ** 2).sum() + (weights * (b - n) ** 2).sum()
    both = (weights * (a - m) * (b - n)).sum()
    expected = (2 * m * n + 1e-4) * (2 * both + 9e-4)
    expected /= (m**2 + n**2 + 1e-4) * (spread + 9e-4)
    torch.testing.assert_close(ssim.load()(x, target=y), expected[None], rtol=1e-10, atol=0)


def test_small_images_need_a_smaller_window() -> None:
    x = images(side=8, channels=1)
    with pytest.raises(InvalidConfig, match=r"needs images of 11 pixels .*metric.window = 7"):
        ssim.load()(x, target=x)
    score = ssim.load(window=7)
    assert score.name == "ssim-7"
    torch.testing.assert_close(score(x, target=x), torch.ones(3, dtype=x.dtype))
    with pytest.raises(InvalidConfig, match="odd number of pixels, found 4"):
        ssim.load(window=4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("load", [pixels.load_mse, pixels.load_psnr, lambda: ssim.load(window=7)])
def test_each_image_is_scored_alone_and_has_a_gradient(load: type[Score], channels: int) -> None:
    score: Score = load()
    assert score.needs == ("target",)
    x, y = (images(seed=seed, side=8, channels=channels).float() for seed in (0, 1))
    x.requires_grad_()
    whole = score(x, target=y, captions=["a", "b", "c"], labels=torch.zeros(3))
    alone = torch.cat([score(a[None], target=b[None]) for a, b in zip(x, y, strict=True)])
    assert whole.shape == (3,)
    torch.testing.assert_close(whole, alone)
    whole[0].backward()
    assert x.grad is not None
    assert x.grad[0].abs().max() > 0
    assert torch.equal(x.grad[1:], torch.zeros_like(x.grad[1:]))


def test_a_target_that_does_not_fit_is_named() -> None:
    score, x = pixels.load_mse(), images()
    with pytest.raises(InvalidConfig, match="'mse' compares images with a target, and there is n"):
        score(x, labels=torch.zeros(3))
    with pytest.raises(InvalidConfig, match=r"own shape \(3, 3, 48, 48\), found \(3, 1, 48, 48\)"):
        score(x, target=x[:, :1])
    with pytest.raises(InvalidConfig, match=r"target of floats .* found torch.uint8"):
        score(x, target=x.to(torch.uint8))
    with pytest.raises(InvalidConfig, match=r"sees float images .* found torch.float64 \(3,\)"):
        score(x[:, 0, 0, 0], target=x[:, 0, 0, 0])
