"""What the pretrained extractors see of an image: levels, sizes, gradients, names."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.rgb import RgbFeatures, levels, normalised, weights_digest


class _Means(nn.Module):
    """The mean of each channel, weighted."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), weight))

    def forward(self, seen: Tensor) -> Tensor:
        return seen.mean(dim=(2, 3)) * self.weight


def _images(n: int = 5, channels: int = 3, side: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, channels, side, side), generator=generator) * 2 - 1


def test_levels_are_those_of_a_saved_picture() -> None:
    every = torch.arange(256).float() / 127.5 - 1
    assert torch.equal(levels(every.view(1, 1, 16, 16))[0, 0].flatten(), torch.arange(256.0))
    x = torch.tensor([-3.0, -1.0, 0.0, 0.001, 1.0, 7.0]).view(1, 1, 2, 3)
    assert levels(x)[0, 0].flatten().tolist() == [0.0, 0.0, 128.0, 128.0, 255.0, 255.0]


def test_grey_images_are_seen_in_three_equal_channels() -> None:
    seen = levels(_images(channels=1))
    assert seen.shape == (5, 3, 6, 6)
    assert torch.equal(seen[:, 0], seen[:, 2])


def test_rounding_passes_gradients_and_clipping_none() -> None:
    x = torch.tensor([-1.5, 0.2, 0.9]).view(1, 1, 1, 3).requires_grad_()
    levels(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.0, 3 * 127.5, 3 * 127.5]


@pytest.mark.parametrize(("height", "width", "side"), [(40, 40, 16), (24, 24, 32), (30, 50, 14)])
def test_resizing_is_that_of_pillow(height: int, width: int, side: int) -> None:
    # Pillow clips what overshoots after the first of two passes: keep away from black and white
    pixels = np.random.default_rng(0).integers(80, 176, (height, width, 3), dtype=np.uint8)
    expected = np.array(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
    seen = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    found = normalised(seen, side, (0.0,) * 3, (1.0,) * 3)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - expected).max() <= 1.0  # which also rounds after each


def test_the_centre_is_cut_out_of_a_longer_image() -> None:
    seen = torch.zeros(1, 3, 4, 8)
    seen[..., 2:6] = 255.0
    found = normalised(seen, 4, (0.5,) * 3, (0.5,) * 3, crop=True)
    assert torch.equal(found, torch.ones(1, 3, 4, 4))


def test_features_do_not_depend_on_the_batch() -> None:
    images = _images(7)
    whole = RgbFeatures(_Means(), "means")(images)
    torch.testing.assert_close(RgbFeatures(_Means(), "means", batch=2)(images), whole)
    with pytest.raises(InvalidConfig, match="batch: needs at least one image, found 0"):
        RgbFeatures(_Means(), "means", batch=0)


def test_the_name_tells_the_weights() -> None:
    a, b = RgbFeatures(_Means(1.0), "means"), RgbFeatures(_Means(2.0), "means")
    assert a.name == f"means-{weights_digest(_Means(1.0))}"
    assert a.name != b.name


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 4), torch.zeros(2, 4, 5, 5), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)],
)
def test_images_of_another_shape_or_dtype_are_refused(images: Tensor) -> None:
    with pytest.raises(InvalidConfig, match=r"float images \(B, C, H, W\).*found torch"):
        levels(images)
