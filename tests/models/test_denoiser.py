"""Wrappers of denoisers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.denoiser import thresholded
from s3search.processes import edm


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
