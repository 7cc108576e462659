"""Classifier-free guidance: two answers of the network in one doubled batch.

    F = F_null + w (F_given - F_null)                  arXiv:2207.12598v1, eq. 6, with their w + 1

In an interval of times only (arXiv:2404.07724): outside it F = F_given, at half the cost.  Some
pipelines combine the two answers in a way of their own (`Combine`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.processes import NoiseProcess
from s3search.solvers.shapes import over_the_rest

Combine = Callable[[Tensor, Tensor, float], Tensor]
"""(F_null, F_given, scale) -> F, (B, C, ...) each."""

_TILE = 2  # places a side of Qwen's tokens


def from_null(without: Tensor, given: Tensor, scale: float) -> Tensor:
    """F_null + w (F_given - F_null)."""
    return without + scale * (given - without)


def beyond_given(without: Tensor, given: Tensor, scale: float) -> Tensor:
    """F_given + w (F_given - F_null): Z-Image's, which counts w from F_given."""
    return given + scale * (given - without)


def normalised(without: Tensor, given: Tensor, scale: float) -> Tensor:
    """`from_null` with each token's norm, over its 2 x 2 places, that of F_given: Qwen-Image's."""
    guided = from_null(without, given, scale)
    ratio = (_token_squares(given) / _token_squares(guided)).sqrt()
    return guided * ratio.repeat_interleave(_TILE, -1).repeat_interleave(_TILE, -2)


def _token_squares(f: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, H/2, W/2)
    squares = f.square().sum(1, keepdim=True)
    n, one, height, width = squares.shape
    return squares.reshape(n, one, height // _TILE, _TILE, width // _TILE, _TILE).sum((3, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """How far and when answers are moved away from those to the null condition."""

    scale: float = 1.0  # 1: not at all
    interval: tuple[float, float] | None = None  # least and largest time, in the process's unit
    combine: Combine = from_null

    @property
    def is_on(self) -> bool:
        """Whether any call may be guided."""
        return self.scale != 1.0

    def network_batches(self, times: Sequence[float]) -> int:
        """Batches of images that calls at these times send through the network."""
        low, high = self.interval or (-math.inf, math.inf)
        return sum(2 if self.is_on and low <= t <= high else 1 for t in times)

    def answer(
        self, t: Tensor, plain: Callable[[], Tensor], doubled: Callable[[], Tensor]
    ) -> Tensor:
        """F at times ``t`` (B,); ``plain`` gives F_given (B, ...), ``doubled`` F_null and F_given
        (2B, ...).
        """
        if not self.is_on:
            return plain()
        if self.interval is None:
            return self._guided(doubled())
        low, high = self.interval
        inside = (t >= low) & (t <= high)
        if not bool(inside.any()):
            return plain()
        both = doubled()
        where = over_the_rest(inside, both).bool()
        return torch.where(where, self._guided(both), both.chunk(2)[1])

    def _guided(self, both: Tensor) -> Tensor:
        without, given = both.chunk(2)
        return self.combine(without, given, self.scale)


def parse_guidance(
    scale: float, interval: Sequence[float] | None, process: NoiseProcess
) -> Guidance:
    """Guidance, combined `from_null`, from the keys of a study file; raises `InvalidConfig`."""
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 1 <= scale < math.inf:
        raise InvalidConfig(
            f"guidance_scale: needs a number of at least 1 (1 is no guidance), found {scale!r}"
        )
    if interval is None:
        return Guidance(scale=float(scale))
    start, end = process.time_range
    numbers = [t for t in interval if isinstance(t, int | float) and math.isfinite(t)]
    if len(numbers) != len(interval) or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise InvalidConfig(
            "guidance_interval: needs two times, the smaller one first, in the process's unit "
            f"({process.type}: {start:g} to {end:g}), found {interval!r}"
        )
    if scale == 1:
        raise InvalidConfig(
            "guidance_interval: without guidance there is nothing to limit; set guidance_scale "
            "above 1 or leave guidance_interval out"
        )
    return Guidance(scale=float(scale), interval=(float(numbers[0]), float(numbers[1])))
