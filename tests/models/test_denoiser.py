"""Wrappers of denoisers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.denoiser import thresholded, variance_matched
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from tests.support.helpers import SHAPE, gaussian, noise


class _Echo:
    """Answers the state itself."""

    process, sample_shape = edm(), (1, 2, 2)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """x."""
        return x


def test_images_within_the_range_are_left_alone() -> None:
    x = torch.tensor([0.9, -0.5, 0.1, 0.0]).reshape(1, 1, 2, 2)
    assert torch.equal(thresholded(_Echo())(x, torch.ones(1)), x)


def test_each_image_is_clamped_at_its_own_quantile() -> None:
    one = torch.tensor([4.0, -2.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    x = torch.cat([one, 0.1 * one])
    s = 2.0 + 0.5 * 2.0  # quantile 5/6 of |x|: halfway between 2 and 4
    answer = thresholded(_Echo(), ratio=5 / 6)(x, torch.ones(2))
    torch.testing.assert_close(answer[0], one[0].clamp(-s, s) / s)
    torch.testing.assert_close(answer[1], 0.1 * one[0])


def test_low_maximum_still_rescales_to_one() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    answer = thresholded(_Echo(), max_value=0.5)(x, torch.ones(1))
    torch.testing.assert_close(answer, torch.ones_like(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_and_input_are_kept(dtype: torch.dtype) -> None:
    x = torch.full((2, 1, 2, 2), 3.0, dtype=dtype)
    before = x.clone()
    assert thresholded(_Echo())(x, torch.ones(2)).dtype == dtype
    assert torch.equal(x, before)


@pytest.mark.parametrize(("ratio", "max_value"), [(0.0, 1.0), (1.5, 1.0), (0.9, 0.0)])
def test_impossible_thresholds_are_refused(ratio: float, max_value: float) -> None:
    with pytest.raises(InvalidConfig):
        thresholded(_Echo(), ratio, max_value)


# --- the variance-matched time of TS-DPM ---


class _Spy:
    """An exact denoiser that notes the times it is told."""

    sample_shape = SHAPE

    def __init__(self, process: NoiseProcess) -> None:
        self.process, self.inner = process, gaussian(process)
        self.told: list[float] = []

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The exact D."""
        self.told = t.tolist()
        return self.inner(x, t)


def test_each_sample_is_told_the_time_of_its_own_variance() -> None:
    process = vp_discrete()
    spy, x = _Spy(process), noise(3)
    table = [process.sigma(float(i)) ** 2 for i in range(1000)]
    variances = x.flatten(1).var(dim=1)
    variance_matched(spy, 60)(x, x.new_full((3,), 500.0))
    window = range(470, 531)
    expected = [min(window, key=lambda i: abs(table[i] - float(v))) for v in variances]
    assert spy.told == expected


@pytest.mark.parametrize("process", [edm(), vp_linear()])
def test_continuous_times_match_the_variance_within_the_window(process: NoiseProcess) -> None:
    spy, t = _Spy(process), 0.5
    x = noise(3)
    wanted = process.sigma(t * 1.02) ** 2
    x = x * (wanted / x.flatten(1).var(dim=1)).sqrt().reshape(-1, 1, 1, 1)
    variance_matched(spy, 0.2)(x, x.new_full((3,), t))
    assert spy.told == pytest.approx([t * 1.02] * 3, abs=1e-9)
    variance_matched(spy, 0.01)(x, x.new_full((3,), t))
    assert spy.told == pytest.approx([t + 0.005] * 3, abs=1e-9)


def test_matched_answer_is_the_data_of_the_noise_the_network_saw() -> None:
    process, t = vp_linear(), 0.5
    spy, x = _Spy(process), noise(3)
    answer = variance_matched(spy, 0.2)(x, x.new_full((3,), t))
    told = torch.tensor(spy.told, dtype=x.dtype)
    alpha, sigma = (f(told).reshape(-1, 1, 1, 1) for f in (process.alpha, process.sigma))
    eps = (x - alpha * spy.inner(x, told)) / sigma
    expected = (x - process.sigma(t) * eps) / process.alpha(t)
    torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", [vp_linear(), flow(), vp_discrete()])
def test_no_shift_below_the_cutoff_or_at_pure_noise(process: NoiseProcess) -> None:
    spy, x = _Spy(process), noise(2)
    t = x.new_full((2,), 1.0)
    answer = variance_matched(spy, 0.2, cutoff=1.0)(x, t)
    assert spy.told == [1.0, 1.0]
    assert torch.equal(answer, spy.inner(x, t))
    if process.alpha(1.0) == 0.0:
        assert torch.equal(variance_matched(spy, 0.2)(x, t), spy.inner(x, t))


def test_negative_window_is_refused() -> None:
    with pytest.raises(InvalidConfig):
        variance_matched(_Echo(), -1.0)
