"""Weak orders: how fast mean and variance of the end approach those of the data.

Data are one Gaussian, so D is linear in x and every state is a linear map of independent unit
normals: the start and the draws.  Both moments follow exactly from a plan's numbers.

    D(x) = mu + g (x - alpha mu),      g = alpha l / (alpha^2 l + sigma^2)

for each of some modes with mean mu and variance l.  The run begins with the exact marginal of its
first level.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from s3search.processes import Edm, edm
from s3search.rules import Level
from s3search.schedules.schedule import Schedule, Step
from s3search.solvers.plan import Plan, compile_plan
from tests.support.helpers import slope

Array = npt.NDArray[np.float64]

MEAN = 0.5
VARIANCES = np.array([0.05, 0.4, 2.0])  # (M,) of the modes

_BEGIN, _END = 6.0, 0.3  # sigma
_N_STEPS = (128, 256, 512)


def moments(plan: Plan, eta: float = 0.0, n_exact: int = 0) -> tuple[Array, Array]:
    """Mean and variance (M,) of the last state.

    The first ``n_exact`` states after the start are not the plan's but those of the exact reverse
    SDE with ``eta`` times the usual squared diffusion: what a solver's first steps of lower order
    do is left out.
    """
    n = plan.n_rows
    centre = np.zeros((n, len(VARIANCES)))
    weights = np.zeros((n, len(VARIANCES), n))  # of the draws
    first = plan.levels[0]
    centre[0], weights[0, :, 0] = first.alpha * MEAN, np.sqrt(_variance(first))
    called = np.array(plan.evaluated)
    gain = np.array([at.alpha * VARIANCES / _variance(at) for at in plan.levels])  # (R, M)
    alpha = np.array([at.alpha for at in plan.levels])[:, None]
    for r in range(1, n):
        if r <= n_exact:
            s, t = plan.levels[r - 1], plan.levels[r]
            fall = (_ratio(t) / _ratio(s)) ** (0.5 * (1.0 + eta)) * t.alpha / s.alpha
            centre[r] = t.alpha * MEAN + fall * (centre[r - 1] - s.alpha * MEAN)
            weights[r] = fall[:, None] * weights[r - 1]
            weights[r, :, r] = np.sqrt(np.maximum(_variance(t) - fall**2 * _variance(s), 0.0))
            continue
        calls = called[called < r]
        answers = MEAN + gain[calls] * (centre[calls] - alpha[calls] * MEAN)
        centre[r] = plan.p[r, :r] @ centre[:r] + plan.q[r, : len(calls)] @ answers
        weights[r] = np.einsum("k,kms->ms", plan.p[r, :r], weights[:r])
        weights[r] += np.einsum(
            "j,jm,jms->ms", plan.q[r, : len(calls)], gain[calls], weights[calls]
        )
        weights[r, :, r] += plan.noise[r]
    return centre[-1], np.asarray((weights[-1] ** 2).sum(axis=-1))


def weak_error(plan: Plan, eta: float = 0.0, n_exact: int = 0) -> float:
    """The largest error of a mean or variance, over the modes, of the size of the exact one."""
    mean, variance = moments(plan, eta, n_exact)
    last = plan.levels[-1]
    off = (np.abs(mean / (last.alpha * MEAN) - 1.0), np.abs(variance / _variance(last) - 1.0))
    return float(np.max(off))


def weak_order(
    make: Callable[[tuple[float, ...]], Schedule],
    eta: float = 1.0,
    n_exact: int = 0,
    calls: int = 1,
) -> float:
    """The slope of the weak error of schedules on ever finer, unequal steps over one interval;
    fewer where each makes more ``calls``.
    """
    grids = (_times(n // calls) for n in _N_STEPS)
    errors = [weak_error(compile_plan(make(times)), eta, n_exact) for times in grids]
    return slope(errors, [1.0 / n for n in _N_STEPS])


def order_of_steps(
    steps: Callable[[int], tuple[Step, ...]], eta: float = 1.0, n_exact: int = 0
) -> float:
    """The weak order of so many steps, which are put on sigma as they are."""

    def make(times: tuple[float, ...]) -> Schedule:
        return Schedule(process=_EDM, times=times, steps=steps(len(times) - 1))

    return weak_order(make, eta, n_exact)


_EDM: Edm = edm()


def _times(n: int) -> tuple[float, ...]:
    """Levels of n steps whose lengths in lam change smoothly, by a factor of three."""
    part = np.linspace(0.0, 1.0, n + 1)
    part = part * (1.0 + part) / 2.0
    times = np.exp(np.log(_BEGIN) + part * np.log(_END / _BEGIN))
    assert all(s > t for s, t in pairwise(times))
    return tuple(times.tolist())


def _variance(at: Level) -> Array:
    return np.asarray(at.alpha**2 * VARIANCES + at.sigma**2)


def _ratio(at: Level) -> Array:
    return np.asarray(VARIANCES + (at.sigma / at.alpha) ** 2)
