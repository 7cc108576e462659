"""What each stage of a search gained, kept while its answers come.

A stage is "stock" (the solvers that everybody has), "seeds" (published and the user's own),
"evolution", a round of polishing, or "finals", whose distances are of other noise and gain
nothing.  Gains are of the least distance on the search's own noise, and shares of what all stages
together gained over the best published schedule.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from s3search.search.questions import Answer, Measurement, PolishResult, Rung

STOCK, SEEDS, EVOLUTION, FINALS = "stock", "seeds", "evolution", "finals"


@dataclass(slots=True, kw_only=True)
class StageGain:
    """One stage: what it was asked and took, and the least distance before and after it."""

    stage: str
    n: int = 0  # schedules measured
    n_polished: int = 0  # that gradient descent was asked for
    failed: int = 0  # of both
    failed_polishings: int = 0
    broken: int = 0  # measured, and break a guard: they have not failed
    by_differences: int = 0  # polished without a gradient
    network_calls: float = 0.0  # image-calls, forward and backward
    seconds: float = 0.0  # of workers
    before: float | None = None
    after: float | None = None
    share: float | None = None  # of what the search gained; None where it gained nothing
    error: str | None = None  # the first one

    def add(self, answer: Measurement | Answer, network_calls: float, *, failed: bool) -> None:
        """Counts one answer."""
        is_measured = isinstance(answer, Measurement)
        self.n, self.n_polished = self.n + is_measured, self.n_polished + (not is_measured)
        self.network_calls += network_calls
        self.seconds += answer.seconds
        self.failed += failed
        self.failed_polishings += failed and not is_measured
        self.by_differences += _is_by_differences(answer)
        if failed and self.error is None:
            self.error = answer.error

    @property
    def warning(self) -> str | None:
        """What is to be said aloud of a stage that came to nothing."""
        if self.n and self.broken == self.n:
            return f"{self.stage}: all {self.n} measured break a guard"
        of, failed = self.n, self.failed
        if self.n_polished:
            of, failed = self.n_polished, self.failed_polishings
        if not of or failed < of:
            return None
        kind = "polishings" if self.n_polished else "measurements"
        return f"{self.stage}: all {of} {kind} failed: {self.error}"


class Gains:
    """The stages at one number of network calls, in the order in which they began."""

    def __init__(self, nfe: int) -> None:
        self._nfe = nfe
        self._stages: dict[str, StageGain] = {}
        self._now = SEEDS
        self._values: list[tuple[str, str, float, bool]] = []  # stage, trial, loss, is published

    def begin(self, stage: str) -> None:
        """What is answered from here on belongs to this stage."""
        self._now = stage

    def add(self, answers: Iterable[Measurement | Answer], stage: str | None = None) -> None:
        """Counts the answers of the present stage, or of another one that is present from now."""
        self._now = stage or self._now
        for answer in answers:
            if isinstance(answer, Measurement):
                self._add_measurement(answer)
            else:
                self._stage(self._now).add(
                    answer, answer.network_calls, failed=answer.value is None
                )

    def content(
        self, proxies: Mapping[str, Any], vetoed: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """All of it in plain data, with what is known of the proxies; what is ``vetoed``, by
        schedule id, gained nothing.
        """
        stages = list(self._stages.values())
        standing = [each for each in self._values if each[1] not in vetoed]
        published = min((v for *_, v, is_published in standing if is_published), default=None)
        best: float | None = None
        for each in stages:
            own = [v for stage, _, v, _ in standing if stage == each.stage]
            each.before = best
            best = min([*own, *([] if best is None else [best])], default=None)
            each.after = None if each.stage == FINALS else best
        _share_out(stages, published, best)
        warnings = [f"NFE {self._nfe}: {w}" for each in stages if (w := each.warning) is not None]
        return {
            "nfe": self._nfe,
            "published": published,
            "stages": [{**asdict(each), "seconds": round(each.seconds, 3)} for each in stages],
            "proxies": dict(proxies),
            "warnings": warnings,
        }

    def _add_measurement(self, answer: Measurement) -> None:
        is_stock = self._now == SEEDS and answer.trial.origin.is_stock
        stage = self._stage(STOCK if is_stock else self._now)
        failed = answer.estimate is None and not answer.broken
        # a stored measurement does not say how many calls an image took
        stage.add(answer, answer.cost * answer.trial.nfe, failed=failed)
        stage.broken += bool(answer.broken)
        if answer.loss is not None and answer.question.rung is Rung.SEARCH:
            is_published = answer.trial.origin.is_baseline
            self._values.append((stage.stage, answer.trial.id, answer.loss, is_published))

    def _stage(self, name: str) -> StageGain:
        return self._stages.setdefault(name, StageGain(stage=name))


def _is_by_differences(answer: Measurement | Answer) -> bool:
    made = answer.value if isinstance(answer, Answer) else None
    return isinstance(made, PolishResult) and "polished_by" in made.schedule.provenance


def _share_out(stages: Sequence[StageGain], published: float | None, best: float | None) -> None:
    """Gives each stage its share of what all gained over the best published schedule."""
    gained = 0.0 if published is None or best is None else published - best
    for each in stages:
        each.share = None
        if gained > 0 and published is not None and each.after is not None:
            before = published if each.before is None else min(each.before, published)
            each.share = max(0.0, before - min(each.after, published)) / gained
