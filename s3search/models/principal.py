r"""A Gaussian over images in its principal axes, and the distance a plan leaves to it.

The covariance is kept as its P leading eigenpairs V diag(l) V^T and one variance ``rest`` for
each of the other M - P directions, so that it costs P M numbers whatever the images' size.

Shapes: N images, M numbers in each, P directions, B plans.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics
from s3search.models.gaussian import eigenmode_gains
from s3search.solvers.plan import Plan, PlanBatch
from s3search.solvers.shapes import Shape

Array = npt.NDArray[np.float64]

_ROUNDING = 1e-12  # of the largest eigenvalue; what lies below is no direction of the images


@dataclass(frozen=True, eq=False, kw_only=True)
class PrincipalAxes:
    """N(mean, V diag(variances) V^T + rest (1 - V V^T)); float64, on the CPU."""

    shape: Shape
    mean: Tensor  # (M,)
    directions: Tensor  # (M, P): V, orthonormal columns
    variances: Tensor  # (P,), falling
    rest: float  # 0 where P = M

    @property
    def modes(self) -> Array:
        """The variances and the one that all other directions share, (P + 1,)."""
        return np.append(self.variances.numpy(), self.rest)

    def outside(self, x: Tensor) -> Tensor:
        """What of ``x`` (..., M) lies outside the P directions."""
        inside: Tensor = (x @ self.directions) @ self.directions.T
        return x - inside


def principal_axes(images: Tensor, n: int) -> PrincipalAxes:  # (N, ...)
    """The axes of the images' own mean and covariance; fewer than n where they span fewer."""
    x = images.detach().double().cpu().flatten(1)
    if len(x) < 2 or bool((x == x[0]).all()):
        raise IncompatibleStatistics(
            f"a covariance needs at least 2 images that differ, found {len(x)}"
        )
    mean = x.mean(0)
    centred = x - mean
    if x.shape[1] <= len(x):
        values, vectors = torch.linalg.eigh(centred.T @ centred)
    else:  # the non-zero eigenvalues are those of the smaller N x N matrix
        values, left = torch.linalg.eigh(centred @ centred.T)
        tiny = torch.finfo(values.dtype).tiny
        vectors = centred.T @ left / values.clamp(min=tiny).sqrt()
    values, vectors = values.flip(0)[:n], vectors.flip(1)[:, :n]
    spanned = values > _ROUNDING * values[0]
    variances = values[spanned] / (len(x) - 1)
    total = float(centred.square().sum()) / (len(x) - 1)
    n_rest = x.shape[1] - len(variances)
    return PrincipalAxes(
        shape=tuple(images.shape[1:]),
        mean=mean,
        directions=vectors[:, spanned].contiguous(),
        variances=variances,
        rest=max(0.0, total - float(variances.sum())) / n_rest if n_rest else 0.0,
    )


def principal_distance(plans: PlanBatch | Plan, axes: PrincipalAxes) -> Array:  # (B,)
    """Fréchet distance between what each plan makes of this Gaussian and the Gaussian itself.

    `s3search.models.gaussian.gaussian_distance` without the other M - P eigenvectors.
    """
    batch = plans if isinstance(plans, PlanBatch) else PlanBatch([plans])
    gains = eigenmode_gains(batch, axes.modes)
    n_rest = len(axes.mean) - len(axes.variances)
    multiplicity = np.append(np.ones(len(axes.variances)), n_rest)
    spread = ((gains.deviation - np.sqrt(axes.modes)) ** 2 * multiplicity).sum(1)
    mean = _parts(axes, axes.mean)
    offsets = np.empty(len(batch))
    for b, plan in enumerate(batch):
        offset = [(gains.mean[b, k] - 1.0) * part for k, part in mean]
        if plan.image is not None:
            image = _parts(axes, torch.tensor(plan.image.reshape(-1)))
            offset = [
                own + gains.image[b, k] * part
                for own, (k, part) in zip(offset, image, strict=True)
            ]
        offsets[b] = sum(float((part**2).sum()) for part in offset)
    distances: Array = spread + offsets
    return distances


def _parts(axes: PrincipalAxes, x: Tensor) -> tuple[tuple[slice | int, Array], ...]:
    """``x`` (M,) along the directions and outside them, with the modes that act on each."""
    return (slice(0, -1), (x @ axes.directions).numpy()), (-1, axes.outside(x).numpy())
