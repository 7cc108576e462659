r"""The Gaussian jump: the first leg of the trajectory in closed form, with no network call.

At high noise all data look like one Gaussian, x_0 ~ N(mu, Sigma), whose probability flow is known
(arXiv:2412.09726).  With l_k, u_k the eigenvalues and unit eigenvectors of Sigma that are kept, r
the variance of every other direction, and from T to t:

    x_t = alpha_t mu + (g(r) + sum_k (g(l_k) - g(r)) u_k u_k^T) (x_T - alpha_T mu)
    g(l) = sqrt((sigma_t^2 + alpha_t^2 l) / (sigma_T^2 + alpha_T^2 l))

A schedule with a jump starts at t = times[0]; T is the jump's ``from_time``.  Without eigenvectors
and with r = 0 it is the first-order step that has D = mu (`average_x0`; `zero_x0` for mu = 0).
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from s3search.rules import Number, NumberArray

MOST_SKEWED = 1e-6  # statistics rounded to float32 are still taken


def skewness(vectors: npt.NDArray[np.float64]) -> float:
    """How far rows are from orthonormal ones: the largest entry of U U^T - 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.abs(vectors @ vectors.T - np.eye(len(vectors)))
    return float(found.max(initial=0.0))


class GaussianJump(BaseModel):
    """Where the jump starts, and the Gaussian; M numbers in a sample, K directions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    from_time: Number
    mean: NumberArray  # of the samples' shape
    eigenvalues: tuple[Number, ...] = ()  # (K,)
    eigenvectors: tuple[tuple[Number, ...], ...] = ()  # (K, M): one unit vector per row
    rest: Number = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _statistics_fit(self) -> "GaussianJump":
        n_pixels = np.array(self.mean).size
        if len(self.eigenvalues) != len(self.eigenvectors) or min(self.eigenvalues, default=0) < 0:
            raise ValueError(
                f"one eigenvalue >= 0 per eigenvector is needed, found {len(self.eigenvalues)} "
                f"for {len(self.eigenvectors)}"
            )
        if any(len(row) != n_pixels for row in self.eigenvectors):
            raise ValueError(f"a mean of {n_pixels} pixels needs eigenvectors of as many")
        if self.eigenvectors:
            error = skewness(np.array(self.eigenvectors))
            if not error <= MOST_SKEWED:
                raise ValueError(f"eigenvectors are not orthonormal (off by {error:.1e})")
        return self
