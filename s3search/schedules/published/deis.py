"""DEIS (arXiv:2204.13902) and iPNDM: linear multistep methods along slopes.

    rho = sigma / alpha,   y = x / alpha,   dy/drho = eps

They differ in how eps is extrapolated: as a polynomial in time (tAB), in rho (rhoAB), or with the
constants of equal steps (iPNDM).  None can start from pure noise.
"""

import math
from collections.abc import Sequence

from s3search.processes import NoiseProcess, VpLinear
from s3search.rules import Adams, AdamsTime, Slope, SlopeTerm
from s3search.rules.momentum import HIGHEST_ORDER, adams_bashforth
from s3search.schedules.published.common import (
    check_order,
    on_times,
    refuse_pure_noise,
    rising_orders,
)
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, Spacing, grid, noisy_time, usual_end_time

_FIT_END = 1e-3  # the clock's time of the end level, as Score SDE and EDM fit it


def deis(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 3,
    spacing: Spacing | str = "quadratic",
    end: End | None = None,
) -> Schedule:
    """DEIS with polynomials in time: tAB through ``order`` points."""
    clock = clock_of(process)
    return on_times(process, grid(process, nfe, spacing, end), deis_steps(nfe, order, clock))


def deis_steps(n: int, order: int, clock: tuple[float, float]) -> tuple[Step, ...]:
    """tAB steps of rising order; ``clock`` is (beta_min, beta_max), see `clock_of`."""
    check_order(order, 4)
    low, high = clock
    return tuple(
        Step(predictor=AdamsTime(points=tuple(range(-own, 0)), beta_min=low, beta_max=high))
        for own in rising_orders(n, order, lowers=False)
    )


def clock_of(process: NoiseProcess) -> tuple[float, float]:
    """beta_min and beta_max of the linear VP process whose time tAB's polynomials are in.

    A linear VP process has its own; any other is fitted so that time 1 is its noisy end and time
    1e-3 its usual end level (EDM, arXiv:2206.00364, table 1, vp).
    """
    if isinstance(process, VpLinear):
        return process.beta_min, process.beta_max
    refuse_pure_noise(process)
    ends = (usual_end_time(process), noisy_time(process))
    low, high = (math.log1p(math.exp(-2.0 * process.lam(t))) for t in ends)
    beta_d = 2.0 * (low / _FIT_END - high) / (_FIT_END - 1.0)
    beta_min = high - 0.5 * beta_d
    return beta_min, beta_min + beta_d


def rho_ab(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 3,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """Variable-step Adams-Bashforth in rho: DEIS rhoAB, k-diffusion's LMS, and what iPNDM_v means.

    (The published iPNDM_v miscalculates its weights from order 3 on.)
    """
    refuse_pure_noise(process)
    return on_times(process, grid(process, nfe, spacing, end), rho_ab_steps(nfe, order))


def rho_ab_steps(n: int, order: int) -> tuple[Step, ...]:
    """Adams steps of rising order in rho, orders 1 to 4."""
    check_order(order, 4)
    return tuple(
        Step(predictor=Adams(points=tuple(range(-own, 0))))
        for own in rising_orders(n, order, lowers=False)
    )


def ipndm(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 4,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """iPNDM: Adams-Bashforth with the constants of equal steps (arXiv:2204.13902, app. B)."""
    refuse_pure_noise(process)
    return on_times(process, grid(process, nfe, spacing, end), ipndm_steps(nfe, order))


def ipndm_steps(n: int, order: int) -> tuple[Step, ...]:
    """iPNDM steps of rising order, 1 to 5 (published: 1 to 4)."""
    check_order(order, HIGHEST_ORDER)
    return tuple(
        Step(predictor=adams_bashforth_slope(range(-1, -own - 1, -1)))
        for own in rising_orders(n, order, lowers=False)
    )


def adams_bashforth_slope(points: Sequence[int]) -> Slope:
    """The step of Adams and Bashforth for equal steps through ``points``, newest first."""
    weights = adams_bashforth(len(points))
    terms = [SlopeTerm(point=p, weight=w) for p, w in zip(points, weights, strict=True)]
    return Slope(terms=tuple(terms))
