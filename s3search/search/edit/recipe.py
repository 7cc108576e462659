"""The choices of one step, and the step they stand for.

A predictor of the space is a Taylor step, written by five choices:

    prediction      noise or data
    order n         derivatives 1 .. n - 1, each estimated from the points -n .. -2
    first_points m  the first derivative alone may use fewer: the points -m - 1 .. -2 (USF's
                    "low-order estimation")
    relaxation      a factor on the first derivative
    start           the point it starts from; from an older one than -1, as in singlestep solvers,
                    the points above are the newest others

Any other predictor (UniPC, slopes, singlestep DPM-Solver) is kept whole as ``published``, beside
the nearest Taylor choices, which stand in for it where it cannot be used or when one of them is
mutated.  So are the steps of the space's other solvers (`s3search.rules.searched`), which first
give up points and order where they do not fit.  A free step is kept as long as it carries
constants between the levels where it stands.  A corrector has no choices but its kind: its rule
follows from the predictor.  A step that adds noise goes to a level below, so that its rules must
be possible there.
"""

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
    SearchedRule,
    StepNoise,
    Taylor,
)
from s3search.rules.compensation import AnyCompensation
from s3search.schedules.schedule import Corrector, CorrectorKind, Step
from s3search.search.edit.compensating import fitted_compensation
from s3search.search.edit.network_time import Shift
from s3search.search.edit.noising import fitted_noise, own_noise
from s3search.search.space import Problem, SpaceConfig

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
    noise: StepNoise | None = None
    shift: Shift | None = None


FINISH = Choice(prediction=Prediction.DATA, order=1, first_points=0, relaxation=None)
"""The step to the clean end: it returns the network's estimate."""


def choice_of(step: Step) -> Choice:
    """The choices that ``step`` was made from."""
    kind = None if step.corrector is None else step.corrector.kind
    choice = _choice_of_rule(step.predictor)
    return replace(choice, corrector=kind, compensation=step.compensation, noise=step.noise)


def with_rule(choice: Choice, rule: AnyRule) -> Choice:
    """``choice`` with another predictor; what stands beside it is kept."""
    new = _choice_of_rule(rule)
    return replace(
        new,
        corrector=choice.corrector,
        compensation=choice.compensation,
        noise=choice.noise,
        shift=choice.shift,
    )


@lru_cache(maxsize=4096)
def step_of(choice: Choice) -> Step:
    """The step that ``choice`` stands for."""
    rule = choice.published or _taylor(choice)
    corrector = None
    if choice.corrector is not None:
        corrector = Corrector(kind=choice.corrector, rule=corrector_rule(rule))
    return Step(
        predictor=rule,
        corrector=corrector,
        compensation=choice.compensation,
        noise=choice.noise,
    )


def corrector_rule(predictor: AnyRule) -> AnyRule:
    """The rule that recomputes the step of ``predictor`` once the new point -1 is evaluated: its
    own, or Heun's corrector, the trapezoid rule, whatever the slopes of the predictor.
    """
    own = predictor.corrector()
    if own is not None:
        return own
    start = predictor.begins_at - 1
    return Adams(start=start, points=(start, -1))


def possible(
    choice: Choice,
    problem: Problem,
    past: Sequence[Level],
    to: Level,
    *,
    is_last: bool,
) -> Choice:
    """``choice`` with whatever the space or its place in the trajectory forbids replaced.

    A choice that is returned unchanged belongs to the space.
    """
    if to.sigma == 0.0:
        return FINISH
    choice, down = _noise_possible(choice, problem, past, to)
    compensation = fitted_compensation(problem, choice.compensation, len(past))
    if compensation != choice.compensation:
        choice = replace(choice, compensation=compensation)
    kind = choice.corrector
    if kind is None:
        return choice
    allowed = kind in problem.space.correctors and not (is_last and kind is CorrectorKind.IMPLICIT)
    rule = corrector_rule(choice.published or _taylor(choice))
    if allowed and _works(rule, problem, [*past, to], down):
        return choice
    return replace(choice, corrector=None)


def takes_noise(choice: Choice) -> bool:
    """Whether noise may be added to the step: not where it has noise of its own, optimised numbers
    or statistics.
    """
    rule = choice.published or _taylor(choice)
    return not (rule.draws_noise or rule.needs_ems or isinstance(rule, Free))


def solver_of(rule: AnyRule | None) -> type[SearchedRule] | None:
    """The class that has ``rule`` among its plain steps; Taylor for no published rule."""
    if rule is None:
        return Taylor
    return type(rule) if isinstance(rule, SearchedRule) and rule.is_plain else None


def fitted(problem: Problem, rule: AnyRule, past: Sequence[Level], to: Level) -> AnyRule | None:
    """The plain step nearest to ``rule`` that the space has and that is possible here, None where
    there is none: points that do not exist or may not be used are given up, and orders with them.
    """
    if not isinstance(rule, SearchedRule) or not rule.is_plain:
        return None
    limits = problem.limits
    if rule.solver not in problem.space.solvers or not rule.is_allowed(limits, to):
        return None
    simpler = rule.simpler(limits.highest_order)
    return next((each for each in simpler if each.problem(past, to) is None), None)


def possible_orders(space: SpaceConfig, n_points: int) -> tuple[int, ...]:
    """The space's orders that ``n_points`` allow, or the highest they allow where none is."""
    return tuple(order for order in space.orders if order <= n_points) or (n_points,)


def possible_estimates(space: SpaceConfig, order: int) -> tuple[int, ...]:
    """Numbers of points that may estimate the first derivative at ``order`` (at least 2)."""
    return (*(m for m in space.low_order_estimates if m < order - 1), order - 1)


def relaxation_of(kind: RelaxationKind | None, coefficient: float) -> Relaxation | None:
    """The relaxation of this kind; ``coefficient`` is c for linear and c - 1 for scale."""
    if kind is None:
        return None
    if not kind.takes_coefficient:
        return Relaxation(kind=kind)
    return Relaxation(kind=kind, coefficient=coefficient + (kind is RelaxationKind.SCALE))


def kind_of(relaxation: Relaxation | None) -> RelaxationKind | None:
    """The kind of a relaxation, if it is one."""
    return None if relaxation is None else relaxation.kind


def strength_of(relaxation: Relaxation | None) -> float:
    """The coefficient as `relaxation_of` takes it; 0 where there is none."""
    if relaxation is None or relaxation.coefficient is None:
        return 0.0
    return relaxation.coefficient - (relaxation.kind is RelaxationKind.SCALE)


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
    if isinstance(rule, Taylor):
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
    near = rule.nearest_taylor()
    return Choice(
        prediction=near.prediction,
        order=near.order,
        first_points=near.order - 1,
        relaxation=near.relaxation,
        published=rule,
    )


def _noise_possible(
    choice: Choice, problem: Problem, past: Sequence[Level], to: Level
) -> tuple[Choice, Level]:
    """``choice`` with a possible predictor, and the level to which its rules go: below ``to`` as
    long as the noise can stay.
    """
    if choice.noise is not None:
        noise = None
        if takes_noise(choice):
            at = step_of(choice).starting_level(past)
            noise = fitted_noise(problem, choice.noise, at, to)
        if noise != choice.noise:
            choice = replace(choice, noise=noise)
    if choice.noise is not None:
        down = step_of(choice).rule_target(problem.process, past, to)
        new = _predictor_possible(choice, problem, past, down)
        rule = new.published or _taylor(new)
        if takes_noise(new) and rule.problem(past, down) is None:
            return new, step_of(new).rule_target(problem.process, past, to)
        choice = replace(choice, noise=None)
    return _predictor_possible(choice, problem, past, to), to


def _predictor_possible(
    choice: Choice, problem: Problem, past: Sequence[Level], to: Level
) -> Choice:
    own = choice.published
    if own is not None:
        is_kept = _is_named(own, problem.space) and own.is_inheritable
        if is_kept and _works(own, problem, past, to):
            return choice
        plain = replace(choice, published=None)
        if _taylor(plain) == own:  # singlestep, or as a Taylor step it has no solver of its own
            fitting = _taylor_possible(plain, problem, past, to)
            return choice if fitting == plain else fitting
        rule = fitted(problem, own, past, to)
        if rule is not None:
            return choice if rule == own else with_rule(choice, rule)
    return _taylor_possible(choice, problem, past, to)


def _is_named(rule: AnyRule, space: SpaceConfig) -> bool:
    """Whether the space has such rules to inherit: those with noise of their own are of its noise,
    whatever its families, and where it has none they are not of it.
    """
    if rule.draws_noise and not space.noise.is_on:
        return False
    return rule.family in space.families or own_noise(rule) is not None


def _taylor_possible(choice: Choice, problem: Problem, past: Sequence[Level], to: Level) -> Choice:
    """The nearest of the space's Taylor steps."""
    orders = possible_orders(problem.space, len(past))
    order = max((o for o in orders if o <= choice.order), default=min(orders))
    estimates = possible_estimates(problem.space, order) if order > 1 else (0,)
    kept_estimate = choice.order == order and choice.first_points in estimates
    is_kept = choice.prediction in problem.predictions
    new = replace(
        choice,
        prediction=choice.prediction if is_kept else problem.predictions[0],
        order=order,
        first_points=choice.first_points if kept_estimate else estimates[-1],
        relaxation=_possible_relaxation(choice.relaxation, problem.space) if order > 1 else None,
        published=None,
        start=_possible_start(choice.start, order, problem.space, past),
    )
    if new.prediction is Prediction.V3 and not _works(_taylor(new), problem, past, to):
        linear = [p for p in problem.space.predictions if p is not Prediction.V3]
        new = replace(new, prediction=linear[0])
    return choice if new == choice else new


def _possible_start(start: int, order: int, space: SpaceConfig, past: Sequence[Level]) -> int:
    """An older point is possible where the newest call stands beside it, not at pure noise."""
    exists = order > 1 and start in space.start_points and -start <= len(past)
    return start if exists and past[start].alpha > 0.0 else -1


def _works(rule: AnyRule, problem: Problem, past: Sequence[Level], to: Level) -> bool:
    """Whether the rule is possible after ``past``, a v3 step with the statistics of the space."""
    if rule.problem(past, to) is not None:
        return False
    if not rule.needs_ems:
        return True
    nodes = problem.ems if Prediction.V3 in problem.space.predictions else None
    return nodes is not None and rule.is_covered(nodes, past, to)


def _possible_relaxation(relaxation: Relaxation | None, space: SpaceConfig) -> Relaxation | None:
    strength, limit = strength_of(relaxation), space.coefficient_limit
    if kind_of(relaxation) not in space.relaxations:
        return relaxation_of(space.relaxations[0], 0.0)
    if abs(strength) <= limit * (1 + 1e-9):
        return relaxation
    return relaxation_of(kind_of(relaxation), max(-limit, min(strength, limit)))
