"""Models of thirty digits with an exact denoiser, and how a user may get each of them wrong."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from s3search.models import from_epsilon, from_v, from_velocity
from s3search.models.digits import images as digits
from s3search.models.gaussian import GaussianMixture
from s3search.models.outputs import Output, weights_of
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear

SHAPE = (1, 8, 8)
N = 30


def images() -> Tensor:
    """The real images (N, 1, 8, 8)."""
    return digits()[::59][:N]


def exact(process: NoiseProcess, *, unit: bool = False) -> GaussianMixture:
    """The denoiser of small Gaussians around the images; ``unit``: of images in [0, 1]."""
    means, std = (images() / 2 + 0.5, 0.05) if unit else (images(), 0.1)
    return GaussianMixture(process, means, torch.full((N,), std), torch.full((N,), 1 / N))


class Network(nn.Module):
    """A network that answers what the exact denoiser implies, at times of its own unit."""

    def __init__(self, process: NoiseProcess, output: Output, time: float = 1.0) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self._exact, self._process, self._output = exact(process), process, output
        self._time = time  # of the process is this times the network's

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = (t * self._time).clamp(*self._process.time_range)
        wide = t.double()
        levels = self._process.alpha(wide).clamp(min=1e-3), self._process.sigma(wide)
        a, b = (w.to(x).reshape(-1, 1, 1, 1) for w in weights_of(self._output, *levels))
        return self.one * (self._exact(x, t) - a * x) / b


class Denoiser:
    """Any callable with its process."""

    sample_shape = SHAPE

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor], process: NoiseProcess) -> None:
        self.process, self._call = process, call

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self._call(x, t)


_LINEAR, _DISCRETE, _STRAIGHT = vp_linear(), vp_discrete(), flow()


def load(slip: str = "") -> Any:
    """The model with a slip; without one as it should be."""
    return _MODELS[slip]()


def _index_network() -> nn.Module:
    return Network(_LINEAR, Output.EPSILON, time=1e-3)


def _backwards() -> Any:
    net = Network(_STRAIGHT, Output.FLOW)
    return from_velocity(lambda x, t: -net(x, t), _STRAIGHT, sample_shape=SHAPE)


def _backwards_by_hand() -> Any:
    net = Network(_STRAIGHT, Output.FLOW)
    return Denoiser(lambda x, t: x + t[:, None, None, None] * net(x, t), _STRAIGHT)


class _ByHand(nn.Module):
    """A user's own arithmetic around a network of epsilon."""

    sample_shape = SHAPE

    def __init__(self, net: nn.Module, process: NoiseProcess) -> None:
        super().__init__()
        self.net, self.process = net, process

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (
            level(t)[:, None, None, None] for level in (self.process.alpha, self.process.sigma)
        )
        return (x - sigma * self.net(x, t=t)) / alpha


class _Noisy(nn.Module):
    """A module that was left in training mode."""

    process, sample_shape = edm(), SHAPE

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.dropout(exact(edm())(x, t))


_MODELS: dict[str, Callable[[], Any]] = {
    "": lambda: from_epsilon(_index_network(), _LINEAR, time=1000.0, sample_shape=SHAPE),
    "epsilon": lambda: Denoiser(Network(_LINEAR, Output.EPSILON), _LINEAR),
    "v": lambda: Denoiser(Network(_LINEAR, Output.V), _LINEAR),
    "v as epsilon": lambda: from_epsilon(
        Network(_DISCRETE, Output.V), _DISCRETE, sample_shape=SHAPE
    ),
    "sign": _backwards,
    "sign by hand": _backwards_by_hand,
    "unit range": lambda: exact(edm(), unit=True),
    "index": lambda: from_epsilon(_index_network(), _LINEAR, sample_shape=SHAPE),
    "index by hand": lambda: _ByHand(_index_network(), _LINEAR),
    "fraction": lambda: from_v(
        Network(_DISCRETE, Output.V, time=1000.0), _DISCRETE, sample_shape=SHAPE
    ),
    "dropout": _Noisy,
    "shape": lambda: Denoiser(lambda x, t: x[:, :, :4], _LINEAR),
}


def pixels_in_inference() -> Callable[[Tensor], Tensor]:
    """The pixels as features, as many write an extractor."""
    return torch.inference_mode()(pixels())


def pixels(tail: int = 0) -> Callable[[Tensor], Tensor]:
    """The pixels as features, without the last few."""

    def features(found: Tensor) -> Tensor:
        return found.flatten(1)[:, : 64 - tail]

    return features


def maps() -> Callable[[Tensor], Tensor]:
    """Features that are a map (B, d1, d2) still."""
    return lambda found: found[:, 0]
