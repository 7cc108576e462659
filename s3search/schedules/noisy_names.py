"""Solvers with noise by their names: what a schedule's own amounts of noise make of each."""

from collections.abc import Callable, Iterator, Sequence

from s3search.errors import InvalidSchedule
from s3search.processes import edm
from s3search.rules import (
    AnyRule,
    ErSde,
    NoiseKind,
    Prediction,
    SdeTaylor,
    StepNoise,
    StochasticAdams,
)
from s3search.schedules import published
from s3search.schedules.published.sa_solver import HIGHEST_ORDER
from s3search.schedules.schedule import Schedule, Step

_NONE = published.sde_noise(0.0)
_Made = Callable[[int], Sequence[Step]]
_EDM, _OUTER = edm(), (2.0, 1.0)  # any: steps do not depend on them
_N_STEPS = 6  # enough for a step of every kind
_MULTISTEP = (
    (1, ", order 1", "midpoint"),
    (2, "(2M)", "midpoint"),
    (2, "(2M), heun", "heun"),
    (3, "(3M)", "heun"),
)
_SEEDS = ((2, "", "midpoint"), (2, ", heun", "heun"), (3, "", "heun"))


def noisy_solver_name(schedule: Schedule) -> str | None:
    """The published solver of a stochastic schedule with its amount of noise, None if its steps
    are no single one's.
    """
    for rule in (step.predictor for step in schedule.steps):
        if isinstance(rule, StochasticAdams):
            return _sa_solver_name(schedule)
        for name, steps in _solvers_like(rule):
            if is_made_of(schedule, steps(schedule.n_steps)):
                return name
    return None


def noisy_step_name(rule: AnyRule) -> str | None:
    """The simplest published solver that has such a step, with its noise, if there is one."""
    for name, steps in _solvers_like(rule):
        if any(step.predictor == rule for step in steps(_N_STEPS)):
            return name
    return None


def is_made_of(schedule: Schedule, steps: Sequence[Step]) -> bool:
    """Whether a schedule has these steps, as they are or as they are put on its times."""
    own = tuple(steps)
    try:
        made = published.on_times(schedule.process, schedule.times, own, schedule.start).steps
    except InvalidSchedule:  # no such steps on these levels
        return False
    return schedule.steps in (own, made)


def _solvers_like(rule: AnyRule) -> Iterator[tuple[str, _Made]]:
    """The solvers that have such a rule, with its noise; the simplest first."""
    if isinstance(rule, ErSde):
        for order in (1, 2, 3):
            yield f"ER-SDE-{order}, {rule.details}", _er_sde(rule, order)
    if isinstance(rule, SdeTaylor):
        words = eta_in_words(rule.noise)
        for name, steps in _sde_solvers(rule.prediction, rule.noise):
            yield f"{name}, {words}", steps


def _er_sde(rule: ErSde, order: int) -> _Made:
    return lambda n: published.er_sde_steps(
        n, order=order, function=rule.function, s_noise=rule.s_noise, n_nodes=rule.n_nodes
    )


def _sde_solvers(prediction: Prediction, noise: StepNoise) -> Iterator[tuple[str, _Made]]:
    if noise.kind is NoiseKind.ETA:
        outer = published.dpmpp_sde_on(_EDM, _OUTER, noise.amount, noise.scale)[1]
        yield "DPM-Solver++(SDE)", _repeated(outer)
        return
    is_data = prediction is Prediction.DATA
    family = "SDE-DPM-Solver++" if is_data else "SDE-DPM-Solver"
    for order, ending, variant in _MULTISTEP:
        yield f"{family}{ending}", _multistep(order, prediction, noise, variant)
    suffix = "" if is_data else ", noise prediction"
    for order, ending, variant in _SEEDS:
        inner = published.seeds_on(
            _EDM, _OUTER, order, prediction=prediction, noise=noise, variant=variant
        )[1]
        yield f"SEEDS-{order}{ending}{suffix}", _repeated(inner)


def _multistep(order: int, prediction: Prediction, noise: StepNoise, variant: str) -> _Made:
    return lambda n: published.sde_steps(
        n, order=order, prediction=prediction, noise=noise, variant=variant
    )


def _repeated(within: tuple[Step, ...]) -> _Made:
    """Steps of several calls over and over; where they do not come out even, Euler's is last."""

    def steps(n: int) -> tuple[Step, ...]:
        whole, left = divmod(n, len(within))
        return (*within * whole, *published.ddim_steps(left))

    return steps


def _sa_solver_name(schedule: Schedule) -> str | None:
    rules = [step.predictor for step in schedule.steps]
    noises = [rule.noise if isinstance(rule, StochasticAdams) else _NONE for rule in rules]
    for p in range(1, HIGHEST_ORDER + 1):
        for c in range(HIGHEST_ORDER + 1):
            plain = published.sa_solver_steps(
                [0.0] * len(noises), predictor_order=p, corrector_order=c
            )
            if is_made_of(schedule, list(map(_with_noise, plain, noises))):
                return f"SA-Solver({p}, {c}), {_tau_in_words(rules)}"
    return None


def _with_noise(step: Step, noise: StepNoise) -> Step:
    rule, corrector = step.predictor.model_copy(update={"noise": noise}), step.corrector
    if corrector is not None:
        own = corrector.rule.model_copy(update={"noise": noise})
        corrector = corrector.model_copy(update={"rule": own})
    return step.model_copy(update={"predictor": rule, "corrector": corrector})


def _tau_in_words(rules: Sequence[AnyRule]) -> str:
    """tau, or the least and the greatest where it changes."""
    taus = [rule.tau for rule in rules if isinstance(rule, StochasticAdams)]
    ends = dict.fromkeys(f"{tau:.3g}" for tau in (min(taus), max(taus)))
    return f"tau {' to '.join(ends)}"


def eta_in_words(noise: StepNoise) -> str:
    """eta and, where it is not 1, s_noise."""
    scale = "" if noise.keeps_variance else f", s_noise {noise.scale:.3g}"
    return f"eta {noise.amount:.3g}{scale}"
