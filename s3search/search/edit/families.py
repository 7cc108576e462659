"""The solver families beside Taylor's: their steps in a plain form that a search can vary.

A family's plain step starts at the newest point -1 and looks back at the points -n .. -1 without
gaps; what else it has is drawn, moved and bounded here (beta of momentum, gamma of BDIA).  Any
other step of a published solver has no family.

At order 1 the steps of DEIS, iPNDM, momentum and velocity are DDIM's, which Taylor writes: they
begin at order 2.  UniPC and Adams begin at order 1, where they differ by their corrector.
"""

import numpy as np

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import (
    Adams,
    AdamsTime,
    AnyRule,
    Bidirectional,
    Level,
    Momentum,
    MomentumKind,
    NoisePath,
    Prediction,
    Slope,
    Taylor,
    UniPC,
    Variant,
    Velocity,
)
from s3search.schedules.published.deis import adams_bashforth_slope, clock_of
from s3search.search.space.space import SearchSpace, Solver

WITH_CORRECTOR = (Solver.TAYLOR, Solver.UNIPC, Solver.ADAMS)
"""The families for which the corrector recipe has a rule of their own."""

_WIDTH = 0.15  # one small move of beta or gamma, as a share of its range


def solver_of(rule: AnyRule | None) -> Solver | None:
    """The family that has ``rule`` among its plain steps; Taylor's for no published rule."""
    match rule:
        case None:
            return Solver.TAYLOR
        case UniPC(start=-1, points=points) if (*points, -1) == _newest(len(points) + 1):
            return Solver.UNIPC
        case Adams(start=-1, points=points) if points == _newest(len(points)):
            return Solver.ADAMS
        case AdamsTime(start=-1, points=points) if points == _newest(len(points)):
            return Solver.DEIS
        case Slope(terms=terms) if 1 < len(terms) <= 4 and rule == _ipndm(len(terms)):
            return Solver.IPNDM
        case Momentum(points=points, order=order) if points == _newest(len(points)):
            return Solver.MOMENTUM if order <= len(points) else None
        case Bidirectional(start=-1, previous=-2):
            return Solver.BDIA
        case Velocity(start=-1, points=points, weights=None, path=path):
            plain = points == _newest(len(points)) and path == NoisePath()
            return Solver.VELOCITY if plain else None
    return None


def least_order(solver: Solver) -> int:
    """The order at which the family begins to differ from Taylor's first order."""
    return 1 if solver in WITH_CORRECTOR else 2


def order_of(rule: AnyRule) -> int:
    """The order of a plain step; BDIA counts as 2, for it needs two points."""
    match rule:
        case Taylor() | Momentum():
            return rule.order
        case UniPC():
            return len(rule.points) + 1
        case Bidirectional():
            return 2
        case Adams():
            return len(rule.points)
        case _:
            return rule.n_points


def random_rule(
    space: SearchSpace,
    process: NoiseProcess,
    solver: Solver,
    order: int,
    prediction: Prediction,
    rng: np.random.Generator,
) -> AnyRule:
    """A plain step of a family other than Taylor's, its own parameters drawn uniformly."""
    points = _newest(order)
    match solver:
        case Solver.UNIPC:
            variant = tuple(Variant)[int(rng.integers(2))]
            return UniPC(prediction=prediction, variant=variant, points=points[:-1])
        case Solver.ADAMS:
            return Adams(points=points)
        case Solver.DEIS:
            low, high = _clock(process)
            return AdamsTime(points=points, beta_min=low, beta_max=high)
        case Solver.IPNDM:
            return _ipndm(order)
        case Solver.MOMENTUM:
            kind, beta = tuple(MomentumKind)[int(rng.integers(3))], float(rng.uniform(*space.beta))
            return Momentum(kind=kind, order=order, beta=beta, points=points)
        case Solver.BDIA:
            return Bidirectional(gamma=float(rng.uniform(*space.gamma)))
        case Solver.VELOCITY:
            return Velocity(points=points)
        case Solver.TAYLOR:
            raise AssertionError("Taylor steps are written by their choices")


def with_order(rule: AnyRule, order: int) -> AnyRule | None:
    """The plain step of ``rule``'s family with this order, None below its least; momentum keeps
    the points that it remembers beyond its order, BDIA has one order only.
    """
    solver = solver_of(rule)
    if solver is None or order < least_order(solver):
        return None
    points = _newest(order)
    match rule:
        case UniPC():
            return rule.model_copy(update={"points": points[:-1]})
        case Adams() | AdamsTime() | Velocity():
            return rule.model_copy(update={"points": points})
        case Slope():
            return _ipndm(order)
        case Momentum():
            memory = _newest(max(order, len(rule.points)))
            return rule.model_copy(update={"order": order, "points": memory})
        case _:
            return rule


def moved(space: SearchSpace, rule: AnyRule | None, rng: np.random.Generator) -> AnyRule | None:
    """``rule`` after a small move of its number or its memory, None where it has neither."""
    match rule:
        case Momentum() if rng.random() < 0.2:
            longer = len(rule.points) + (1 if rng.random() < 0.5 else -1)
            return rule.model_copy(update={"points": _newest(max(longer, rule.order))})
        case Momentum():
            return rule.model_copy(update={"beta": _walked(rule.beta, space.beta, rng)})
        case Bidirectional():
            return rule.model_copy(update={"gamma": _walked(rule.gamma, space.gamma, rng)})
    return None


def fitted(
    space: SearchSpace, rule: AnyRule, past: tuple[Level, ...], to: Level
) -> AnyRule | None:
    """The plain step nearest to ``rule`` that the space has and that is possible here, None where
    there is none: points that do not exist or may not be used are given up, and orders with them.
    """
    solver = solver_of(rule)
    if solver is None or solver not in space.solvers or not _in_ranges(space, rule, to):
        return None
    most = min(order_of(rule), max(space.orders))
    if solver is Solver.MOMENTUM:  # its memory may have to shrink before its order
        for n in range(len(past), most, -1):
            shorter = _momentum(rule, most, n)
            if shorter.problem(past, to) is None:
                return shorter
    for order in range(most, least_order(solver) - 1, -1):
        is_momentum = solver is Solver.MOMENTUM
        lower = _momentum(rule, order, order) if is_momentum else with_order(rule, order)
        if lower is not None and lower.problem(past, to) is None:
            return lower
    return None


def _momentum(rule: AnyRule, order: int, n_points: int) -> Momentum:
    assert isinstance(rule, Momentum)
    points = _newest(min(n_points, len(rule.points)))
    return rule.model_copy(update={"order": order, "points": points})


def _in_ranges(space: SearchSpace, rule: AnyRule, to: Level) -> bool:
    match rule:
        case UniPC():
            return rule.prediction in space.predictions
        case Momentum():
            return space.beta[0] <= rule.beta <= space.beta[1]
        case Bidirectional():
            return space.gamma[0] <= rule.gamma <= space.gamma[1]
        case Velocity():  # on the straight path of a flow
            return abs(to.alpha + to.sigma - 1.0) < 1e-9
    return True


def _walked(value: float, limits: tuple[float, float], rng: np.random.Generator) -> float:
    low, high = limits
    return float(np.clip(value + rng.normal(0.0, _WIDTH * (high - low)), low, high))


def _newest(n: int) -> tuple[int, ...]:
    return tuple(range(-n, 0))


def _ipndm(order: int) -> Slope:
    return adams_bashforth_slope(range(-1, -order - 1, -1))


def _clock(process: NoiseProcess) -> tuple[float, float]:
    """The process's own clock, or the usual linear one where it begins at pure noise."""
    try:
        return clock_of(process)
    except InvalidSchedule:
        default = AdamsTime()
        return default.beta_min, default.beta_max
