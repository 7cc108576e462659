"""The noise of steps as flat parameters.

    noise           none, or in some of the steps
    noise_i         the kind of step i, or none
    noise_amount_i  the share of the kind's range
    noise_scale_i   the factor on the noise, where it has a range

The last two are asked for whether they apply or not, since CMA-ES needs a fixed set of numbers.
"""

import math
from collections.abc import Sequence
from typing import Protocol

from s3search.rules import NoiseKind, StepNoise
from s3search.search.space import SpaceConfig
from s3search.search.space.choices import NONE

_SOME = "some"


class Parameters(Protocol):
    """Where the parameters of a schedule come from."""

    def number(self, name: str, low: float, high: float) -> float:
        """A number between low and high."""

    def word(self, name: str, words: Sequence[str]) -> str:
        """One of the words."""


def decoded_noises(values: Parameters, space: SpaceConfig, n: int) -> list[StepNoise | None]:
    """What the values write for ``n`` steps; nothing is asked where the space has no noise."""
    own = space.noise
    if not own.is_on:
        return [None] * n
    low, high = own.scales
    shares = [values.number(f"noise_amount_{i}", 0.0, 1.0) for i in range(n)]
    scales = [low] * n
    if low < high:
        scales = [values.number(f"noise_scale_{i}", low, high) for i in range(n)]
    if values.word("noise", (NONE, _SOME)) == NONE:
        return [None] * n
    kinds = (NONE, *(kind.value for kind in own.ranges))
    noises: list[StepNoise | None] = []
    for i, (share, scale) in enumerate(zip(shares, scales, strict=True)):
        word = values.word(f"noise_{i}", kinds)
        if word == NONE:
            noises.append(None)
            continue
        kind = NoiseKind(word)
        least, most = own.ranges[kind]
        noises.append(StepNoise(kind=kind, amount=least + share * (most - least), scale=scale))
    return noises


def noise_params(
    noises: Sequence[StepNoise | None], space: SpaceConfig, n: int
) -> dict[str, float | str]:
    """The values that write these noises, of ``n`` steps at most."""
    own = space.noise
    if not own.is_on:
        return {}
    low, high = own.scales
    params: dict[str, float | str] = {"noise": _SOME if any(noises) else NONE}
    padded = [*noises, *[None] * (n - len(noises))]
    for i, noise in enumerate(padded):
        params[f"noise_{i}"] = NONE if noise is None else noise.kind.value
        least, most = own.ranges.get(noise.kind, (0.0, 1.0)) if noise is not None else (0.0, 0.0)
        amount = least if noise is None else noise.amount
        params[f"noise_amount_{i}"] = (amount - least) / (most - least) if most > least else 0.0
        params[f"noise_scale_{i}"] = min(max(1.0, low), high) if noise is None else noise.scale
    return params


def same_noise(a: StepNoise | None, b: StepNoise | None) -> bool:
    """Whether they are equal but for rounding."""
    if a is None or b is None:
        return a is b
    return (
        a.kind is b.kind
        and math.isclose(a.amount, b.amount, abs_tol=1e-9)
        and math.isclose(a.scale, b.scale, abs_tol=1e-9)
    )
