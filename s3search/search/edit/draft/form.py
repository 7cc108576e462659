"""The editable form of a schedule, its way there, and what editing it takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from s3search.processes import NoiseProcess
from s3search.rules import level
from s3search.schedules.published.listed import ListedSolver, listed_solver_of
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind, Step
from s3search.search.edit.network_time import LEAST_LAM, Shift, shift_of
from s3search.search.edit.recipe import FINISH, Choice, choice_of, step_of
from s3search.search.space import Problem

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
    scaled_at: tuple[float, float] | None = None  # a first time, and the start's noise_scale there
    jumps: bool = False  # the first time lies below the noisy end, a Gaussian jump leads to it
    listed: ListedSolver | None = None  # whose steps these are, where other programs run it

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
                network_time = choice.shift.time(self.process, t)
                step = step.model_copy(update={"network_time": network_time})
            made.append(step)
        made += [step_of(choice) for choice in self.choices[len(made) :]]
        return tuple(made)

    @property
    def noise_scale(self) -> float | None:
        """The start's own scale of noise, which holds for its first time alone."""
        if self.scaled_at is None or self.jumps:
            return None
        first, scale = self.scaled_at
        return scale if first == self.times[0] else None

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

    def insert_step(self, problem: Problem, rng: np.random.Generator) -> None:
        """Splits one interval, the longer the likelier; the new step is like the one there."""
        lams = self.lams()
        if len(lams) == 1:  # one step straight to the clean end: there is no interval yet
            self.times.append(self.process.time_of_lam(random_end(problem, self, rng)))
            self.choices.insert(0, replace(FINISH, prediction=problem.predictions[0]))
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
    """The draft that ``schedule`` came from; its times are kept to the last bit, in falling order
    even where a restart raises one.
    """
    process, times = schedule.process, schedule.times
    listed = listed_solver_of(schedule)
    denoises = times[-1] == process.clean_time or listed is not None
    choices, scale = [], schedule.start.noise_scale
    for step, t in zip(schedule.steps, times[1:], strict=True):
        choice = choice_of(step)
        if step.network_time is not None:
            choice = replace(choice, shift=shift_of(process, t, step.network_time))
        choices.append(choice)
    return Draft(
        process=process,
        times=sorted(times[:-1] if denoises else times, reverse=True),
        denoises=denoises,
        start=schedule.start.kind,
        choices=choices,
        first_shift=shift_of(process, times[0], schedule.start.network_time),
        scaled_at=None if scale is None else (times[0], scale),
        jumps=schedule.start.jump is not None,
        listed=listed,
    )


def random_first(problem: Problem, rng: np.random.Generator) -> float:
    """One of the times at which schedules may begin; nothing is drawn where there is one."""
    times = problem.first_times
    return pick(times, rng) if len(times) > 1 else times[0]


def random_end(problem: Problem, draft: Draft, rng: np.random.Generator) -> float:
    """lam of an end level, uniform over the space's range."""
    low, high = problem.end_lams(called=draft.calls_end)
    return float(rng.uniform(low, high))


def lam_at(process: NoiseProcess, t: float) -> float:
    """lam, no lower than where the search of times begins."""
    return max(level(process, t).lam, LEAST_LAM)


def pick(values: Sequence[T], rng: np.random.Generator) -> T:
    """One of the values, each as likely."""
    return values[int(rng.integers(len(values)))]
