"""A search is a conversation: it yields questions, and is sent the answers.

It owns no socket, no clock and no database, and does not know whether an answer is a minute or a
month old.  With one seed, and the same answers, it asks the same questions in the same order;
how many workers answer them, and which of these is faster, changes nothing.  A search of one's own
is a class with `run`; `s3search.run.algorithms` finds it by its import path:

    class Halving:
        '''Random schedules; of each ten the best one is mutated.'''

        def __init__(self, setup: Setup) -> None: ...

        def run(self) -> Conversation[None]:
            answers = yield Ask()                          # what is known outside
            while not answers.outside.is_over:
                questions = tuple(self.setup.measure(trial) for trial in self.next_trials())
                answers = yield Ask(begin=questions, wait=questions)
                self.learn(answers.given)                  # one Measurement for each
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from s3search.search.early_stopping import SHARES, checkpoints
from s3search.search.ladder import DEFAULT_LADDER, LadderRung
from s3search.search.questions import (
    Answer,
    Decision,
    Measure,
    Measurement,
    Polish,
    PolishLoss,
    Question,
    Recall,
    Rung,
    Score,
    Thresholds,
    solve_calls,
)
from s3search.search.space import Problem
from s3search.search.trial import Trial

T = TypeVar("T")

DECISION = "decision"
"""The kind of the notes that `Recall` reads."""

_TRACED_PER_QUESTION = 4  # fixed numbers, so that the questions do not depend on the workers
_SCORED_PER_QUESTION = 16
_MOST_TRAJECTORY_IMAGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a search learned about itself, for people."""

    kind: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One turn of a search.

    ``begin`` may be started now, in this order; the turn ends when all of ``wait`` is answered.
    A search that keeps some questions under way waits for the oldest only.
    """

    begin: tuple[Question, ...] = ()
    wait: tuple[Question, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What depends on the world and not on the seed, as it was told at the end of a turn."""

    budget: float  # images that the search may spend in all, forward and backward calls alike
    is_over: bool = False  # whether a budget of time is spent
    vetoed: frozenset[str] = frozenset()  # ids of schedules that a person has rejected
    limits: str = ""  # the budget in words: what was told under another one holds no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answer to each of the questions that were waited for, in their order, and what is known
    outside.
    """

    given: tuple[Any, ...]
    outside: Outside


Conversation = Generator[Ask, Answers, T]
"""What `Search.run` is: yields `Ask`, is sent `Answers`."""


class Search(Protocol):
    """A search algorithm; a killed one is made anew and run from its beginning.

    One that has ``images_by_stage(budget)`` tells what each of its stages may spend, in images,
    of a budget of images, and is foretold stage by stage (`s3search.run.forecast`).
    """

    @property
    def total(self) -> int | None:
        """Measurements in all, None where the budget is time; for the progress bar."""

    def run(self) -> Conversation[None]:
        """Searches until the budget is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSeeds:
    """The seeds of a search's noises, which no validation shares."""

    search: int
    finals: int
    trajectory: int
    polish: int  # the first of many


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a search is given at its beginning."""

    problem: Problem
    nfe: tuple[int, ...]
    seed: int
    n_images: int  # of a whole measurement
    noise: NoiseSeeds
    seeds: tuple[Trial, ...] = ()  # published solvers and the user's own schedules, to begin with
    stock_first: bool = True  # `s3` measures those that are stock whole, before all others
    evaluations: int | None = None  # the budget in whole measurements, None where it is time
    batch: int = 16  # trials under way at once
    ladder: tuple[LadderRung, ...] = DEFAULT_LADDER
    keep_invariants: bool = False  # polished rows carry constants exactly
    polish_loss: PolishLoss = "metric"
    fine_targets: bool = False  # the metric compares images with fine solves
    solves: bool = False  # the metric or a guard does, which costs calls for every noise
    has_guards: bool = False  # the finals measure the best published solver too
    metric: str = "FD"  # its short name
    shares: tuple[float, ...] = SHARES  # of a whole measurement, at which one may be stopped

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of images at which a measurement may be stopped."""
        return checkpoints(self.n_images, self.shares)

    @property
    def solved_images(self) -> float:
        """What the fine solves of the search's noise cost, in images of its mean number of calls;
        0 where nothing is compared with them.
        """
        return solve_calls(self.n_images) * len(self.nfe) / sum(self.nfe) if self.solves else 0.0

    def measure(self, trial: Trial, thresholds: Thresholds = ()) -> Measure:
        """The question how good a trial is, on the noise that all of the search share."""
        return Measure(
            trial=trial,
            rung=Rung.SEARCH,
            n_images=self.n_images,
            noise_seed=self.noise.search,
            thresholds=thresholds,
        )

    def measure_again(self, trial: Trial, n_images: int) -> Measure:
        """The question how good a trial is on noise that nobody was chosen by."""
        noise_seed = self.noise.finals
        return Measure(trial=trial, rung=Rung.FINALS, n_images=n_images, noise_seed=noise_seed)

    def score(self, proxy: LadderRung | str, trials: Sequence[Trial]) -> tuple[Score, ...]:
        """The questions how good trials are by a proxy, some of them in each."""
        proxy = LadderRung(proxy)
        is_traced = proxy is LadderRung.TRAJECTORY
        size = _TRACED_PER_QUESTION if is_traced else _SCORED_PER_QUESTION
        return tuple(
            Score(
                proxy=proxy.value,
                trials=tuple(trials[i : i + size]),
                n_images=self.trajectory_images,
                noise_seed=self.noise.trajectory,
            )
            for i in range(0, len(trials), size)
        )

    def polish(self, trial: Trial, *, iterations: int, n_images: int, seed: int) -> Polish:
        """The question what gradient descent makes of a trial."""
        return Polish(
            trial=trial,
            iterations=iterations,
            n_images=n_images,
            seed=seed,
            noise_seed=self.noise.polish + seed,
            keep_invariants=self.keep_invariants,
            loss=self.polish_loss,
            fixed=self.problem.fixed_in_polish,
            keeps_steps=bool(self.problem.listed),
            whole_steps=self.problem.runtime.rounds(self.problem.process),
        )

    @property
    def trajectory_images(self) -> int:
        """Images of a trajectory's error: never more than at the first look of early stopping."""
        first = next(iter(self.looks), self.n_images)
        return min(_MOST_TRAJECTORY_IMAGES, first)


@dataclass
class Talk:
    """The asking side of a conversation, shared by the parts of one search."""

    outside: Outside = field(default_factory=lambda: Outside(budget=0.0))
    notes: list[Note] = field(default_factory=list)  # that go with the next turn
    seconds: float = 0.0  # that workers took for measurements and polishing
    images: float = 0.0  # of these
    rates: dict[str, float] = field(default_factory=dict)  # least seconds a schedule, by proxy
    _fitted: set[tuple[str, str]] = field(default_factory=set)  # proxies, by worker

    def turn(
        self, begin: Sequence[Question] = (), wait: Sequence[Question] = ()
    ) -> Conversation[tuple[Any, ...]]:
        """One turn; the answers to ``wait``."""
        notes, self.notes = tuple(self.notes), []
        answers = yield Ask(begin=tuple(begin), wait=tuple(wait), notes=notes)
        self.outside = answers.outside
        for given in answers.given:
            self._count(given)
        return answers.given

    def ask(self, questions: Sequence[Question]) -> Conversation[tuple[Any, ...]]:
        """The answers to all of the questions; nothing is asked where there are none."""
        if not questions:
            return ()
        given = yield from self.turn(questions, questions)
        return given

    def _count(self, given: Any) -> None:
        """Takes in what an answer took; a worker's first answer by a proxy holds its fit, which is
        no part of the rate.
        """
        match given:
            case Measurement(is_paid=False):
                self.seconds += given.seconds
                self.images += given.cost
            case Answer(question=Score(proxy=proxy, trials=trials)):
                worker = (proxy, given.worker)
                if worker in self._fitted and given.value is not None:
                    key, rate = proxy_rate(proxy, trials[0].nfe), given.seconds / len(trials)
                    self.rates[key] = min(self.rates.get(key, math.inf), rate)
                self._fitted.add(worker)
            case Answer():
                self.seconds, self.images = (
                    self.seconds + given.seconds,
                    self.images + given.images,
                )

    def recall(self, key: int | str) -> Conversation[Decision | None]:
        """What was decided before under this key, None where nobody knows."""
        (found,) = yield from self.turn(wait=(Recall(key=key),))
        decision: Decision | None = found
        return decision

    def note(self, kind: str, content: Mapping[str, Any]) -> None:
        """Keeps a record for people, with the next turn."""
        self.notes.append(Note(kind=kind, content=content))

    def decided(self, key: str, trials: Sequence[Trial], content: Mapping[str, Any]) -> None:
        """Keeps what was decided, for `recall`."""
        ids = [trial.id for trial in trials]
        self.note(DECISION, {"key": key, "schedules": ids, "content": dict(content)})


def proxy_rate(proxy: str, nfe: int) -> str:
    """Under which name `Talk.rates` has the seconds of a proxy."""
    return f"{proxy}, NFE {nfe}"


def scored(
    setup: Setup, talk: Talk, proxy: LadderRung, trials: Sequence[Trial]
) -> Conversation[list[float]]:
    """One proxy's scores of many trials, nan where there is none."""
    questions = setup.score(proxy, trials)
    answers = yield from talk.ask(questions)
    scores: list[float] = []
    for question, answer in zip(questions, answers, strict=True):
        nothing = [math.nan] * len(question.trials)
        scores += nothing if answer.value is None else answer.value
    return [score if math.isfinite(score) else math.nan for score in scores]


def unvalued(measured: Measurement) -> Measurement:
    """The measurement of a schedule that a person has rejected: as if it had not worked."""
    return Measurement(question=measured.question, error="vetoed", n_images=measured.n_images)
