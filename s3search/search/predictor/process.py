r"""A Gaussian process from log proxies (and a few summaries of the schedule) to the log distance.

    y ~ N(m, K + s_n^2 I)
    K(x, x') = a^2 x . x' / p + s^2 M(r),   r^2 = sum_k (x_k - x'_k)^2 / l_k^2

M is the Matern 5/2 function, (1 + u + u^2 / 3) e^-u with u = sqrt(5) r: distances have kinks where
a schedule diverges.  The linear part carries a trend beyond the best example, where a search
looks; the length scales l_k tell which columns matter.  All hyperparameters are found by the
marginal likelihood with a weak prior (normal in their logarithms), by L-BFGS with the gradient

    d log p / d theta = 1/2 tr((w w^T - K_n^-1) dK_n / d theta),   w = K_n^-1 (y - m)

(Rasmussen & Williams 2006, eq. 5.9).  n examples cost n^3; beyond ``most`` only the best and as
many of the others at random are kept, and the hyperparameters are found on fewer still.

Shapes: n examples, p columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
import scipy.optimize

from s3search.search.predictor.base import Array, Example, Forecast, Rows, log_distances
from s3search.search.predictor.features import Proxies, Standard, compact, proxy_names

_ROUNDS, _ROUNDS_IN_FOLD = 60, 6  # of L-BFGS
_JITTER = 1e-8
_PRIOR_STD = 1.0  # of every hyperparameter's logarithm
_WIDEST = 5.0  # distance of a hyperparameter's logarithm from its prior
_MOST_FOR_EVIDENCE = 150  # examples: hyperparameters need fewer than the posterior
_ROOT5 = math.sqrt(5.0)


@dataclass(slots=True, kw_only=True, eq=False)
class Process:
    """The Gaussian process on the columns asked for.

    ``proxies`` names the columns to use, None all that enough examples have; () uses none.
    """

    proxies: tuple[str, ...] | None = None
    with_schedule: bool = False  # the summaries of `compact` beside the proxies
    most: int = 300
    _begin: Array | None = None  # hyperparameters to begin from, of as many columns
    _rounds: int = _ROUNDS
    _columns: "_Columns | None" = field(default=None, init=False)
    _posterior: "_Posterior | None" = field(default=None, init=False)

    def fit(self, examples: Sequence[Example], values: Sequence[float], seed: int) -> None:
        """Finds the hyperparameters and the posterior; ``seed`` draws what is kept of many."""
        y = log_distances(examples, values)
        kept = kept_rows(y, self.most, seed)
        examples, y = [examples[i] for i in kept], winsorised(y[kept])
        names = proxy_names(examples) if self.proxies is None else self.proxies
        self._columns = _Columns(examples, names, self.with_schedule)
        x = self._columns(examples)
        few = kept_rows(y, _MOST_FOR_EVIDENCE, seed)
        theta = _likeliest(x[few], _scaled(y[few]), self._begin, self._rounds)
        self._posterior = _posterior(theta, x, y)

    def predict(self, examples: Sequence[Example]) -> Forecast:
        """Posterior mean and deviation of a new measurement, its noise included."""
        if self._columns is None or self._posterior is None:
            raise RuntimeError("predict: the process has learnt nothing yet; call fit first")
        return self._posterior(self._columns(examples))

    def for_fold(self) -> "Process":
        """A process that begins from these hyperparameters and refines them a little."""
        begin = None if self._posterior is None else self._posterior.theta
        return Process(
            proxies=self.proxies,
            with_schedule=self.with_schedule,
            most=self.most,
            _begin=begin,
            _rounds=_ROUNDS_IN_FOLD,
        )


def kept_rows(y: Array, most: int, seed: int) -> Rows:  # (m,)
    """Which of many examples are kept: the best, and as many at random; sorted."""
    if len(y) <= most:
        return np.arange(len(y))
    order = np.argsort(y, kind="stable")
    best, rest = order[: most // 2], order[most // 2 :]
    drawn = np.random.default_rng(seed).choice(rest, most - len(best), replace=False)
    return np.sort(np.concatenate([best, drawn]))


def winsorised(y: Array) -> Array:
    """``y`` with what lies far above the bulk pulled in: how bad a useless schedule is does not
    matter, and would cost the resolution among the good ones.
    """
    low, high = np.quantile(y, [0.25, 0.75])
    return np.minimum(y, high + 1.5 * (high - low)) if high > low else y


class _Columns:
    """The matrix that the process sees."""

    def __init__(
        self, examples: Sequence[Example], names: Sequence[str], with_schedule: bool
    ) -> None:
        self._proxies = Proxies(examples, names)
        self._standard = (
            Standard(compact([e.schedule for e in examples])) if with_schedule else None
        )

    def __call__(self, examples: Sequence[Example]) -> Array:  # (n, p)
        parts = [self._proxies(examples)]
        if self._standard is not None:
            parts.append(self._standard(compact([e.schedule for e in examples])))
        return np.hstack(parts)


@dataclass(slots=True, eq=False)
class _Posterior:
    """What the process knows: theta = log (a, s, s_n, l_1 .. l_p), y = centre + scale * (...)."""

    theta: Array
    x: Array  # (n, p)
    factor: Array  # lower Cholesky factor of K_n
    weights: Array  # w
    centre: float
    scale: float

    def __call__(self, x: Array) -> Forecast:  # (m, p)
        linear, matern, _ = _kernel(self.theta, x, self.x)
        across = linear + matern
        mean = across @ self.weights
        half = scipy.linalg.solve_triangular(self.factor, across.T, lower=True)
        a, s, noise = np.exp(2 * self.theta[:3])
        own = a * (x**2).sum(1) / max(x.shape[1], 1) + s
        variance = np.maximum(own - (half**2).sum(0), 0.0) + noise
        return Forecast(self.centre + self.scale * mean, self.scale * np.sqrt(variance))


def _posterior(theta: Array, x: Array, y: Array) -> _Posterior:
    linear, matern, _ = _kernel(theta, x, x)
    factor: Array = np.linalg.cholesky(_with_noise(theta, linear + matern)).astype(np.float64)
    weights = scipy.linalg.cho_solve((factor, True), _scaled(y))
    return _Posterior(theta, x, factor, weights, float(y.mean()), _deviation(y))


def _likeliest(x: Array, z: Array, begin: Array | None, rounds: int) -> Array:
    """The hyperparameters of the largest evidence times prior, after so many rounds."""
    p = x.shape[1]
    prior = np.log([0.5, 0.7, 0.3, *[2.0 * math.sqrt(max(p, 1))] * p])
    found = scipy.optimize.minimize(
        _negative_evidence,
        prior if begin is None or len(begin) != len(prior) else begin,
        args=(x, z, prior),
        jac=True,
        method="L-BFGS-B",
        bounds=[(m - _WIDEST, m + _WIDEST) for m in prior],
        options={"maxiter": rounds},
    )
    return np.asarray(found.x, dtype=np.float64)


def _scaled(y: Array) -> Array:
    scaled: Array = (y - y.mean()) / _deviation(y)
    return scaled


def _deviation(y: Array) -> float:
    """The standard deviation, 1 for values that are all the same."""
    deviation = float(y.std())
    return deviation if deviation > 1e-9 else 1.0


def _negative_evidence(theta: Array, x: Array, z: Array, prior: Array) -> tuple[float, Array]:
    """-log of evidence times prior, and its gradient in theta."""
    linear, matern, slope = _kernel(theta, x, x)
    factor = np.linalg.cholesky(_with_noise(theta, linear + matern))
    w = scipy.linalg.cho_solve((factor, True), z)
    away = (theta - prior) / _PRIOR_STD
    value = 0.5 * z @ w + np.log(np.diag(factor)).sum() + 0.5 * away @ away
    inverse = scipy.linalg.cho_solve((factor, True), np.eye(len(x)))
    g = np.outer(w, w) - inverse
    gradient = np.empty_like(theta)
    gradient[0] = (g * linear).sum()  # d K / d log a = 2 linear, times the 1/2 of the formula
    gradient[1] = (g * matern).sum()
    gradient[2] = math.exp(2 * theta[2]) * np.trace(g)
    # sum_ij W_ij (x_ik - x_jk)^2 / l_k^2 for every k at once, W symmetric
    weight = g * slope
    squares = 2 * (weight.sum(1) @ x**2 - (x * (weight @ x)).sum(0))
    gradient[3:] = 0.5 * squares * np.exp(-2 * theta[3:])
    return float(value), away / _PRIOR_STD - gradient


def _kernel(theta: Array, x: Array, other: Array) -> tuple[Array, Array, Array]:
    """Linear part, Matern part, and s^2 (5/3) (1 + u) e^-u: what the square of (x_k - x'_k) / l_k
    has as its factor in d K / d log l_k.
    """
    a, s = np.exp(2 * theta[:2])
    linear = a * (x @ other.T) / max(x.shape[1], 1)
    scaled, seen = x / np.exp(theta[3:]), other / np.exp(theta[3:])
    square = (scaled**2).sum(1)[:, None] + (seen**2).sum(1) - 2 * scaled @ seen.T
    u = _ROOT5 * np.sqrt(np.maximum(square, 0.0))
    decay = s * np.exp(-u)
    return linear, decay * (1 + u + u * u / 3), decay * (5 / 3) * (1 + u)


def _with_noise(theta: Array, kernel: Array) -> Array:
    noisy = kernel.copy()
    noisy[np.diag_indices_from(noisy)] += math.exp(2 * theta[2]) + _JITTER
    return noisy
