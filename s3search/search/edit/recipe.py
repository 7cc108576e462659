"""The choices of one step, and the step they stand for.

A predictor of the space is a Taylor step, written by five choices:

    prediction      noise or data
    order n         derivatives 1 .. n - 1, each estimated from the points -n .. -2
    first_points m  the first derivative alone may use fewer: the points -m - 1 .. -2 (USF's
                    "low-order estimation")
    relaxation      a factor on the first derivative
    start           the point it starts from; from an older one than -1, as in singlestep solvers,
                    the points above are the newest others

Any other predictor (UniPC, Adams, slopes, singlestep DPM-Solver) is kept whole as ``published``,
beside the nearest Taylor choices, which stand in for it where it cannot be used or when one of
them is mutated.  So are the steps of the space's other solvers (`s3search.search.edit.families`),
which first give up points and order where they do not fit. A free step is kept as long as it
carries constants between the levels where it stands. A corrector has no choices but its kind: its
rule follows from the predictor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from s3search.rules import (
    Adams,
    AnyRule,
    Derivative,
    Free,
    Level,
    Prediction,
    Relaxation,
    RelaxationKind,
    Taylor,
    UniPC,
    Variant,
)
from s3search.rules.compensation import AnyCompensation
from s3search.rules.taylor import MAX_ORDER
from s3search.schedules.schedule import Corrector, CorrectorKind, Step
from s3search.search.edit.compensating import fitted_compensation
from s3search.search.edit.families import fitted
from s3search.search.edit.network_time import Shift
from s3search.search.space.space import CorrectorChoice, Family, RelaxationChoice, SearchSpace

_OLDEST_START = -3


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One step; the legend stands in the module's docstring.  Orders below 2 have no first
    derivative: ``first_points`` is 0 and ``relaxation`` None.

    ``shift`` is that of the network's time at the point the step leads to; a draft alone knows its
    time, so `choice_of` and `step_of` leave it out.
    """

    prediction: Prediction
    order: int
    first_points: int
    relaxation: Relaxation | None
    corrector: CorrectorKind | None = None
    published: AnyRule | None = None
    start: int = -1
    compensation: AnyCompensation | None = None
    shift: Shift | None = None


FINISH = Choice(prediction=Prediction.DATA, order=1, first_points=0, relaxation=None)
"""The step to the clean end: it returns the network's estimate."""


def choice_of(step: Step) -> Choice:
    """The choices that ``step`` was made from."""
    kind = None if step.corrector is None else step.corrector.kind
    choice = _choice_of_rule(step.predictor)
    return replace(choice, corrector=kind, compensation=step.compensation)


def with_rule(choice: Choice, rule: AnyRule) -> Choice:
    """``choice`` with another predictor; what stands beside it is kept."""
    new = _choice_of_rule(rule)
    return replace(
        new,
        corrector=choice.corrector,
        compensation=choice.compensation,
        shift=choice.shift,
    )


@lru_cache(maxsize=4096)
def step_of(choice: Choice) -> Step:
    """The step that ``choice`` stands for."""
    rule = choice.published or _taylor(choice)
    corrector = None
    if choice.corrector is not None:
        corrector = Corrector(kind=choice.corrector, rule=corrector_rule(rule))
    return Step(predictor=rule, corrector=corrector, compensation=choice.compensation)


@lru_cache(maxsize=4096)
def corrector_rule(predictor: AnyRule) -> AnyRule:
    """The rule that recomputes the step of ``predictor`` once the new point -1 is evaluated.

    USF's recipe: the points move back by one and the new one joins them, the order rises by one
    (to 4 at most), relaxations are dropped.  For UniPC and Adams it gives the correctors of UniPC
    and Heun.
    """
    match predictor:
        case Taylor(order=1):
            points: tuple[tuple[int, ...], ...] = ((-1,),)
        case Taylor():
            own = [_with_newest(derivative.points) for derivative in predictor.derivatives]
            points = (*own, own[-1])[: MAX_ORDER - 1]
        case UniPC():
            return predictor.model_copy(
                update={"start": predictor.start - 1, "points": _with_newest(predictor.points)}
            )
        case Adams():
            return Adams(start=predictor.start - 1, points=_with_newest(predictor.points)[-4:])
        case _:  # the trapezoid rule: Heun's corrector, whatever the slopes of the predictor
            start = -2 if isinstance(predictor, Free) else predictor.start - 1
            return Adams(start=start, points=(start, -1))
    return Taylor(
        prediction=predictor.prediction,
        order=len(points) + 1,
        start=predictor.start - 1,
        derivatives=tuple(Derivative(points=each) for each in points),
    )


def possible(
    choice: Choice, space: SearchSpace, past: Sequence[Level], to: Level, *, is_last: bool
) -> Choice:
    """``choice`` with whatever the space or its place in the trajectory forbids replaced.

    A choice that is returned unchanged belongs to the space.
    """
    if to.sigma == 0.0:
        return FINISH
    choice = _predictor_possible(choice, space, past, to)
    compensation = fitted_compensation(space, choice.compensation, len(past))
    if compensation != choice.compensation:
        choice = replace(choice, compensation=compensation)
    kind = choice.corrector
    if kind is None:
        return choice
    allowed = CorrectorChoice(kind.value) in space.correctors and not (
        is_last and kind is CorrectorKind.IMPLICIT
    )
    rule = corrector_rule(choice.published or _taylor(choice))
    if allowed and _works(rule, space, [*past, to], to):
        return choice
    return replace(choice, corrector=None)


def possible_orders(space: SearchSpace, n_points: int) -> tuple[int, ...]:
    """The space's orders that ``n_points`` allow, or the highest they allow where none is."""
    return tuple(order for order in space.orders if order <= n_points) or (n_points,)


def possible_estimates(space: SearchSpace, order: int) -> tuple[int, ...]:
    """Numbers of points that may estimate the first derivative at ``order`` (at least 2)."""
    return (*(m for m in space.low_order_estimates if m < order - 1), order - 1)


def relaxation_of(kind: RelaxationChoice, coefficient: float) -> Relaxation | None:
    """The relaxation of this kind; ``coefficient`` is c for linear and c - 1 for scale."""
    match kind:
        case RelaxationChoice.NONE:
            return None
        case RelaxationChoice.LINEAR:
            return Relaxation(kind=RelaxationKind.LINEAR, coefficient=coefficient)
        case RelaxationChoice.SCALE:
            return Relaxation(kind=RelaxationKind.SCALE, coefficient=1.0 + coefficient)
        case _:
            return Relaxation(kind=RelaxationKind(kind.value))


def kind_of(relaxation: Relaxation | None) -> RelaxationChoice:
    """The kind, with its own word for no relaxation."""
    return RelaxationChoice.NONE if relaxation is None else RelaxationChoice(relaxation.kind.value)


def strength_of(relaxation: Relaxation | None) -> float:
    """The coefficient as `relaxation_of` takes it; 0 where there is none."""
    if relaxation is None or relaxation.coefficient is None:
        return 0.0
    return relaxation.coefficient - (relaxation.kind is RelaxationKind.SCALE)


def _with_newest(points: tuple[int, ...]) -> tuple[int, ...]:
    return (*(p - 1 for p in points), -1)


@lru_cache(maxsize=4096)
def _taylor(choice: Choice) -> Taylor:
    n, start = choice.order, choice.start
    newest = [p for p in range(-1, -n - 1, -1) if p != start][: n - 1]
    first = Derivative(
        points=tuple(sorted(newest[: choice.first_points])) or (-2,), relaxation=choice.relaxation
    )
    others = (Derivative(points=tuple(sorted(newest))),) * (n - 2) if n > 2 else ()
    derivatives = (first, *others) if n > 1 else ()
    return Taylor(prediction=choice.prediction, order=n, start=start, derivatives=derivatives)


@lru_cache(maxsize=4096)
def _choice_of_rule(rule: AnyRule) -> Choice:
    """The Taylor choices nearest to ``rule``, with the rule itself where they do not write it."""
    match rule:
        case Taylor():
            first = rule.derivatives[0] if rule.derivatives else None
            choice = Choice(
                prediction=rule.prediction,
                order=rule.order,
                first_points=0 if first is None else min(len(first.points), rule.order - 1),
                relaxation=None if first is None else first.relaxation,
                start=max(rule.start, _OLDEST_START),
            )
            is_written = rule.start == -1 and _taylor(choice) == rule
            return choice if is_written else replace(choice, published=rule)
        case UniPC():
            order = min(len(rule.points) + 1, MAX_ORDER)
            kinds = {Variant.BH1: RelaxationKind.UNIPC_BH1, Variant.BH2: RelaxationKind.UNIPC_BH2}
            relaxation = Relaxation(kind=kinds[rule.variant]) if order == 2 else None
            prediction = rule.prediction
        case Adams():
            order, relaxation, prediction = len(rule.points), None, Prediction.NOISE
        case Free():  # over D; the map to the clean end is first order's
            order, relaxation = 1 if rule == Free(q=(1.0,)) else 2, None
            prediction = Prediction.DATA
        case _:
            order = min(rule.n_points, MAX_ORDER)
            relaxation, prediction = None, Prediction.NOISE
    return Choice(
        prediction=prediction,
        order=order,
        first_points=order - 1,
        relaxation=relaxation,
        published=rule,
    )


def _family(rule: AnyRule) -> Family:
    match rule:
        case Taylor():
            return Family.DPM
        case UniPC():
            return Family.UNIPC
        case Free():
            return Family.FREE
        case _:
            return Family.ADAMS


def _is_lost(rule: AnyRule) -> bool:
    """Whether nothing tells the place that the rule was made for."""
    return isinstance(rule, Free) and not rule.carries


def _predictor_possible(
    choice: Choice, space: SearchSpace, past: Sequence[Level], to: Level
) -> Choice:
    if choice.published is not None:
        kept = _family(choice.published) in space.families and not _is_lost(choice.published)
        if kept and _works(choice.published, space, past, to):
            return choice
        plain = replace(choice, published=None)
        if _taylor(plain) == choice.published:  # singlestep, or as a Taylor step it has no family
            fitting = _taylor_possible(plain, space, past, to)
            return choice if fitting == plain else fitting
        rule = fitted(space, choice.published, tuple(past), to)
        if rule is not None:
            return choice if rule == choice.published else with_rule(choice, rule)
    return _taylor_possible(choice, space, past, to)


def _taylor_possible(
    choice: Choice, space: SearchSpace, past: Sequence[Level], to: Level
) -> Choice:
    """The nearest of the space's Taylor steps."""
    orders = possible_orders(space, len(past))
    order = max((o for o in orders if o <= choice.order), default=min(orders))
    estimates = possible_estimates(space, order) if order > 1 else (0,)
    kept_estimate = choice.order == order and choice.first_points in estimates
    is_kept = choice.prediction in space.usable_predictions
    new = replace(
        choice,
        prediction=choice.prediction if is_kept else space.usable_predictions[0],
        order=order,
        first_points=choice.first_points if kept_estimate else estimates[-1],
        relaxation=_possible_relaxation(choice.relaxation, space) if order > 1 else None,
        published=None,
        start=_possible_start(choice.start, order, space, past),
    )
    if new.prediction is Prediction.V3 and not _works(_taylor(new), space, past, to):
        linear = [p for p in space.predictions if p is not Prediction.V3]
        new = replace(new, prediction=linear[0])
    return choice if new == choice else new


def _possible_start(start: int, order: int, space: SearchSpace, past: Sequence[Level]) -> int:
    """An older point is possible where the newest call stands beside it, not at pure noise."""
    exists = order > 1 and start in space.start_points and -start <= len(past)
    return start if exists and past[start].alpha > 0.0 else -1


def _works(rule: AnyRule, space: SearchSpace, past: Sequence[Level], to: Level) -> bool:
    """Whether the rule is possible after ``past``, a v3 step with the statistics of the space."""
    if rule.problem(past, to) is not None:
        return False
    if not rule.needs_ems:
        return True
    nodes = space.ems
    if nodes is None or Prediction.V3 not in space.predictions or not isinstance(rule, Taylor):
        return False
    points = {rule.start, *(p for derivative in rule.derivatives for p in derivative.points)}
    lams = [past[p].lam for p in points if math.isfinite(past[p].lam)]
    start = nodes.nearest(past[rule.start].lam)
    return all(map(nodes.covers, [*lams, to.lam])) and start < nodes.nearest(to.lam)


def _possible_relaxation(relaxation: Relaxation | None, space: SearchSpace) -> Relaxation | None:
    strength, limit = strength_of(relaxation), space.coefficient_limit
    if kind_of(relaxation) not in space.relaxations:
        return relaxation_of(space.relaxations[0], 0.0)
    if abs(strength) <= limit * (1 + 1e-9):
        return relaxation
    return relaxation_of(kind_of(relaxation), max(-limit, min(strength, limit)))
