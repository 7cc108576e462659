"""DEIS (arXiv:2204.13902) and iPNDM: linear multistep methods along slopes.

    rho = sigma / alpha,   y = x / alpha,   dy/drho = eps

They differ in how eps is extrapolated: as a polynomial in time (tAB), in rho (rhoAB), or with the
constants of equal steps (iPNDM).  None can start from pure noise.
"""

from s3search.processes import NoiseProcess
from s3search.rules import Adams, AdamsTime, Slope, clock_of, refuse_pure_noise
from s3search.rules.momentum import HIGHEST_ORDER
from s3search.schedules.published.common import check_order, on_times, rising_orders
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid


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


def rho_ab(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 3,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """Variable-step Adams-Bashforth in rho: DEIS rhoAB, and what iPNDM_v means.

    (The published iPNDM_v miscalculates its weights from order 3 on.)  A last step to the clean
    end is Euler's, as in diff-sampler; `lms` keeps its order there.
    """
    refuse_pure_noise(process)
    return on_times(process, grid(process, nfe, spacing, end), rho_ab_steps(nfe, order))


def lms(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 4,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """LMS of k-diffusion and diffusers: `rho_ab` to the clean end, of full order there too.

    They integrate the weights by quadrature, which is exact for these polynomials; where levels
    nearly coincide (polyexponential ones of high rho) both they and we have what rounding leaves.
    """
    refuse_pure_noise(process)
    times = grid(process, nfe, spacing, end or End(rule=EndRule.DENOISE))
    return Schedule(process=process, times=times, steps=rho_ab_steps(nfe, order))


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
        Step(predictor=Slope.equal_steps(range(-1, -own - 1, -1)))
        for own in rising_orders(n, order, lowers=False)
    )
