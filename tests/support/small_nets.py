"""Three models as a new user brings them: small U-Nets of 16x16 digits, trained here.

One network predicts the noise: an own loader wraps it for linear VP, and a `DDPMPipeline` is saved
with it.  The other one predicts the velocity of a rectified flow.  Both are diffusers' own
`UNet2DModel`, both trained by ``python -m tests.support.train_small_nets``.  Study files name what
is here by import path, so workers import it: diffusers is imported where it is used.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from s3search.models import digits
from s3search.processes import NoiseProcess, flow, vp_linear

SHAPE = (1, 16, 16)
N_FEATURES = 16
N_INDICES = 1000  # of the noise levels that the networks were trained on
WEIGHTS = Path(__file__).parents[1] / "data" / "small_nets"  # half precision


@cache
def images() -> Tensor:
    """Scikit-learn's 1,797 digits at twice their size, (1797, 1, 16, 16) in [-1, 1]."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  # a second, where it is needed

    pixels = torch.tensor(load_digits().data, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    return nn.functional.interpolate(pixels, scale_factor=2, mode="bilinear")


def features() -> Callable[[Tensor], Tensor]:
    """Edges and corners of fixed random filters, along the principal axes that real digits have:
    each of the 16 numbers has mean 0 and variance 1 over the real images.
    """
    draw = torch.Generator().manual_seed(0)
    edges = torch.randn((24, 1, 5, 5), generator=draw) / 5
    corners = torch.randn((48, 24, 3, 3), generator=draw) / 24**0.5 / 3

    def seen(of: Tensor) -> Tensor:
        first = nn.functional.conv2d(of.float().clamp(-1, 1), edges, stride=2).relu()
        return nn.functional.conv2d(first, corners, stride=2).relu().flatten(1)

    real = seen(images()).double()
    mean = real.mean(dim=0)
    values, axes = torch.linalg.eigh(torch.cov((real - mean).T))
    chosen = (axes[:, -N_FEATURES:] / values[-N_FEATURES:].sqrt()).float()
    centre = mean.float()
    return lambda of: (seen(of) - centre) @ chosen


def untrained() -> Any:
    """The U-Net of both models before its training."""
    from diffusers import UNet2DModel  # noqa: PLC0415

    return UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 3,
        add_attention=False,
        up_block_types=("UpBlock2D",) * 3,
    )


def network(name: str) -> Any:
    """The trained U-Net that predicts the "epsilon" or the "velocity", frozen."""
    unet = untrained()
    stored = load_file(WEIGHTS / f"{name}.safetensors")
    unet.load_state_dict({key: value.float() for key, value in stored.items()})
    return unet.eval().requires_grad_(False)


class SmallDenoiser(nn.Module):
    """A network with its process and how its answer becomes the clean image."""

    sample_shape = SHAPE

    def __init__(self, net: nn.Module, process: NoiseProcess, *, is_slip: bool = False) -> None:
        super().__init__()
        self.net, self.process, self.is_slip = net, process, is_slip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The clean image expected behind ``x``; of a slip what the network says."""
        t = t.to(x)
        last = N_INDICES - 1 if self.process.type == "vp_linear" else N_INDICES
        index = (t * N_INDICES - (N_INDICES - last)).clamp(0, last)
        answer = self.net(x.float(), index.float(), return_dict=False)[0].to(x)
        if self.is_slip:
            return answer
        alpha = self.process.alpha(t).reshape(-1, 1, 1, 1)
        sigma = self.process.sigma(t).reshape(-1, 1, 1, 1)
        return x - sigma * answer if self.process.type == "flow" else (x - sigma * answer) / alpha


def epsilon_on_vp() -> SmallDenoiser:
    """The own loader of an epsilon network on linear VP, as it should be."""
    return SmallDenoiser(network("epsilon"), vp_linear())


def epsilon_slip() -> SmallDenoiser:
    """That loader with the likeliest mistake: it returns epsilon where the clean image is due."""
    return SmallDenoiser(network("epsilon"), vp_linear(), is_slip=True)


def rectified_flow() -> SmallDenoiser:
    """The own loader of a rectified flow, x0 = x - t v."""
    return SmallDenoiser(network("velocity"), flow())


class DigitsFlow(nn.Module):
    """The embedded digits model seen as a rectified flow: x_t / (1 - t) is x0 + sigma eps."""

    process = flow()

    def __init__(self) -> None:
        super().__init__()
        self.digits = digits.load(labels="none")
        self.sample_shape = self.digits.sample_shape

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The clean image expected behind ``x``."""
        signal = (1 - t.to(x)).clamp(min=1e-4)  # nothing but noise at t = 1
        found: Tensor = self.digits(x / signal.reshape(-1, 1, 1, 1), t.to(x) / signal)
        return found


def digits_flow() -> DigitsFlow:
    """The loader of the embedded digits as a flow."""
    return DigitsFlow()


def save_pipeline(folder: Path) -> Path:
    """Writes the `DDPMPipeline` of the epsilon network, its scheduler as diffusers makes it."""
    from diffusers import DDPMPipeline, DDPMScheduler  # noqa: PLC0415

    DDPMPipeline(unet=network("epsilon"), scheduler=DDPMScheduler()).save_pretrained(folder)
    return folder
