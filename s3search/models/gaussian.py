r"""Denoisers in closed form, and what a plan makes of Gaussian data without any network call.

For data x_0 ~ N(mu, Sigma), Sigma = U diag(l) U^T, everything is exact, mode by mode:

    D(x, t)        = mu + U diag(k) U^T (x - alpha mu),     k = alpha l / (alpha^2 l + sigma^2)
    x_s -> x_t     : alpha_t mu + U diag(g) U^T (x_s - alpha_s mu),
                     g = sqrt((sigma_t^2 + alpha_t^2 l) / (sigma_s^2 + alpha_s^2 l))

The second line is the probability flow (arXiv:2412.09726 jumps along it).  Since D is affine and a
plan is linear in states and predictions, a plan maps the initial unit noise z to

    x_end = G_noise z + G_mean mu + G_image c + sum_r G_r xi_r,     all G diagonal in the basis U

(c: the plan's constant image, xi_r: what row r draws), so that what it makes is again Gaussian,
with variance G_noise^2 + sum_r G_r^2 along each mode, and its Frechet distance to the data is a
sum over modes.

Shapes: B samples or plans, M modes, the numbers in a sample, K components.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics
from s3search.processes import NoiseProcess
from s3search.solvers.plan import Plan, PlanBatch
from s3search.solvers.shapes import SHAPES, Shape

Array = npt.NDArray[np.float64]


class GaussianDenoiser:
    """The exact denoiser of N(mean, Sigma) data.

    ``eigenvalues`` (M,) belong to the columns of ``eigenvectors`` (M, M); without eigenvectors the
    covariance is diagonal and the eigenvalues are the variances of the flattened pixels.
    """

    def __init__(
        self,
        process: NoiseProcess,
        mean: Tensor,  # of the samples' shape
        eigenvalues: Tensor,  # (M,)
        eigenvectors: Tensor | None = None,  # (M, M)
    ) -> None:
        n_modes = mean.numel()
        if eigenvalues.shape != (n_modes,) or bool((eigenvalues < 0).any()):
            raise IncompatibleStatistics(
                f"a mean of {n_modes} pixels needs {n_modes} eigenvalues >= 0, "
                f"found shape {tuple(eigenvalues.shape)}"
            )
        if eigenvectors is not None and eigenvectors.shape != (n_modes, n_modes):
            raise IncompatibleStatistics(
                f"eigenvectors must be {(n_modes, n_modes)}, found {tuple(eigenvectors.shape)}"
            )
        self.process = process
        self.sample_shape = _shape_of(mean)
        self.mean = mean.double().flatten()
        self.eigenvalues = eigenvalues.double()
        self.eigenvectors = None if eigenvectors is None else eigenvectors.double()

    @staticmethod
    def of_covariance(
        process: NoiseProcess, mean: Tensor, covariance: Tensor
    ) -> "GaussianDenoiser":  # the samples' shape, (M, M)
        """The denoiser for a full covariance; negative rounding of its eigenvalues is cut off."""
        values, vectors = torch.linalg.eigh(covariance.double())
        return GaussianDenoiser(process, mean, values.clamp(min=0.0), vectors)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:  # (B, ...), (B,)
        """D(x, t): the mean of x_0 given x; takes no condition."""
        _refuse(condition)
        alpha, sigma = _level_columns(self.process, t, x)
        l_ = self.eigenvalues.to(x)
        k = alpha * l_ / (alpha * alpha * l_ + sigma * sigma)
        mean = self.mean.to(x)
        return self._along_modes(x, mean, alpha * mean, k)

    def exact_flow(self, x: Tensor, s: float, t: float) -> Tensor:
        """The state at time ``t`` on the probability flow through ``x`` at time ``s``."""
        alpha_s, sigma_s = self.process.alpha(s), self.process.sigma(s)
        alpha_t, sigma_t = self.process.alpha(t), self.process.sigma(t)
        l_, mean = self.eigenvalues, self.mean
        g = torch.sqrt((sigma_t**2 + alpha_t**2 * l_) / (sigma_s**2 + alpha_s**2 * l_)).to(x)
        return self._along_modes(x, (alpha_t * mean).to(x), (alpha_s * mean).to(x), g)

    def _along_modes(self, x: Tensor, base: Tensor, centre: Tensor, gain: Tensor) -> Tensor:
        """base + U diag(gain) U^T (x - centre), in the shape of x."""
        y = x.flatten(1) - centre
        if self.eigenvectors is None:
            y = gain * y
        else:
            u = self.eigenvectors.to(x)
            y = (gain * (y @ u)) @ u.T
        return (base + y).reshape(x.shape)


class GaussianMixture:
    """The exact denoiser of a mixture of isotropic Gaussians N(means[k], stds[k]^2 I).

    With v_k = alpha^2 s_k^2 + sigma^2 and r the posterior probabilities of the components,
    D = sum_k r_k (sigma^2 m_k + alpha s_k^2 x) / v_k; valid at alpha = 0 too.
    """

    def __init__(
        self,
        process: NoiseProcess,
        means: Tensor,  # (K, ...)
        stds: Tensor,  # (K,)
        weights: Tensor,  # (K,)
    ) -> None:
        self.process = process
        self.sample_shape = _shape_of(means[0])
        self.means = means.double().flatten(1)
        self.stds = stds.double()
        self.weights = weights.double()

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:  # (B, ...), (B,)
        """D(x, t): the mean of x_0 given x; takes no condition."""
        _refuse(condition)
        alpha, sigma = _level_columns(self.process, t, x)
        means, variances = self.means.to(x), self.stds.to(x) ** 2
        flat = x.flatten(1)
        v = alpha * alpha * variances + sigma * sigma  # (B, K)
        distances = (flat[:, None] - alpha[:, None] * means).square().sum(-1)
        log_p = self.weights.to(x).log() - distances / (2 * v) - 0.5 * flat.shape[1] * v.log()
        r = log_p.softmax(-1) / v
        images = r @ means * sigma**2 + flat * alpha * (r * variances).sum(-1, keepdim=True)
        return images.reshape(x.shape)


class EigenmodeGains(NamedTuple):
    """Factors (B, M) by which plans carry unit noise, the data's mean and their constant image
    into the final state, and those (B, K, M) of what their noisy rows draw, in turn; 0 where a
    plan draws less often.
    """

    noise: Array
    mean: Array
    image: Array
    draws: Array

    @property
    def deviation(self) -> Array:  # (B, M)
        """The standard deviation of the final state."""
        if not self.draws.shape[1]:
            return np.abs(self.noise)
        found: Array = np.sqrt(self.noise**2 + (self.draws**2).sum(1))
        return found


def eigenmode_gains(plans: PlanBatch | Plan, eigenvalues: Array) -> EigenmodeGains:
    """What each plan does to each eigenmode (M,) of Gaussian data, run with the exact denoiser.

    One vectorised pass over the stacked tables: about R^2 B M (3 + K) operations, no network call.
    """
    batch = plans if isinstance(plans, PlanBatch) else PlanBatch([plans])
    if any(plan.start_map is not None for plan in batch):
        raise IncompatibleStatistics(
            "a plan with a Gaussian jump mixes the modes by its own eigenvectors; measure it by "
            "sampling"
        )
    n_plans, n_rows, _ = batch.p.shape
    n_modes = len(eigenvalues)
    alpha, sigma = _call_levels(batch)  # (B, E)
    shrink = alpha[..., None] * eigenvalues
    shrink = shrink / (alpha[..., None] * shrink + sigma[..., None] ** 2)  # (B, E, M): k
    drawn = np.cumsum(batch.noise != 0.0, axis=1)  # (B, R): how often, up to each row
    n_parts = 3 + int(drawn.max(initial=0))  # noise, mean, image, draws
    states = np.zeros((n_plans, n_rows, n_parts, n_modes))
    answers = np.zeros((n_plans, batch.q.shape[2], n_parts, n_modes))
    every = np.arange(n_plans)
    start = np.array([plan.noise_scale for plan in batch])
    for r in range(n_rows):
        states[:, r] = _weighted(batch.p[:, r, :r], states[:, :r])
        states[:, r] += _weighted(batch.q[:, r], answers)
        states[:, r, 2] += batch.constant[:, r, None]
        begins = every[batch.first_row == r]
        states[begins, r, 0] = start[begins, None]
        noisy = np.flatnonzero(batch.noise[:, r])
        states[noisy, r, 2 + drawn[noisy, r]] += batch.noise[noisy, r, None]
        b, e = np.nonzero(batch.evaluated == r)
        k = shrink[b, e]
        answers[b, e] = k[:, None] * states[b, r]
        answers[b, e, 1] += 1.0 - k * alpha[b, e, None]
    end = states[:, -1]
    return EigenmodeGains(end[:, 0], end[:, 1], end[:, 2], end[:, 3:])


def gaussian_distance(
    plans: PlanBatch | Plan,
    mean: Array,  # (M,) or the samples' shape
    eigenvalues: Array,  # (M,)
    eigenvectors: Array | None = None,  # (M, M); None: the pixel axes
) -> Array:  # (B,)
    """Frechet distance between what each plan makes of N(mean, Sigma) data and that data.

    The two Gaussians share their eigenvectors, so it is
    sum_m (deviation - sqrt(l))^2 + |G_mean mu + G_image c - mu|^2.
    """
    batch = plans if isinstance(plans, PlanBatch) else PlanBatch([plans])
    gains = eigenmode_gains(batch, eigenvalues)
    mu = _coordinates(mean, eigenvectors)
    offsets = (gains.mean - 1.0) * mu
    for b, plan in enumerate(batch):
        if plan.image is not None:
            offsets[b] += gains.image[b] * _coordinates(plan.image, eigenvectors)
    spread = gains.deviation - np.sqrt(eigenvalues)
    distances: Array = (spread**2 + offsets**2).sum(1)
    return distances


def _call_levels(batch: PlanBatch) -> tuple[Array, Array]:
    """alpha and sigma (B, E) at every call; alpha 0 and sigma 1 where a plan has fewer."""
    alpha, sigma = np.zeros(batch.evaluated.shape), np.ones(batch.evaluated.shape)
    for b, plan in enumerate(batch):
        alpha[b, : plan.nfe] = [at.alpha for at in plan.call_levels]
        sigma[b, : plan.nfe] = [at.sigma for at in plan.call_levels]
    return alpha, sigma


def _weighted(weights: Array, forms: Array) -> Array:  # (B, n), (B, n, parts, M)
    n_plans, n, n_parts, n_modes = forms.shape
    flat = forms.reshape(n_plans, n, n_parts * n_modes)
    total: Array = np.matmul(weights[:, None, :], flat).reshape(n_plans, n_parts, n_modes)
    return total


def _coordinates(image: Array, eigenvectors: Array | None) -> Array:
    flat = np.asarray(image, dtype=np.float64).reshape(-1)
    return flat if eigenvectors is None else flat @ eigenvectors


def _level_columns(process: NoiseProcess, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma as (B, 1), computed in float64."""
    wide = t.double()
    return process.alpha(wide).to(x)[:, None], process.sigma(wide).to(x)[:, None]


def _refuse(condition: dict[str, Any]) -> None:
    if condition:
        raise TypeError(f"a closed-form denoiser takes no condition, found {sorted(condition)}")


def _shape_of(mean: Tensor) -> Shape:
    if mean.ndim == 0:
        raise IncompatibleStatistics(
            f"mean: needs the shape of a sample, such as {SHAPES}, found a single number"
        )
    return tuple(mean.shape)
