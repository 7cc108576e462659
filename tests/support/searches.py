"""Searches without workers and databases: what they are set up with, and who answers them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from s3search.processes import NoiseProcess
from s3search.schedules.schedule import Schedule
from s3search.search.conversation import Answers, Ask, Conversation, NoiseSeeds, Outside, Setup
from s3search.search.questions import Measure, Measurement, Question, Recall, Rung
from s3search.search.space import Problem, SpaceConfig
from s3search.search.trial import Trial, published_as, searched

NOISE = NoiseSeeds(search=0, finals=2**63, trajectory=2**64, polish=2**65)


def setup_of(
    space: SpaceConfig,
    process: NoiseProcess,
    *,
    nfe: Iterable[int],
    seed: int = 0,
    seeds: Mapping[str, Schedule] | Sequence[Trial] = (),
    found: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Setup:
    """What a search is set up with; seeds by name are published solvers, ``found`` is what the
    workers know of the model.
    """
    given = published(seeds) if isinstance(seeds, Mapping) else tuple(seeds)
    values = {"n_images": 80, "noise": NOISE} | changes
    problem = Problem.found(space, process, **(found or {}))
    return Setup(problem=problem, nfe=tuple(nfe), seed=seed, seeds=given, **values)


def published(schedules: Mapping[str, Schedule]) -> tuple[Trial, ...]:
    """Schedules as trials of published solvers: a name is "solver, variant"."""
    return tuple(
        Trial.of(schedule, published_as(*name.split(", ", maxsplit=1)))
        for name, schedule in schedules.items()
    )


def measured(
    schedule: Schedule | Trial,
    value: float | None,
    number: int = 0,
    *,
    n_images: int = 80,
    path: Mapping[int, float] | None = None,
) -> Measurement:
    """What a search is told of a schedule; None where it failed."""
    trial = schedule
    if isinstance(trial, Schedule):
        trial = Trial.of(trial, searched("test"), number=number)
    question = Measure(trial=trial, rung=Rung.SEARCH, n_images=n_images, noise_seed=0)
    seen = 0 if value is None else n_images
    return Measurement(question=question, estimate=value, n_images=seen, path=path or {})


def facts(trial: Trial) -> tuple[int | None, str, str, tuple[str, ...]]:
    """Number, schedule, origin and parents: equal for trials that are the same."""
    return trial.number, trial.id, trial.origin.text, trial.parents


class Bench:
    """Answers a conversation question by question, and remembers what was asked."""

    def __init__(self, budget: float = 1e9) -> None:
        self.budget = budget
        self.asked: list[Question] = []  # each once, in order
        self.notes: list[tuple[str, Mapping[str, Any]]] = []
        self._known: dict[str, Any] = {}

    @property
    def trials(self) -> list[Trial]:
        """What was measured on the search's noise."""
        return [q.trial for q in self.asked if isinstance(q, Measure) and q.rung is Rung.SEARCH]

    def answer(self, question: Question) -> Any:
        """The answer to a question that was not asked before."""
        raise NotImplementedError

    def outside(self) -> Outside:
        """What the search is told beside the answers."""
        return Outside(budget=self.budget)

    def run(self, conversation: Conversation[Any]) -> Any:
        """Runs a conversation to its end; what it returns."""
        answers: Answers | None = None
        while True:
            try:
                ask = next(conversation) if answers is None else conversation.send(answers)
            except StopIteration as end:
                return end.value
            answers = self._answers(ask)

    def _answers(self, ask: Ask) -> Answers:
        self.notes += [(note.kind, note.content) for note in ask.notes]
        for question in (*ask.begin, *ask.wait):
            if not isinstance(question, Recall) and question.key not in self._known:
                self.asked.append(question)
                self._known[question.key] = self.answer(question)
        given = tuple(None if isinstance(q, Recall) else self._known[q.key] for q in ask.wait)
        return Answers(given=given, outside=self.outside())


def proposals(
    make: Callable[[], Any], n: int, value: Callable[[Schedule], float | None]
) -> list[Trial]:
    """The first ``n`` trials of a proposer that is told each at once."""
    proposer, found = make(), []
    for number in range(n):
        trial = proposer.propose(number, [])
        proposer.tell(measured(trial, value(trial.schedule)))
        found.append(trial)
    return found
