"""Momentum over the noise predictions (arXiv:2307.11118) and BDIA (arXiv:2307.10829)."""

import math

from s3search.processes import NoiseProcess
from s3search.rules import Bidirectional, Momentum, MomentumKind, refuse_pure_noise
from s3search.rules.momentum import HIGHEST_ORDER
from s3search.schedules.published.common import check_order, on_times
from s3search.schedules.published.dpm import ddim_steps
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, Spacing, grid


def momentum(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 4,
    beta: float = 1.0,
    kind: MomentumKind | str = MomentumKind.GHVB,
    spacing: Spacing | str = "uniform",
    end: End | None = None,
) -> Schedule:
    """GHVB, heavy ball or Nesterov (arXiv:2307.11118); their "order 2.3" is order 3, beta 0.3."""
    refuse_pure_noise(process)
    steps = momentum_steps(nfe, order=order, beta=beta, kind=kind)
    return on_times(process, grid(process, nfe, spacing, end), steps)


def momentum_steps(
    n: int, *, order: int, beta: float, kind: MomentumKind | str = MomentumKind.GHVB
) -> tuple[Step, ...]:
    """n steps, each with the momentum of all points so far."""
    check_order(order, HIGHEST_ORDER)
    return tuple(
        Step(
            predictor=Momentum(
                kind=MomentumKind(kind), order=order, beta=beta, points=tuple(range(-i - 1, 0))
            )
        )
        for i in range(n)
    )


def split_order(order: float) -> tuple[int, float]:
    """Order and beta of the authors' one number: 2.3 is (3, 0.3), 2 is (2, 1)."""
    whole = math.floor(order)
    return (whole, 1.0) if order == whole else (whole + 1, order - whole)


def bdia(
    process: NoiseProcess,
    *,
    nfe: int,
    gamma: float = 0.5,
    spacing: Spacing | str = "uniform",
    end: End | None = None,
) -> Schedule:
    """BDIA-DDIM: DDIM averaged over two directions of time (arXiv:2307.10829)."""
    return on_times(process, grid(process, nfe, spacing, end), bdia_steps(nfe, gamma))


def bdia_steps(n: int, gamma: float) -> tuple[Step, ...]:
    """DDIM's first step, then n - 1 BDIA steps."""
    later = Step(predictor=Bidirectional(gamma=gamma))
    return (*ddim_steps(1), *(later,) * (n - 1))
