r"""What a network's answer stands for, and denoisers made of networks that answer something else.

With x = alpha x_0 + sigma eps and r = sqrt(alpha^2 + sigma^2), an answer F at (x, t) is

    sample     x_0                               D = F
    epsilon    eps                               D = (x - sigma F) / alpha
    v          (alpha eps - sigma x_0) / r       D = (alpha x - sigma r F) / r^2
    velocity   eps - x_0                         D = (x - sigma F) / (alpha + sigma)
    score      grad log p_t(x) = -eps / sigma    D = (x + sigma^2 F) / alpha

(v: arXiv:2202.00512, app. D, where r = 1; velocity: arXiv:2210.02747 with t = 1 for noise, so that
it points from the image to the noise).  All are D = a x + b F.

At alpha = 0 (pure noise) epsilon and score say nothing of the image.  There, and wherever alpha
is below 1/1000, the state is taken for one at the time of alpha = 1/1000, and so the network is
asked: the limit of D up to a thousandth.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.models.given import GivenCallable, GivenModule
from s3search.processes import NOISE_PROCESSES, NoiseProcess
from s3search.solvers.sample import Denoiser
from s3search.solvers.shapes import checked_shape, over_the_rest, without_variance

Number = TypeVar("Number", float, Tensor)

NetworkTime = float | Callable[[Tensor], Tensor]
"""What the network reads for the process's time (B,): a multiple of it, or a function's value."""

_LEAST_ALPHA = 1e-3


class Output(StrEnum):
    """What a network's answer F stands for, by the names of diffusers' configs."""

    EPSILON = "epsilon"
    SAMPLE = "sample"
    V = "v_prediction"
    FLOW = "flow_prediction"
    SCORE = "score"


def weights_of(output: Output, alpha: Number, sigma: Number) -> tuple[Number, Number]:
    """a, b with D = a x + b F, for numbers or tensors; infinite where there are none."""
    match output:
        case Output.SAMPLE:
            return 0.0 * sigma, 0.0 * sigma + 1.0
        case Output.EPSILON:
            return 1.0 / alpha, -sigma / alpha
        case Output.V:
            square = alpha * alpha + sigma * sigma
            return alpha / square, -sigma / square**0.5
        case Output.FLOW:
            return 1.0 / (alpha + sigma), -sigma / (alpha + sigma)
        case Output.SCORE:
            return 1.0 / alpha, sigma * sigma / alpha


def from_epsilon(
    network: Callable[..., Any],
    process: NoiseProcess,
    *,
    sample_shape: Sequence[int] | None = None,
    time: NetworkTime = 1.0,
    sigma_data: float | None = None,
) -> Denoiser:
    """The denoiser of a network that answers epsilon, the noise in x.

    ``network(x, t, **condition)`` may also return an object with ``sample``, or twice the channels
    (of a variance, which is left out).  ``time`` is what it reads for the process's time: a
    multiple, or a function.  With ``sigma_data`` s it sees x / sqrt(alpha^2 s^2 + sigma^2): EDM's
    input scale; 1.0 for networks of variance preserving states that are searched in `edm`.

    >>> denoiser = from_epsilon(unet, vp_linear(), sample_shape=(3, 32, 32), time=999.0)
    """
    return _adapted(network, process, Output.EPSILON, sample_shape, time, sigma_data)


def from_v(
    network: Callable[..., Any],
    process: NoiseProcess,
    *,
    sample_shape: Sequence[int] | None = None,
    time: NetworkTime = 1.0,
    sigma_data: float | None = None,
) -> Denoiser:
    """The denoiser of a network that answers v = alpha eps - sigma x_0, over the root of alpha^2 +
    sigma^2; `from_epsilon` explains the keywords.
    """
    return _adapted(network, process, Output.V, sample_shape, time, sigma_data)


def from_velocity(
    network: Callable[..., Any],
    process: NoiseProcess,
    *,
    sample_shape: Sequence[int] | None = None,
    time: NetworkTime = 1.0,
    sigma_data: float | None = None,
) -> Denoiser:
    """The denoiser of a network that answers the velocity eps - x_0, towards the noise, as
    rectified flows do; `from_epsilon` explains the keywords.

    A network whose time runs from noise to image answers x_0 - eps at 1 - t: give
    ``lambda x, t: -net(x, 1 - t)``.
    """
    return _adapted(network, process, Output.FLOW, sample_shape, time, sigma_data)


def from_score(
    network: Callable[..., Any],
    process: NoiseProcess,
    *,
    sample_shape: Sequence[int] | None = None,
    time: NetworkTime = 1.0,
    sigma_data: float | None = None,
) -> Denoiser:
    """The denoiser of a network that answers the score, -eps / sigma; `from_epsilon` explains the
    keywords.
    """
    return _adapted(network, process, Output.SCORE, sample_shape, time, sigma_data)


def from_sample(
    network: Callable[..., Any],
    process: NoiseProcess,
    *,
    sample_shape: Sequence[int] | None = None,
    time: NetworkTime = 1.0,
    sigma_data: float | None = None,
) -> Denoiser:
    """The denoiser of a network that answers the clean image and is asked at other times, or sees
    another scale; `from_epsilon` explains the keywords.
    """
    return _adapted(network, process, Output.SAMPLE, sample_shape, time, sigma_data)


class AdaptedCallable(GivenCallable):
    """A callable that answers something else than the clean image, as a denoiser."""

    output: Output
    time: NetworkTime
    sigma_data: float | None

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The clean image expected behind ``x``, in its shape and dtype."""
        return _clean_image(self, x, t, condition)


class AdaptedModule(GivenModule):
    """A module that answers something else than the clean image, as a denoiser."""

    output: Output
    time: NetworkTime
    sigma_data: float | None

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The clean image expected behind ``x``, in its shape and dtype."""
        return _clean_image(self, x, t, condition)


Adapted = AdaptedCallable | AdaptedModule


def with_time(denoiser: Adapted, time: NetworkTime) -> Adapted:
    """An adapted network that is asked at other times."""
    shape, scale = denoiser.sample_shape, denoiser.sigma_data
    return _adapted(denoiser.network, denoiser.process, denoiser.output, shape, time, scale)


def _adapted(  # one parameter per keyword
    network: Callable[..., Any],
    process: NoiseProcess,
    output: Output,
    sample_shape: Sequence[int] | None,
    time: NetworkTime,
    sigma_data: float | None,
) -> Adapted:
    if not callable(network) or not isinstance(process, NOISE_PROCESSES):
        raise InvalidConfig(
            f"from_{_WORDS[output]}: needs a network and one of s3search.processes, found "
            f"{type(network).__name__} and {process!r}"
        )
    shape = getattr(network, "sample_shape", None) if sample_shape is None else sample_shape
    if shape is None:
        raise InvalidConfig(f"from_{_WORDS[output]}: give sample_shape=(C, H, W)")
    own = checked_shape(shape, f"from_{_WORDS[output]}: sample_shape")
    kind = AdaptedModule if isinstance(network, nn.Module) else AdaptedCallable
    made: Any = kind(network, process, own)
    made.output, made.time, made.sigma_data = output, time, sigma_data
    return made  # type: ignore[no-any-return]


_WORDS = {
    Output.EPSILON: "epsilon",
    Output.SAMPLE: "sample",
    Output.V: "v",
    Output.FLOW: "velocity",
    Output.SCORE: "score",
}
"""The adapters' names."""


def adapter_of(output: Output) -> str:
    """The name of the function here for networks of this output."""
    return f"from_{_WORDS[output]}"


def _clean_image(denoiser: Any, x: Tensor, t: Tensor, condition: dict[str, Any]) -> Tensor:
    """D = a x + b F, with a and b computed in float64."""
    process, output, sigma_data = denoiser.process, denoiser.output, denoiser.sigma_data
    t = t.clamp(max=_latest(process, output))
    wide = t.double()
    alpha, sigma = process.alpha(wide), process.sigma(wide)
    seen = x
    if sigma_data is not None:
        scale = torch.rsqrt((alpha * sigma_data) ** 2 + sigma**2)
        seen = x * over_the_rest(scale, x)
    at = denoiser.time(t) if callable(denoiser.time) else t * denoiser.time
    f = _tensor_of(denoiser.network(seen, at, **condition), x)
    a, b = (over_the_rest(each, x) for each in weights_of(output, alpha, sigma))
    clean: Tensor = a * x + b * f
    return clean


def _latest(process: NoiseProcess, output: Output) -> float:
    """The noisiest time at which the output says something of the image."""
    end = process.time_range[1]
    is_blind = output in (Output.EPSILON, Output.SCORE) and process.alpha(end) < _LEAST_ALPHA
    return process.time_of_lam(math.log(_LEAST_ALPHA)) if is_blind else math.inf


def _tensor_of(answer: Any, x: Tensor) -> Tensor:
    """The answer in the dtype of ``x``, without what a network may add to it."""
    found = answer if isinstance(answer, Tensor) else getattr(answer, "sample", None)
    if not isinstance(found, Tensor):
        raise InvalidConfig(
            f"the network returned a {type(answer).__name__}; an adapter takes a tensor, or an "
            "object whose `sample` is one"
        )
    return without_variance(found, x).to(x.dtype)
