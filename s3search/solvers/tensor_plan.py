"""A plan whose weights, times and first state have derivatives: a table in an optimiser's hands.

Its rows are those of a coefficient table (coefficients.py), behind x_0 where that is not shown to
the network.  Sums are formed as products and not in place, and a weight of 0 takes part, since its
derivative is not 0.  What a row draws is given, so that images have a derivative in its weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from s3search.processes import NoiseProcess
from s3search.solvers.start_map import StartMap, jumped
from s3search.solvers.step_noise import Draws, nothing

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DrawnColumns:
    """What a table with noise has beside the columns of one without."""

    rows: tuple[int, ...]  # that draw, whatever their weight
    used: Mask  # (E + 1, E + 1), which states have a weight in a row, or a derivative
    p: Tensor  # (E + 1, E + 1), of the states that drew
    noise: Tensor  # (E + 1,)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TensorPlan:
    """A coefficient table as float64 tensors on the CPU; `CoefficientTable` has the legend."""

    process: NoiseProcess
    noise_scale: Tensor | float  # ()
    start_map: StartMap | None
    image: Tensor | None  # of a sample's shape
    hides_first: bool
    times: Tensor  # (E + 1,)
    p0: Tensor  # (E + 1,)
    q: Tensor  # (E + 1, E)
    constant: Tensor  # (E + 1,)
    network_times: Tensor  # (E,)
    drawn: DrawnColumns | None = None  # None without noise in steps

    @property
    def evaluated(self) -> Sequence[int]:
        """The state that each call sees (E,): all but the last, and an x_0 that none sees."""
        return range(self.hides_first, self.n_rows - 1)

    @property
    def noisy_rows(self) -> Sequence[int]:
        """The states that draw noise, x_0 counted."""
        return () if self.drawn is None else [r + self.hides_first for r in self.drawn.rows]

    @property
    def n_rows(self) -> int:
        """Number of states, x_0 included."""
        return len(self.times) + self.hides_first

    def first_state(self, noise: Tensor) -> Tensor:
        """x_0 (B, ...) of ``noise`` ~ N(0, I), in its dtype."""
        return jumped(self.start_map, noise * self.noise_scale)

    def next_state(
        self, states: Sequence[Tensor], predictions: Sequence[Tensor], draws: Draws = nothing
    ) -> Tensor:
        """The state (B, ...) of the next call, or the image."""
        r = len(predictions)
        x = states[0] * self.p0[r]
        if self.image is not None:
            x = x + self.constant[r] * self.image.to(x)
        for j, prediction in enumerate(predictions):
            x = x + prediction * self.q[r, j]
        if self.drawn is not None:
            for k in np.flatnonzero(self.drawn.used[r]).tolist():
                x = x + states[k + self.hides_first] * self.drawn.p[r, k]
            if r in self.drawn.rows:
                x = x + draws(len(states), x) * self.drawn.noise[r]
        return x

    def call_times(self, call: int, x: Tensor) -> Tensor:
        """The network time of this call for each image of ``x`` (B,), in its dtype."""
        return self.network_times[call].to(x).expand(len(x))
