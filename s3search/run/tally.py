"""What a person who waits wants to know of a search, kept while the answers come."""

import time
from collections.abc import Mapping
from typing import Any

from s3search.search.conversation import Note, Outside
from s3search.search.questions import HELD_OUT_SOLVES, Answer, Measurement, Rung
from s3search.study.database.store import StudyStore
from s3search.study.file.config import SearchTable
from s3search.study.log import Log
from s3search.study.metric_words import MetricWords
from s3search.study.results.budget import budget_words, share_of
from s3search.study.results.gains import GAINS, gains_of, in_values
from s3search.study.results.progress import (
    Progress,
    RecentRate,
    RunToday,
    Spend,
    quality_of,
    seconds_left,
    whole_share,
    with_validation,
)
from s3search.study.results.watching import (
    bests_of,
    held_out_of,
    predictor_of,
    spend_of,
    today_of,
    warnings_of,
)

_HELD_OUT_SECONDS = 1.0  # between two looks at what is validated
_VETO_SECONDS = 1.0  # between two looks at what a person has rejected


class Tally:
    """Counts, bests and costs of one study, and what they make of its budget."""

    def __init__(
        self,
        store: StudyStore,
        log: Log,
        *,
        total: int | None,
        spent_before: float,
        to_validate: int = 0,
    ) -> None:
        self._store, self._log = store, log
        self._search: SearchTable = store.config.search
        self._n_images = self._search.n_images
        self._spent_before = spent_before  # evaluations that the budget has lost to earlier spaces
        self._total = total
        self._after = to_validate * store.config.held_out_images  # images of the validation
        self._began = time.monotonic()
        self._images = 0.0  # made now, of whatever rung
        self._failed = 0
        self._spend = spend_of(store)  # by rung and kind of job
        self._spent = store.images_spent()  # of the search, earlier runs included
        self._look_at_bests()
        self._predictor = predictor_of(store)  # by NFE
        self._warnings = warnings_of(store)
        self._gains: list[Mapping[str, Any]] = [
            *gains_of(store.notes(GAINS), store.config.direction)
        ]
        self._rate = RecentRate(self._began)
        self._held_out, self._held_out_at = held_out_of(store), self._began
        self._vetoed: frozenset[str] = frozenset(store.vetoes())
        self._looked_at = self._began

    def see(self, answer: Measurement | Answer) -> str:
        """Counts one answer; the stage that it belongs to."""
        if isinstance(answer, Answer):
            self._images += answer.images
            if answer.question.kind != HELD_OUT_SOLVES:
                self._spent += answer.images
            self._count(answer.question.kind, answer.network_calls, answer.seconds)
            return answer.question.kind
        self._images += answer.cost
        self._failed += answer.estimate is None
        if answer.question.rung in (Rung.SEARCH, Rung.FINALS):
            self._spent += answer.cost
        for measured in (answer, answer.second):
            if measured is not None:
                self._count(measured.rung.value, measured.network_calls, measured.seconds)
        return self._ranked(answer)

    def hear(self, note: Note) -> None:
        """Takes in what the search learned about its predictor, and what each stage gained."""
        if note.kind == GAINS:
            self._gains = [*(g for g in self._gains if g["nfe"] != note.content["nfe"])]
            self._gains.append(in_values(note.content, self._store.config.direction))
            new = [each for each in note.content["warnings"] if each not in self._warnings]
            self._warnings = (*self._warnings, *new)
        found = quality_of(note.kind, note.content)
        if found is not None:
            self._predictor[found[0]] = found[1]

    def outside(self) -> Outside:
        """What holds now: the budget in images, whether it is over, what is vetoed."""
        limits = [
            f"{name}={value}"
            for name in ("evaluations", "wall_seconds", "gpu_seconds")
            if (value := getattr(self._search, name)) is not None
        ]
        return Outside(
            budget=self._budget() - self._spent_before * self._n_images,
            is_over=self._is_over(),
            vetoed=self._vetoes(),
            limits=", ".join(limits),
        )

    def progress(
        self, stage: str, n_pending: int, n_workers: int, validated: tuple[int, int] | None = None
    ) -> Progress:
        """How far the study is; ``validated``: how many of how many finalists are."""
        now = time.monotonic()
        rate = self._rate.per_second(now, self._images)
        busy, worked, elapsed = min(n_pending, n_workers), self._worker_seconds, now - self._began
        if validated is None:
            checked, waiting = 0, self._after
            done, total = round(self._spent / self._n_images), self._total
            images = None if total is None else (total - done) * self._n_images
            left = seconds_left(
                self._search,
                images=images,
                images_per_second=rate,
                worker_seconds=worked,
                workers_busy=busy,
                elapsed=elapsed,
            )
            left = with_validation(left, self._after, rate)
            share = share_of(self._search, total, self._spent, worked, elapsed)
        else:
            done, total = validated
            held_out = self._store.config.held_out_images
            checked, waiting = done * held_out, (total - done) * held_out
            share, left = 1.0, waiting / rate if rate else None
            if done == total or now - self._held_out_at >= _HELD_OUT_SECONDS:
                self._held_out, self._held_out_at = held_out_of(self._store), now
        return Progress(
            stage=stage,
            done=done,
            total=total,
            best=dict(self._best),
            best_baseline=dict(self._best_baseline),
            held_out=self._held_out[0],
            held_out_baseline=self._held_out[1],
            predictor=dict(self._predictor),
            failed=self._failed,
            images_per_second=rate,
            seconds_left=left,
            workers_busy=busy,
            workers=n_workers,
            spend=dict(self._spend),
            budget=budget_words(self._search, self._total),
            share=share,
            warnings=self._warnings,
            gains=tuple(self._gains),
            whole=whole_share(share, self._spent, checked, waiting),
            today=dict(self._today),
            words=MetricWords.of(self._store.config.metric),
        )

    def _ranked(self, answer: Measurement) -> str:
        """Keeps the best of the search's rung; the stage of a measurement."""
        rung, value = answer.question.rung, answer.value
        if rung is not Rung.SEARCH:
            return rung.value
        first = self._log.trial(answer.trial.id) or answer.trial
        is_baseline = first.origin.is_baseline
        breaks = any(excess > 0.0 for excess in self._log.limits.excesses(answer))
        is_out = (breaks and not is_baseline) or answer.trial.id in self._vetoes()
        if value is not None and not is_out:
            side = self._best_baseline if is_baseline else self._best
            nfe, direction = answer.trial.nfe, answer.direction
            if nfe not in side or direction.is_better(value, side[nfe]):
                side[nfe] = value
            if first.origin.is_stock:
                today = RunToday.of(first.origin, value)
                self._today[nfe] = today.better(self._today.get(nfe), direction)
        return "baselines" if is_baseline else "search"

    def _look_at_bests(self) -> None:
        self._best, self._best_baseline = bests_of(self._store)
        self._today = today_of(self._store)

    def _count(self, name: str, network_calls: int, seconds: float) -> None:
        self._spend[name] = self._spend.get(name, Spend()).plus(network_calls, seconds)

    @property
    def _worker_seconds(self) -> float:
        """Of all that was measured, failures and earlier runs included: the sum of the database,
        kept here, since it is asked for after every answer.
        """
        return sum(each.seconds for each in self._spend.values())

    def _budget(self) -> float:
        """Images, from the number of evaluations, else from the time and the rate so far."""
        search = self._search
        if search.evaluations is not None:
            return float(search.evaluations * search.n_images)
        worked = max(self._worker_seconds, 1e-9)
        if search.gpu_seconds is not None and search.wall_seconds is None:
            return self._spent / worked * search.gpu_seconds
        assert search.wall_seconds is not None
        elapsed = max(time.monotonic() - self._began, 1e-9)
        rate = self._images / elapsed if self._images else self._spent / worked
        return self._spent + rate * max(search.wall_seconds - elapsed, 0.0)

    def _is_over(self) -> bool:
        search = self._search
        elapsed = time.monotonic() - self._began
        if search.wall_seconds is not None and elapsed >= search.wall_seconds:
            return True
        limit = search.gpu_seconds
        return limit is not None and self._worker_seconds >= limit

    def _vetoes(self) -> frozenset[str]:
        """What a person has rejected, at most a second ago; the bests follow."""
        now = time.monotonic()
        if now - self._looked_at >= _VETO_SECONDS:
            found, self._looked_at = frozenset(self._store.vetoes()), now
            if found != self._vetoed:
                self._vetoed = found
                self._store.keep_vetoes()
                self._look_at_bests()
        return self._vetoed
