"""The affine map of a Gaussian jump, applied to the scaled noise before a plan's table.

x_0 = offset + gain x_T + sum_k gains[k] u_k (u_k . x_T),      x_T = noise_scale noise
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.processes import NoiseProcess
from s3search.rules import Level, level
from s3search.schedules.jump import GaussianJump
from s3search.schedules.schedule import Start

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StartMap:
    """The affine map of one jump; the module's docstring has the legend."""

    offset: Array  # of a sample's shape
    gain: float
    gains: Array  # (K,): beyond ``gain``
    directions: Array  # (K, M)

    def to_dict(self) -> dict[str, Any]:
        """The map as JSON holds it."""
        return {
            "offset": self.offset.tolist(),
            "gain": self.gain,
            "gains": self.gains.tolist(),
            "directions": self.directions.tolist(),
        }


def noise_scale_of(start: Start, process: NoiseProcess, first: Level) -> float:
    """What a run multiplies unit noise by: sigma at ``first``, the level of times[0], or at the
    level that the jump comes from, unless the start says another scale.
    """
    if start.noise_scale is not None:
        return start.noise_scale
    return first.sigma if start.jump is None else level(process, start.jump.from_time).sigma


def start_map_of(jump: GaussianJump | None, process: NoiseProcess, to: Level) -> StartMap | None:
    """The map of ``jump``, if there is one, to the first level of a plan."""
    if jump is None:
        return None
    source = level(process, jump.from_time)

    def gain(values: Array) -> Array:
        spread = (to.sigma**2 + to.alpha**2 * values) / (
            source.sigma**2 + source.alpha**2 * values
        )
        root: Array = np.sqrt(spread)
        return root

    mean = np.array(jump.mean)
    directions = np.array(jump.eigenvectors).reshape(-1, mean.size)
    rest = float(gain(np.array(jump.rest)))
    gains = gain(np.array(jump.eigenvalues)) - rest
    flat = mean.reshape(-1)
    carried = rest * flat + (gains * (directions @ flat)) @ directions
    return StartMap(
        offset=to.alpha * mean - source.alpha * carried.reshape(mean.shape),
        gain=rest,
        gains=gains,
        directions=directions,
    )


def jumped(start_map: StartMap | None, x: Tensor) -> Tensor:  # (B, ...)
    """A plan's first state from the scaled noise ``x``: that itself where there is no map."""
    if start_map is None:
        return x
    offset, gains, u = (
        torch.as_tensor(array, dtype=x.dtype, device=x.device)
        for array in (start_map.offset, start_map.gains, start_map.directions)
    )
    flat = x.flatten(1)
    moved = start_map.gain * flat + (gains * (flat @ u.T)) @ u
    return offset + moved.reshape(x.shape)
