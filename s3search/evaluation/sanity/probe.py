r"""How near a denoiser's answers are to clean images, noised at a few levels.

With s = sigma / alpha and v the variance of a pixel over the images, the best that any multiple of
the state can do is a mean square error of

    bound(s) = v s^2 / (v + s^2)

An error is counted in units of it: a denoiser of structured images has less than one everywhere,
the state itself has one at little noise, and the mean of the images one at much.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from s3search.processes import NoiseProcess, VpDiscrete, usual_end_time
from s3search.schedules import published
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample

_LEVELS = (0.1, 0.3, 1.0, 3.0)  # s in units of the images' spread, the root of v
_NOISY = 10.0  # the level at which little of an image is left
_FEW_LEVELS = 3  # of them where an image may not belong to its condition
_SOLVE_NFE = 8  # calls of a model's own solve
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelError:
    """The mean square error of a denoiser at one noise level."""

    t: float
    ratio: float  # sigma / alpha
    square: float  # infinite where an answer is not finite
    units: float  # square over the bound


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """Clean images (B, ...), what they are conditioned on, and the noise of all levels."""

    images: Tensor
    noise: Tensor
    condition: Mapping[str, Tensor]
    is_own: bool = False  # the images are what the model itself makes of the noise

    @property
    def variance(self) -> float:
        """v of the module."""
        several = self.images.double()
        found = float(several.var(dim=0).mean()) if len(several) > 1 else float(several.var())
        return max(found, _LEAST_VARIANCE) if math.isfinite(found) else 1.0

    def times(self, process: NoiseProcess) -> list[float]:
        """A time for each level, the cleanest first, as far as the process goes."""
        levels = _LEVELS[:_FEW_LEVELS] if self.condition else _LEVELS
        return list(dict.fromkeys(self._time(process, level) for level in levels))

    def noisy_time(self, process: NoiseProcess) -> float:
        """A time at which a denoiser knows little more than the mean."""
        return self._time(process, _NOISY)

    def _time(self, process: NoiseProcess, level: float) -> float:
        low, high = usual_end_time(process), process.time_range[1]
        t = process.time_of_lam(-math.log(level * self.variance**0.5))
        t = min(max(t, low), high)
        return float(round(t)) if isinstance(process, VpDiscrete) else t

    def state(self, process: NoiseProcess, t: float) -> Tensor:
        """The noised images at a time."""
        return process.alpha(t) * self.images + process.sigma(t) * self.noise

    def answer(self, denoiser: Any, t: float) -> Tensor:
        """What a denoiser makes of the noised images."""
        return asked(denoiser, self.state(denoiser.process, t), t, self.condition)

    def errors(self, denoiser: Any) -> list[LevelError]:
        """The denoiser's errors at all levels; one network call each."""
        return [self.error(denoiser, t) for t in self.times(denoiser.process)]

    def error(self, denoiser: Any, t: float) -> LevelError:
        """The denoiser's error at one level."""
        answer, process = self.answer(denoiser, t), denoiser.process
        square = float((answer - self.images).double().square().mean())
        ratio = process.sigma(t) / max(process.alpha(t), 1e-6)
        bound = self.variance * ratio**2 / (self.variance + ratio**2)
        square = square if math.isfinite(square) else math.inf
        return LevelError(t=t, ratio=ratio, square=square, units=square / bound)

    def solved(self, denoiser: Any) -> "Probe":
        """The images that a denoiser makes itself, with other noise to put on them."""
        end = published.End(rule=published.EndRule.DENOISE)
        schedule = published.dpmpp_2m(denoiser.process, nfe=_SOLVE_NFE, end=end)
        images = sample(denoiser, compile_plan(schedule), self.noise, **self.condition)
        return replace(self, images=images, noise=self.noise.roll(1, 0), is_own=True)


def asked(denoiser: Any, x: Tensor, t: float, condition: Mapping[str, Tensor]) -> Tensor:
    """The denoiser's answer for states that are all at one time."""
    found: Tensor = denoiser(x, x.new_full((len(x),), t), **condition)
    return found


class Remembered:
    """A denoiser that is asked once for each time and state."""

    def __init__(self, denoiser: Any) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self.denoiser = denoiser
        self._known: dict[float, list[tuple[Tensor, Tensor]]] = {}  # by time: states and answers

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        known = self._known.setdefault(float(t[0]), [])
        for state, answer in known:
            if torch.equal(state, x):
                return answer
        known.append((x, self.denoiser(x, t, **condition)))
        return known[-1][1]
