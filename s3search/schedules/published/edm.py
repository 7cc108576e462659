"""Euler and Heun in sigma / alpha (EDM, arXiv:2206.00364, alg. 1)."""

from s3search.processes import NoiseProcess
from s3search.rules import Adams, refuse_pure_noise
from s3search.schedules.published.common import on_times, paired_calls
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Step
from s3search.schedules.spacing import End, Spacing, grid


def euler(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "karras", end: End | None = None
) -> Schedule:
    """Euler in sigma / alpha (EDM); the same map as DDIM."""
    return on_times(process, grid(process, nfe, spacing, end), euler_steps(nfe))


def euler_steps(n: int) -> tuple[Step, ...]:
    """n Euler steps."""
    return tuple(Step(predictor=Adams()) for _ in range(n))


def heun(
    process: NoiseProcess, *, nfe: int, spacing: Spacing | str = "karras", end: End | None = None
) -> Schedule:
    """EDM's Heun: two calls per step, one on a last step to the clean end.

    ``nfe`` must be even for the `stop` end and odd for `denoise`.
    """
    end, clean = paired_calls("heun", nfe, end)
    refuse_pure_noise(process)
    n = (nfe + clean) // 2
    return on_times(process, grid(process, n, spacing, end), heun_steps(n, ends_clean=clean))


def heun_steps(n: int, *, ends_clean: bool) -> tuple[Step, ...]:
    """n Heun steps: Euler, corrected by the trapezoid rule and evaluated again; the last of them
    is Euler if it ends clean.
    """
    trapezoid = Adams(start=-2, points=(-2, -1))
    again = Step(
        predictor=Adams(), corrector=Corrector(kind=CorrectorKind.IMPLICIT, rule=trapezoid)
    )
    last = Step(predictor=Adams(), corrector=None if ends_clean else Corrector(rule=trapezoid))
    return (again,) * (n - 1) + (last,)
