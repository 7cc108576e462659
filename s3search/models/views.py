r"""A denoiser seen under another noise process: the same network, the same answers.

With P the process of the view and Q the network's own, a state (x, t) of P is the state

    t_Q: lam_Q(t_Q) = lam_P(t)          s = sqrt((alpha_Q^2 + sigma_Q^2) / (alpha_P^2 + sigma_P^2))
    x_Q = s x                           D_P(x, t) = D_Q(x_Q, t_Q)

since at equal lam alpha and sigma differ by one factor.  So a schedule of Q that is retimed
(`s3search.schedules.retime`) makes the same images of the same noise in the view.  Levels beyond
those that the network may be called at are told it as the nearest of them.

Derivatives in x are exact, and those in t follow the slope of t_Q at t, 0 where it is clamped.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s3search.models.given import GivenCallable, GivenModule
from s3search.processes import NoiseProcess
from s3search.solvers.sample import Denoiser
from s3search.solvers.shapes import over_the_rest
from s3search.solvers.trainable import trained_range

_OF_ITS_PROCESS = ("output", "own_sampler", "pipeline")  # which the view does not have


def seen_as(denoiser: Denoiser, process: NoiseProcess) -> Denoiser:
    """``denoiser`` under ``process``; itself where that is its own.

    It has what else the denoiser has (``condition``, ``decode``, guidance), but no pipeline and no
    sampler of its own: those run under the denoiser's process.

    >>> flow_of_edm = seen_as(digits.load(), flow())
    """
    if denoiser.process == process:
        return denoiser
    kind = _ViewedModule if isinstance(denoiser, nn.Module) else _ViewedCallable
    return kind(denoiser, process, denoiser.sample_shape)


class _ViewedCallable(GivenCallable):
    """The view of a denoiser that is no module."""

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """D at (x, t) of the view, shape and dtype of ``x``."""
        return _denoised(self, x, t, condition)

    def __getattr__(self, name: str) -> Any:
        """Attributes that only the denoiser has."""
        return _translated(self, name, super().__getattr__)


class _ViewedModule(GivenModule):
    """The view of a denoiser that is a module."""

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """D at (x, t) of the view, shape and dtype of ``x``."""
        return _denoised(self, x, t, condition)

    def __getattr__(self, name: str) -> Any:
        """Attributes that only the denoiser has."""
        return _translated(self, name, super().__getattr__)


def _denoised(view: Any, x: Tensor, t: Tensor, condition: dict[str, Any]) -> Tensor:
    inner, process = view.network, view.process
    wide = t.double()
    there = _time_of_equal_lam(process, inner.process, wide)
    scale = _size(inner.process, there) / _size(process, wide)
    answer: Tensor = inner(over_the_rest(scale, x) * x, there.to(t), **condition)
    return answer


def _time_of_equal_lam(source: NoiseProcess, target: NoiseProcess, t: Tensor) -> Tensor:
    """The times (B,) of ``target`` with the lam of ``t``; each different time is looked up once,
    since a call has mostly one.
    """
    each, places = torch.unique(t.detach(), return_inverse=True)
    found = [_clamped(source, target, at) for at in each.tolist()]
    there: Tensor = each.new_tensor([time for time, _ in found])[places]
    if not t.requires_grad:
        return there
    slopes = each.new_tensor(
        [_slope(source, target, at, *own) for at, own in zip(each.tolist(), found, strict=True)]
    )
    followed: Tensor = there + (t - t.detach()) * slopes[places]
    return followed


def _clamped(source: NoiseProcess, target: NoiseProcess, t: float) -> tuple[float, bool]:
    """The time of ``target`` with the lam of ``t``, and whether it is one of its own."""
    lam = source.lam(t)
    cleanest, noisiest = trained_range(target)
    if lam >= target.lam(cleanest):
        return cleanest, lam == target.lam(cleanest)
    if lam <= target.lam(noisiest):
        return noisiest, lam == target.lam(noisiest)
    return target.time_of_lam(lam), True


def _slope(
    source: NoiseProcess, target: NoiseProcess, t: float, there: float, is_own: bool
) -> float:
    """d t_Q / d t at equal lam."""
    return _lam_slope(source, t) / _lam_slope(target, there) if is_own else 0.0


def _lam_slope(process: NoiseProcess, t: float) -> float:
    with torch.enable_grad():
        at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        lam = torch.log(process.alpha(at)) - torch.log(process.sigma(at))
        (slope,) = torch.autograd.grad(lam, at)
    return float(slope)


def _size(process: NoiseProcess, t: Tensor) -> Tensor:
    """The size of the states, whatever is in them."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    return torch.sqrt(alpha * alpha + sigma * sigma)


def _translated(view: Any, name: str, found: Callable[[str], Any]) -> Any:
    """What the denoiser has, with processes and times those of the view."""
    if name in _OF_ITS_PROCESS:
        raise AttributeError(name)
    own = found(name)
    if name == "with_guidance":
        return lambda scales: seen_as(own(scales), view.process)
    if name == "network_batches":
        return lambda times: own(_times(view, times))
    return own


def _times(view: Any, times: Sequence[float]) -> list[float]:
    return [_clamped(view.process, view.network.process, t)[0] for t in times]
