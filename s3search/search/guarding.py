"""A search that hears of what breaks a guard as of what did not work (`s3search.search.guard`).

What it has polished is held to the guards too, as far as it was known then which published solver
is the best: a polish goes back on its way until it keeps them.  In the finals the best published
solver is measured beside the finalists, on their noise, since a limit holds for the images that
told it: they are judged by a number that was measured there, and not by that of the search.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from s3search.search.conversation import Answers, Ask, Conversation
from s3search.search.guard import Guard, broken_of, excesses
from s3search.search.questions import Measure, Measurement, Polish, Question, Rung

_Images = tuple[int, Rung, int, int]
"""Calls, rung, number of images, and the seed of their noise."""


@dataclass
class GuardLimits:
    """The guards of a study, and the best published solver so far, by number of calls and by the
    images that it made: values of other noise, or of other numbers of images, tell no limit.
    """

    guards: tuple[Guard, ...]
    _published: dict[_Images, Measurement] = field(default_factory=dict)

    def learn(self, measured: Measurement) -> None:
        """Looks whether this is the best published solver until now."""
        images, loss = _images_of(measured), measured.loss
        if loss is None or not measured.guards or not measured.trial.origin.is_baseline:
            return
        known = self._published.get(images)
        if known is None or known.loss is None or loss < known.loss:
            self._published[images] = measured

    def excesses(self, measured: Measurement) -> tuple[float, ...]:
        """By how much each guard is broken, above 0; none where nothing tells yet."""
        published = self._published.get(_images_of(measured))
        if published is None or not measured.guards:
            return ()
        return excesses(self.guards, measured.guards, published.guards)

    def held(self, question: Question) -> Question:
        """The question; a polish with the guards and the best published solver beside it."""
        if not isinstance(question, Polish):
            return question
        best = self._best_at(question.nfe)
        if best is None:
            return question
        return replace(question, guards=self.guards, beside=best.trial)

    def also_asked(self, ask: Ask) -> tuple[Measure, ...]:
        """The best published solver on the noise of the finals that begin, where nobody asks for
        it: one question for each number of calls, rung and noise.
        """
        finals = [q for q in ask.begin if isinstance(q, Measure) and q.rung is Rung.FINALS]
        asked = {question.key for question in finals}
        found: dict[str, Measure] = {}
        for question in finals:
            best = self._best_at(question.trial.nfe)
            if best is not None:
                own = replace(question, trial=best.trial)
                found[own.key] = own
        return tuple(own for key, own in found.items() if key not in asked)

    def _best_at(self, nfe: int) -> Measurement | None:
        """The best published solver with so many calls, on the search's noise."""
        known = self._published.items()
        best = (m for (calls, rung, *_), m in known if (calls, rung) == (nfe, Rung.SEARCH))
        return next(best, None)

    def judged(self, measured: Measurement) -> Measurement:
        """The measurement, or, where it is no published solver and breaks a guard, one that did
        not work.
        """
        if measured.trial.origin.is_baseline:
            return measured
        broken = broken_of(self.guards, self.excesses(measured))
        if not broken:
            return measured
        error = f"breaks the guard{'s' * (len(broken) > 1)} {', '.join(broken)}"
        return replace(measured, estimate=None, error=error, path={}, broken=broken)


def guarded(search: Conversation[None], guards: Sequence[Guard]) -> Conversation[None]:
    """A search that hears of what breaks a guard as of what did not work."""
    limits = GuardLimits(tuple(guards))
    try:
        ask = next(search)
        while True:
            also = limits.also_asked(ask)
            answers = yield _held_to(limits, ask, also)
            for each in answers.given:  # published ones tell the limits of those beside them
                if isinstance(each, Measurement):
                    limits.learn(each)
            given = tuple(
                limits.judged(each) if isinstance(each, Measurement) else each
                for each in answers.given[len(also) :]
            )
            ask = search.send(Answers(given=given, outside=answers.outside))
    except StopIteration:
        return


def _images_of(measured: Measurement) -> _Images:
    question = measured.question
    return measured.trial.nfe, question.rung, question.n_images, question.noise_seed


def _held_to(limits: GuardLimits, ask: Ask, also: tuple[Measure, ...]) -> Ask:
    """What is asked, with polishes that know the guards; ``also`` comes before it."""
    begin, wait = ((*also, *map(limits.held, each)) for each in (ask.begin, ask.wait))
    return replace(ask, begin=begin, wait=wait)
