r"""A Gaussian mixture with full covariances: its exact denoiser, fitted to images, and sampled.

Images live near few directions, so the mixture lives in the leading P of their M principal
directions V, and what is left, r = x - V V^T x, is one isotropic Gaussian around its mean:

    y = V^T x ~ sum_k w_k N(m_k, U_k diag(l_k) U_k^T),      r ~ N(r_mean, rest)

The two are independent, so the denoiser acts on each alone: on y as below, on r as on one
eigenmode (`s3search.models.gaussian`), which needs no loop.  With a state y at (alpha, sigma),
coordinates z_k = U_k^T (y - alpha m_k) and variances v_k = alpha^2 l_k + sigma^2,

    log p_k = log w_k - 1/2 sum (z_k^2 / v_k + log v_k),     pi = softmax(log p)
    D       = sum_k pi_k (m_k + U_k diag(alpha l_k / v_k) z_k)

which is Tweedie's  (y + sigma^2 grad log p) / alpha, and valid at alpha = 0 too.

Shapes: N images, M = C H W pixels, P directions, K components, B states.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import threshold

from s3search.errors import IncompatibleStatistics
from s3search.models.gaussian import eigenmode_gains
from s3search.models.principal import PrincipalAxes
from s3search.solvers.plan import Plan
from s3search.solvers.prefix import call_keys
from s3search.solvers.sample import CallCache, run_plan
from s3search.solvers.step_noise import nothing

_LLOYD_ROUNDS = 10  # ten times as many lower the spread of a cluster by 2 %
_PRIOR_IMAGES = 0.1  # per coordinate: what the shared covariance weighs beside a component's own
_ROWS_KEPT = 16  # of what rows draw: as many as the schedules of few calls have
_SMALLEST_VARIANCE = 1e-6  # of the mean variance: keeps a density where a cluster has one value


class MixtureDenoiser:
    """D(y; alpha, sigma) of a mixture of Gaussians in P coordinates."""

    def __init__(
        self,
        weights: Tensor,  # (K,)
        means: Tensor,  # (K, P)
        eigenvalues: Tensor,  # (K, P), > 0
        eigenvectors: Tensor,  # (K, P, P), in columns
    ) -> None:
        if not bool((eigenvalues > 0).all()):
            raise IncompatibleStatistics("a mixture needs covariances without a flat direction")
        n_components, n_coordinates = means.shape
        self._parts = (weights, means, eigenvalues, eigenvectors)
        self._log_weights = weights.log()
        self._means = means
        self._eigenvalues = eigenvalues
        self._into = eigenvectors.transpose(0, 1).reshape(
            n_coordinates, n_components * n_coordinates
        )
        self._back = self._into.T.contiguous()
        self._centres = torch.einsum("kp,kpq->kq", means, eigenvectors)

    @staticmethod
    def of_covariances(weights: Tensor, means: Tensor, covariances: Tensor) -> "MixtureDenoiser":
        """From covariances (K, P, P)."""
        return MixtureDenoiser(weights, means, *torch.linalg.eigh(covariances))

    def to(self, device: torch.device, dtype: torch.dtype) -> "MixtureDenoiser":
        """This mixture for states on another device, in another dtype."""
        return MixtureDenoiser(*(part.to(device, dtype) for part in self._parts))

    def __call__(self, y: Tensor, alpha: float, sigma: float) -> Tensor:  # (B, P)
        """The mean of the clean coordinates given the states ``y``."""
        v = alpha * alpha * self._eigenvalues + sigma * sigma  # (K, P)
        z = torch.addmm(-alpha * self._centres.flatten(), y, self._into).view(len(y), *v.shape)
        z *= v.rsqrt()
        log_p = -0.5 * torch.linalg.vector_norm(z, dim=-1).square()
        pi = (log_p + (self._log_weights - 0.5 * v.log().sum(-1))).softmax(-1)
        pi = threshold(pi, torch.finfo(pi.dtype).eps ** 2, 0.0)  # denormal numbers cost ten times
        z *= alpha * self._eigenvalues * v.rsqrt()
        z *= pi[..., None]
        return torch.addmm(pi @ self._means, z.flatten(1), self._back)


def fit_mixture(
    axes: PrincipalAxes,
    images: Tensor,  # (N, ...)
    *,
    n_components: int,
    labels: Tensor | None = None,  # (N,)
) -> MixtureDenoiser:
    """One Gaussian for each label or, without labels, for each of K clusters of the images.

    Deterministic; float64.  A component's covariance is drawn towards the one that all share as if
    that had been seen in a few images more, so that components of few images keep a density.
    """
    y = images.detach().double().cpu().flatten(1) @ axes.directions
    members = clusters(y, n_components) if labels is None else labels.cpu()
    n, p = y.shape
    parts = _groups(y, members)
    counts = torch.tensor([len(part) for part in parts]).double()
    means = torch.stack([part.mean(0) for part in parts])
    centred = [part - own for part, own in zip(parts, means, strict=True)]
    scatters = torch.stack([part.T @ part for part in centred])
    shared = scatters.sum(0) / max(1, n - len(parts))
    prior = _PRIOR_IMAGES * p
    covariances = (scatters + prior * shared) / (counts - 1 + prior)[:, None, None]
    floor = _SMALLEST_VARIANCE * float(axes.variances.mean())
    covariances = covariances + floor * torch.eye(p).double()
    return MixtureDenoiser.of_covariances(counts / n, means, covariances)


def clusters(y: Tensor, n: int) -> Tensor:
    """The cluster (N,) of each point (N, P): Lloyd's algorithm from k-means++ with a fixed seed
    (Arthur and Vassilvitskii 2007).
    """
    generator = torch.Generator().manual_seed(0)
    centres = y[torch.randint(len(y), (1,), generator=generator)]
    gaps = (y - centres).square().sum(1)
    while len(centres) < n and bool((gaps > 0).any()):  # else there are fewer distinct points
        new = y[torch.multinomial(gaps, 1, generator=generator)]
        gaps = torch.minimum(gaps, (y - new).square().sum(1))
        centres = torch.cat([centres, new])
    members = torch.cdist(y, centres).argmin(1)
    for _ in range(_LLOYD_ROUNDS):
        centres = torch.stack([group.mean(0) for group in _groups(y, members)])
        found = torch.cdist(y, centres).argmin(1)
        if torch.equal(found, members):
            break
        members = found
    return members


def _groups(y: Tensor, members: Tensor) -> list[Tensor]:
    return [y[members == k] for k in np.unique(members.numpy()).tolist()]


@dataclass(frozen=True, eq=False)
class _Outside:
    """What a plan's gains act on outside the P directions."""

    noise: Tensor  # (B, M)
    mean: Tensor  # (M,)


class MixtureSampler:
    """Runs plans on an image mixture, always from the same noises; in the noises' dtype.

    A ``cache`` keeps the answers to calls that many plans have in common, as their first ones.
    ``step_noise`` gives what a row draws, like ``noise`` (B, ...) and the same whatever the
    plan; without it plans draw nothing.
    """

    def __init__(
        self,
        axes: PrincipalAxes,
        denoiser: MixtureDenoiser,
        noise: Tensor,
        cache: CallCache | None = None,
        *,
        step_noise: Callable[[int], Tensor] | None = None,
    ) -> None:
        self._axes, self._cache = axes, cache
        self._denoiser = denoiser.to(noise.device, noise.dtype)
        self._directions = axes.directions.to(noise)
        self._noise, rest = self._divided(noise)
        self._outside = _Outside(rest, axes.outside(axes.mean).to(noise))
        self._step_noise = step_noise
        self._drawn: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()  # by row

    def images(self, plan: Plan) -> Tensor:
        """The images (B, ...) that a plan without weights per pixel or a jump makes."""
        if plan.pixel_rows or plan.start_map is not None:
            raise IncompatibleStatistics(
                "a mixture runs plans of numbers; v3 steps and Gaussian jumps act on pixels"
            )
        y = self._inside(plan) @ self._directions.T
        if self._directions.shape[0] > self._directions.shape[1]:
            y = y + self._rest(plan)
        return y.view(-1, *self._axes.shape)

    def _inside(self, plan: Plan) -> Tensor:
        calls = enumerate(zip(plan.call_levels, call_keys(plan), strict=True))  # in their order

        def network(y: Tensor, _: Tensor) -> Tensor:
            number, (at, key) = next(calls)
            known = None if self._cache is None or key is None else self._cache.get(key)
            if known is not None:
                return known
            answer = self._denoiser(y, at.alpha, at.sigma)
            if self._cache is not None and key is not None:
                self._cache.keep(key, number, answer)
            return answer

        if plan.image is not None:
            plan = replace(plan, image=plan.image.reshape(-1) @ self._axes.directions.numpy())
        x = self._noise * plan.noise_scale
        return run_plan(network, plan, x, lambda row, _: self._draw(row)[0])

    def _rest(self, plan: Plan) -> Tensor:
        gains = eigenmode_gains(plan, self._axes.modes[-1:])
        noise, mean, image = (float(gain[0, 0]) for gain in gains[:3])
        rest = noise * self._outside.noise + mean * self._outside.mean
        for k, row in enumerate(plan.noisy_rows):
            rest = rest + float(gains.draws[0, k, 0]) * self._draw(row)[1]
        if plan.image is not None:
            own = self._axes.outside(torch.tensor(plan.image.reshape(-1)))
            rest = rest + image * own.to(rest)
        return rest

    def _draw(self, row: int) -> tuple[Tensor, Tensor]:
        """What a row draws, inside the P directions (B, P) and outside (B, M)."""
        if row not in self._drawn:
            noise = (
                nothing(row, self._noise) if self._step_noise is None else self._step_noise(row)
            )
            self._drawn[row] = self._divided(noise)
            if len(self._drawn) > _ROWS_KEPT:
                self._drawn.popitem(last=False)
        return self._drawn[row]

    def _divided(self, noise: Tensor) -> tuple[Tensor, Tensor]:  # (B, ...)
        """Noise inside the P directions (B, P) and outside (B, M)."""
        flat = noise.detach().double().cpu().flatten(1)
        inside = (flat @ self._axes.directions).to(self._directions)
        return inside, self._axes.outside(flat).to(self._directions)
