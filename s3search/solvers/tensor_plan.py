"""A plan whose weights, times and first state have derivatives: a table in an optimiser's hands.

Its rows are those of a coefficient table (coefficients.py), behind x_0 where that is not shown to
the network.  Sums are formed as products and not in place, and a weight of 0 takes part, since its
derivative is not 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from s3search.processes import NoiseProcess
from s3search.solvers.start_map import StartMap, jumped
from s3search.solvers.step_noise import Draws, nothing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TensorPlan:
    """A coefficient table as float64 tensors on the CPU; `CoefficientTable` has the legend."""

    process: NoiseProcess
    noise_scale: Tensor | float  # ()
    start_map: StartMap | None
    image: Tensor | None  # (C, H, W)
    is_analytic: bool
    times: Tensor  # (E + 1,)
    p0: Tensor  # (E + 1,)
    q: Tensor  # (E + 1, E)
    constant: Tensor  # (E + 1,)
    network_times: Tensor  # (E,)

    @property
    def evaluated(self) -> Sequence[int]:
        """The state that each call sees (E,): all but the last, and x_0 of an analytic start."""
        return range(self.is_analytic, self.n_rows - 1)

    @property
    def noisy_rows(self) -> Sequence[int]:
        """None: a table has no noise in its steps."""
        return ()

    @property
    def n_rows(self) -> int:
        """Number of states, x_0 included."""
        return len(self.times) + self.is_analytic

    def first_state(self, noise: Tensor) -> Tensor:
        """x_0 (B, C, H, W) of ``noise`` ~ N(0, I), in its dtype."""
        return jumped(self.start_map, noise * self.noise_scale)

    def next_state(
        self, states: Sequence[Tensor], predictions: Sequence[Tensor], draws: Draws = nothing
    ) -> Tensor:
        """The state (B, C, H, W) of the next call, or the image."""
        r = len(predictions)
        x = states[0] * self.p0[r]
        if self.image is not None:
            x = x + self.constant[r] * self.image.to(x)
        for j, prediction in enumerate(predictions):
            x = x + prediction * self.q[r, j]
        return x

    def call_times(self, call: int, x: Tensor) -> Tensor:
        """The network time of this call for each image of ``x`` (B,), in its dtype."""
        return self.network_times[call].to(x).expand(len(x))
