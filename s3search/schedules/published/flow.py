"""Flow matching: Euler, Heun and Adams-Bashforth on the velocity (arXiv:2210.02747).

Times run from pure noise to the clean end, uniform in u = 1 .. 0 and shifted towards the noise:
t = s u / (1 + (s - 1) u) (arXiv:2403.03206, eq. 23).
"""

from collections.abc import Sequence

from s3search.errors import InvalidSchedule
from s3search.processes import Flow
from s3search.rules import Velocity
from s3search.schedules.published.common import check_order, rising_orders
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Step


def flow_euler(process: Flow, *, nfe: int, shift: float = 1.0) -> Schedule:
    """Euler on the velocity."""
    return _shifted(process, flow_steps(nfe, 1), shift)


def flow_2m(process: Flow, *, nfe: int, shift: float = 1.0) -> Schedule:
    """Two-step Adams-Bashforth on the velocity."""
    return _shifted(process, flow_steps(nfe, 2), shift)


def flow_steps(n: int, order: int) -> tuple[Step, ...]:
    """Variable-step Adams-Bashforth on the velocity, of rising order 1 to 4."""
    check_order(order, 4)
    return tuple(
        Step(predictor=Velocity(points=tuple(range(-own, 0))))
        for own in rising_orders(n, order, lowers=False)
    )


def flow_heun(process: Flow, *, nfe: int, shift: float = 1.0) -> Schedule:
    """Heun on the velocity: two calls per step, one on the last; ``nfe`` is odd."""
    if nfe % 2 != 1:
        raise InvalidSchedule(f"flow_heun needs an odd nfe, asked {nfe}")
    return _shifted(process, flow_heun_steps((nfe + 1) // 2), shift)


def flow_heun_steps(n: int) -> tuple[Step, ...]:
    """n - 1 Heun steps and, to the clean end, one of Euler."""
    trapezoid = Velocity(start=-2, points=(-2, -1))
    corrector = Corrector(kind=CorrectorKind.IMPLICIT, rule=trapezoid)
    return (Step(predictor=Velocity(), corrector=corrector),) * (n - 1) + flow_steps(1, 1)


def _shifted(process: Flow, steps: Sequence[Step], shift: float) -> Schedule:
    if not shift > 0:
        raise InvalidSchedule(f"shift: a flow is shifted by a number above 0, asked for {shift}")
    n = len(steps)
    times = [shift * u / (1.0 + (shift - 1.0) * u) for u in (1.0 - i / n for i in range(n + 1))]
    return Schedule(process=process, times=times, steps=steps)
