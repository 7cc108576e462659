"""An editable schedule: what random draws, mutation and crossover work on.

A draft may break any rule; `finished` makes the schedule nearest to it that lies in the space and
makes exactly the wanted number of network calls.  So every operator of the search is free to edit
as it likes, and all of them yield valid schedules.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from s3search.processes import NoiseProcess
from s3search.rules import Prediction, level
from s3search.schedules.schedule import (
    CorrectorKind,
    Schedule,
    Start,
    StartKind,
    StatisticsReference,
    Step,
    needs_ems,
)
from s3search.schedules.spacing import EndRule, noisy_time
from s3search.search.compensating import random_compensation
from s3search.search.families import WITH_CORRECTOR, least_order, random_rule
from s3search.search.recipe import (
    FINISH,
    Choice,
    choice_of,
    possible,
    possible_estimates,
    relaxation_of,
    step_of,
    with_rule,
)
from s3search.search.space import CorrectorChoice, SearchSpace, Solver, highest_called_lam
from s3search.search.told import (
    LEAST_LAM,
    SLACK,
    Shift,
    random_shift,
    settled_shift,
    shift_of,
)

T = TypeVar("T")


@dataclass(slots=True)
class Draft:
    """Times down to the end level, the clean end left out, and one choice per step.

    A draft that ``denoises`` has as many choices as times, its last one is the step to the clean
    end; any other has one choice fewer.
    """

    process: NoiseProcess
    times: list[float]
    denoises: bool
    start: StartKind
    choices: list[Choice]
    first_shift: Shift | None = None  # of the network's time at the first call
    jumps: bool = False  # the first time lies below the noisy end, a Gaussian jump leads to it

    @property
    def n_calls(self) -> int:
        """Network calls that the choices make as they stand."""
        last = self.choices[-1]
        implicit = sum(choice.corrector is CorrectorKind.IMPLICIT for choice in self.choices)
        analytic = self.start is not StartKind.NETWORK
        return len(self.choices) - analytic + implicit + (last.corrector is not None)

    @property
    def calls_end(self) -> bool:
        """Whether the network is called at the end level: by `denoise` or a last corrector."""
        return self.denoises or self.choices[-1].corrector is not None

    def lams(self) -> list[float]:
        """lam of every time; that of the first is capped where it is pure noise."""
        return [lam_at(self.process, t) for t in self.times]

    def steps(self) -> tuple[Step, ...]:
        """The steps of the choices, at the times as they stand."""
        made = []
        for choice, t in zip(self.choices, self.times[1:], strict=False):
            step = step_of(choice)
            if choice.shift is not None:
                told = choice.shift.time(self.process, t)
                step = step.model_copy(update={"network_time": told})
            made.append(step)
        made += [step_of(choice) for choice in self.choices[len(made) :]]
        return tuple(made)

    def forget_shifts(self) -> None:
        """Tells the network every point's own time."""
        self.first_shift = None
        self.choices = [
            choice if choice.shift is None else replace(choice, shift=None)
            for choice in self.choices
        ]

    def place(self, index: int, lam: float) -> None:
        """Moves one time to ``lam``."""
        self.times[index] = self.process.time_of_lam(lam)

    def remove_step(self, rng: np.random.Generator) -> None:
        """Drops one step and the time it leads to, never the last step."""
        ends_free = self.denoises and len(self.times) > 2  # then the end level can be kept
        index = int(rng.integers(0, len(self.choices) - 1 - ends_free))
        del self.choices[index]
        del self.times[index + 1]

    def insert_step(self, space: SearchSpace, rng: np.random.Generator) -> None:
        """Splits one interval, the longer the likelier; the new step is like the one there."""
        lams = self.lams()
        if len(lams) == 1:  # one step straight to the clean end: there is no interval yet
            self.times.append(self.process.time_of_lam(random_end(space, self, rng)))
            self.choices.insert(0, replace(FINISH, prediction=space.usable_predictions[0]))
            return
        lengths = np.maximum(np.diff(lams), 1e-12)
        index = int(rng.choice(len(lengths), p=lengths / lengths.sum()))
        lam = lams[index] + lengths[index] * rng.uniform(0.3, 0.7)
        self.times.insert(index + 1, self.process.time_of_lam(float(lam)))
        like = self.choices[index]
        is_last = index == len(self.choices) - 1
        if is_last or like.corrector is CorrectorKind.IMPLICIT:
            like = replace(like, corrector=None)
        if like.shift is not None:  # it belongs to the time that the old step leads to
            like = replace(like, shift=None)
        self.choices.insert(index, like)


def draft_of(schedule: Schedule) -> Draft:
    """The draft that ``schedule`` came from; its times are kept to the last bit."""
    process, times = schedule.process, schedule.times
    denoises = times[-1] == process.clean_time
    choices = []
    for step, t in zip(schedule.steps, times[1:], strict=True):
        choice = choice_of(step)
        if step.network_time is not None:
            choice = replace(choice, shift=shift_of(process, t, step.network_time))
        choices.append(choice)
    return Draft(
        process=process,
        times=list(times[:-1] if denoises else times),
        denoises=denoises,
        start=schedule.start.kind,
        choices=choices,
        first_shift=shift_of(process, times[0], schedule.start.network_time),
        jumps=schedule.start.jump is not None,
    )


def finished(space: SearchSpace, draft: Draft, nfe: int, rng: np.random.Generator) -> Schedule:
    """The schedule of ``nfe`` calls nearest to the draft that lies in the space.

    Uses up the draft.  Steps are removed or inserted at random places until the calls are right.
    """
    process = draft.process
    _settle_first(space, draft)
    _settle_end(space, draft)
    starts = space.starts_for(process, draft.times[0])
    if draft.start not in starts:
        draft.start = starts[0]
    _settle(space, draft)
    while draft.n_calls > nfe:
        if len(draft.choices) == 1:
            draft.choices[0] = replace(draft.choices[0], corrector=None)
        else:
            draft.remove_step(rng)
        _settle(space, draft)
    while draft.n_calls < nfe:
        draft.insert_step(space, rng)
        _settle(space, draft)
    clean = (process.clean_time,) if draft.denoises else ()
    image = space.mean_image if draft.start is StartKind.AVERAGE_X0 else None
    first = draft.first_shift
    told = None if first is None else first.time(process, draft.times[0])
    steps = draft.steps()
    named = None
    if space.ems is not None and needs_ems(steps) is not None:
        named = StatisticsReference(digest=space.ems.digest)
    return Schedule(
        process=process,
        times=(*draft.times, *clean),
        start=Start(
            kind=draft.start,
            image=image,
            network_time=told,
            jump=space.jump if draft.jumps else None,
        ),
        steps=steps,
        statistics=named,
    )


def random_schedule(
    space: SearchSpace, process: NoiseProcess, nfe: int, rng: np.random.Generator
) -> Schedule:
    """A schedule of the space drawn at random: every choice uniform, the times by random shares of
    the way in lam, bent towards one of the ends.
    """
    start = pick(space.starts_for(process, noisy_time(process)), rng)
    n = nfe + (start is not StartKind.NETWORK)
    denoises = pick(space.end_rules, rng) is EndRule.DENOISE
    draft = Draft(process, [noisy_time(process)], denoises, start, [])
    jump = space.jump_lams(process)
    if jump is not None and start is StartKind.NETWORK and rng.random() < 0.5:
        draft.jumps = True
        draft.place(0, float(rng.uniform(*jump)))
    draft.choices = [random_choice(space, i + 1, rng) for i in range(n)]
    solvers = space.solvers_for(process)
    if len(solvers) > 1:
        draft.choices = [
            with_solver(space, process, pick(solvers, rng), choice, i + 1, rng)
            for i, choice in enumerate(draft.choices)
        ]
    draft.choices[-1] = replace(draft.choices[-1], corrector=None)
    if space.compensations and rng.random() < 0.5:
        draft.choices = [
            replace(choice, compensation=random_compensation(space, i + 1, rng))
            for i, choice in enumerate(draft.choices)
        ]
    n_intervals = n - denoises
    if n_intervals:
        first, last = draft.lams()[0], random_end(space, draft, rng)
        shares = np.cumsum(rng.dirichlet([4.0] * n_intervals))[:-1] ** math.exp(rng.normal(0, 0.3))
        inner = [process.time_of_lam(float(first + (last - first) * x)) for x in shares]
        draft.times += [*inner, process.time_of_lam(last)]
    if space.network_shift > 0.0 and rng.random() < 0.5:
        draft.first_shift = random_shift(space, process, draft.times[0], rng)
        for i, t in enumerate(draft.times[1:]):
            shift = random_shift(space, process, t, rng)
            draft.choices[i] = replace(draft.choices[i], shift=shift)
    return finished(space, draft, nfe, rng)


def random_choice(space: SearchSpace, n_points: int, rng: np.random.Generator) -> Choice:
    """The choices of one step with ``n_points`` evaluated before it, drawn uniformly."""
    order = min(pick(space.orders, rng), n_points)
    kind = pick(space.relaxations, rng)
    coefficient = random_coefficient(space, rng)
    corrector = pick(space.correctors, rng)
    return Choice(
        prediction=pick(space.usable_predictions, rng),
        order=order,
        start=pick(space.start_points, rng) if len(space.start_points) > 1 else -1,
        first_points=pick(possible_estimates(space, order), rng) if order > 1 else 0,
        relaxation=relaxation_of(kind, coefficient) if order > 1 else None,
        corrector=None if corrector is CorrectorChoice.NONE else CorrectorKind(corrector.value),
    )


def with_solver(
    space: SearchSpace,
    process: NoiseProcess,
    solver: Solver,
    choice: Choice,
    n_points: int,
    rng: np.random.Generator,
) -> Choice:
    """``choice`` as a step of another family, of its own order or the family's least.

    Taylor's where ``n_points`` are too few; without corrector where the family has none.
    """
    order = max(choice.order, least_order(solver))
    if solver is Solver.TAYLOR or order > min(n_points, max(space.orders)):
        return replace(choice, published=None)
    is_v3 = choice.prediction is Prediction.V3
    prediction = Prediction.DATA if is_v3 else choice.prediction
    rule = random_rule(space, process, solver, order, prediction, rng)
    new = with_rule(choice, rule)
    return new if solver in WITH_CORRECTOR else replace(new, corrector=None)


def random_coefficient(space: SearchSpace, rng: np.random.Generator) -> float:
    """A relaxation's coefficient: normal, a third of the limit wide."""
    limit = space.coefficient_limit
    return float(np.clip(rng.normal(0.0, limit / 3), -limit, limit))


def random_end(space: SearchSpace, draft: Draft, rng: np.random.Generator) -> float:
    """lam of an end level, uniform over the space's range."""
    low, high = space.end_lams(draft.process, called=draft.calls_end)
    return float(rng.uniform(low, high))


def problem(space: SearchSpace, schedule: Schedule) -> str | None:
    """Why ``schedule`` does not belong to the space, or None when it does."""
    if space.nfe and schedule.nfe not in space.nfe:
        return f"nfe: {schedule.nfe} is not one of {list(space.nfe)}"
    return _frame_problem(space, schedule) or _step_problem(space, schedule)


def lam_at(process: NoiseProcess, t: float) -> float:
    """lam, no lower than where the search of times begins."""
    return max(level(process, t).lam, LEAST_LAM)


def _frame_problem(space: SearchSpace, schedule: Schedule) -> str | None:
    """What is wrong with times, end rule, start or model patch."""
    process, draft = schedule.process, draft_of(schedule)
    first = draft.times[0]
    _settle_first(space, draft)
    if (schedule.start.jump is not None) != draft.jumps or schedule.start.jump not in (
        None,
        space.jump,
    ):
        return "start.jump: is not a choice of the space"
    if first != draft.times[0] and draft.jumps:
        return f"times[0]: a jump lands at sigma / alpha in {list(space.jump_sigma or ())}"
    if first != draft.times[0]:
        draft.times[0] = first
        return f"times[0]: {draft.times[0]} is not the noisy end {noisy_time(process)}"
    rule = EndRule.DENOISE if draft.denoises else EndRule.STOP
    if rule not in space.end_rules:
        return f"times: the end rule is {rule.value!r}, the space has {_words(space.end_rules)}"
    if draft.start not in space.starts_for(process, draft.times[0]):
        return f"start.kind: {draft.start.value!r} is not one of {_words(space.starts)}"
    if schedule.start.image is not None and schedule.start.image != space.mean_image:
        return "start.image: is not the space's mean image"
    if schedule.model_patch is not None:
        return "model_patch: the space changes no network"
    if schedule.statistics is not None:
        own = None if space.ems is None else space.ems.digest
        if schedule.statistics.digest != own:
            return "statistics: are not those of the space"
    before = list(draft.times)
    settle_times(space, draft)
    for i, (old, new) in enumerate(zip(before, draft.times, strict=True)):
        if old != new:
            return (
                f"times[{i}]: {old} must be at least {space.min_gap} in lam from its neighbours, "
                f"the end level's sigma / alpha in {list(space.end_sigma)}"
            )
    return None


def _step_problem(space: SearchSpace, schedule: Schedule) -> str | None:
    levels = [level(schedule.process, t) for t in schedule.times]
    draft = draft_of(schedule)
    written, first_shift = draft.steps(), draft.first_shift
    before = list(draft.choices)
    _settle_shifts(space, draft)
    if draft.first_shift != first_shift:
        return "start.network_time: is not a choice of the space"
    for i, (step, choice) in enumerate(zip(schedule.steps, before, strict=True)):
        is_last = i == len(schedule.steps) - 1
        allowed = possible(choice, space, levels[: i + 1], levels[i + 1], is_last=is_last)
        if allowed.compensation != choice.compensation:
            return f"steps[{i}].compensation: is not a choice of the space"
        if draft.choices[i].shift != choice.shift:
            return f"steps[{i}].network_time: is not a choice of the space"
        if allowed == choice and written[i] == step:
            continue
        if levels[i + 1].sigma == 0.0 and choice.order == 1 and choice.corrector is None:
            continue  # any first-order step to the clean end is the same map
        names = ("prediction", "order", "first_points", "relaxation", "start", "corrector")
        wrong = [name for name in (*names, "published") if _differ(choice, allowed, name)]
        return f"steps[{i}]: {wrong[0] if wrong else 'corrector'} is not a choice of the space"
    return None


def _differ(a: Choice, b: Choice, name: str) -> bool:
    return bool(getattr(a, name) != getattr(b, name))


def _settle_first(space: SearchSpace, draft: Draft) -> None:
    """Puts the first time at the noisy end, or where a jump may land; jumps begin at the network's
    own first prediction.
    """
    limits = space.jump_lams(draft.process)
    if not draft.jumps or limits is None:
        draft.jumps = False
        draft.times[0] = noisy_time(draft.process)
        return
    draft.start = StartKind.NETWORK
    lam, (low, high) = draft.lams()[0], limits
    if not low - SLACK <= lam <= high + SLACK:
        draft.place(0, min(max(lam, low), high))


def _settle_end(space: SearchSpace, draft: Draft) -> None:
    """Makes the end rule one of the space's."""
    rule = EndRule.DENOISE if draft.denoises else EndRule.STOP
    if rule not in space.end_rules:
        set_end_rule(space, draft, denoises=not draft.denoises)


def set_end_rule(space: SearchSpace, draft: Draft, *, denoises: bool) -> None:
    """Adds the step to the clean end, or takes it away; the end level stays."""
    if denoises and not draft.denoises:
        draft.choices[-1] = replace(draft.choices[-1], corrector=None)
        draft.choices.append(FINISH)
    elif draft.denoises and not denoises:
        if len(draft.choices) > 1:
            draft.choices.pop()
        else:  # the only step now ends at the noisiest end level
            low, _ = space.end_lams(draft.process, called=False)
            draft.times.append(draft.process.time_of_lam(low))
    draft.denoises = denoises


def _settle(space: SearchSpace, draft: Draft) -> None:
    settle_times(space, draft)
    levels = [level(draft.process, t) for t in draft.times]
    if draft.denoises:
        levels.append(level(draft.process, draft.process.clean_time))
    n = len(draft.choices)
    draft.choices = [
        possible(choice, space, levels[: i + 1], levels[i + 1], is_last=i == n - 1)
        for i, choice in enumerate(draft.choices)
    ]
    _settle_shifts(space, draft)


def _settle_shifts(space: SearchSpace, draft: Draft) -> None:
    """Brings shifts into their range, and gives up those of a schedule that can have none: a
    velocity and a compensation mix predictions that a shift tells apart.
    """
    if draft.first_shift is None and all(choice.shift is None for choice in draft.choices):
        return
    if any(c.compensation is not None or step_of(c).mixes_predictions for c in draft.choices):
        draft.forget_shifts()
        return
    called = draft.first_shift if draft.start is StartKind.NETWORK else None
    draft.first_shift = settled_shift(space, draft.process, draft.times[0], called)
    n = len(draft.choices)
    for i, choice in enumerate(draft.choices):
        is_called = i < n - 1 or choice.corrector is not None
        shift = choice.shift if is_called and i + 1 < len(draft.times) else None
        t = draft.times[min(i + 1, len(draft.times) - 1)]
        shift = settled_shift(space, draft.process, t, shift)
        if shift != choice.shift:
            draft.choices[i] = replace(choice, shift=shift)


def settle_times(space: SearchSpace, draft: Draft) -> None:
    """Moves the end level into its range and the other times apart, as little as that takes."""
    n = len(draft.times) - 1
    if n == 0:
        return
    old = draft.lams()
    low, high = space.end_lams(draft.process, called=draft.calls_end)
    lams = list(old)
    if not low - SLACK <= lams[n] <= high + SLACK:
        lams[n] = min(max(lams[n], low), high)
    cleanest = highest_called_lam(draft.process)
    gap = min(space.min_gap, (min(lams[n], cleanest) - lams[0]) / (2 * n))
    for i in range(1, n):
        if lams[i] < lams[i - 1] + gap - SLACK:
            lams[i] = lams[i - 1] + gap
    for i in range(n - 1, 0, -1):
        most = min(lams[i + 1] - gap, cleanest)
        if lams[i] > most + SLACK:
            lams[i] = most
    for i in range(1, n + 1):
        if lams[i] != old[i]:
            draft.place(i, lams[i])


def _words(values: Sequence[EndRule] | Sequence[StartKind]) -> str:
    return ", ".join(repr(value.value) for value in values)


def pick(values: Sequence[T], rng: np.random.Generator) -> T:
    """One of the values, each as likely."""
    return values[int(rng.integers(len(values)))]
