"""Noises that are solved finely before anything is measured on them, once for each noise.

Where images are compared with fine solves, whoever measures first would have to make these: on
several workers each its own, and nobody would know whose bill it is.  So they are questions of
their own, asked before the first measurement of a noise begins, in portions that workers share;
workers find what others made where fine solves are kept (`s3search.evaluation.kept_solves`), and
make it themselves where nothing can be kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from s3search.search.conversation import Ask, Conversation
from s3search.search.questions import FineSolves, Measure, Rung

T = TypeVar("T")

_PORTION = 500  # images, whole blocks of noise


@dataclass
class SolvedNoises:
    """Of which noises fine solves were asked for; which measurements need them."""

    by_all: bool  # the metric or a guard compares with them
    by_validation: bool  # a second metric does, which sees the images of the validation alone
    _until: dict[tuple[int, bool], int] = field(default_factory=dict)  # images, by noise

    def missing(self, ask: Ask) -> tuple[FineSolves, ...]:
        """What a turn needs of solves that nobody has asked for yet."""
        found: list[FineSolves] = []
        for question in (*ask.begin, *ask.wait):
            if isinstance(question, Measure):
                found += self._portions(question)
        return tuple(found)

    def _portions(self, question: Measure) -> Iterator[FineSolves]:
        held_out = question.rung is Rung.VALIDATION
        if not (self.by_all or (held_out and self.by_validation)):
            return
        noise = question.noise_seed, held_out
        first = self._until.get(noise, 0)
        self._until[noise] = max(first, question.n_images)
        for start in range(first, question.n_images, _PORTION):
            yield FineSolves(
                first=start,
                n_images=min(_PORTION, question.n_images - start),
                noise_seed=question.noise_seed,
                held_out=held_out,
                nfe=max(1, question.trial.nfe),
            )


def solved_first(conversation: Conversation[T], noises: SolvedNoises) -> Conversation[T]:
    """The conversation, each turn after the solves that it needs."""
    try:
        ask = next(conversation)
        while True:
            solves = noises.missing(ask)
            if solves:
                yield Ask(begin=solves, wait=solves)
            answers = yield ask
            ask = conversation.send(answers)
    except StopIteration as end:
        result: T = end.value
        return result
