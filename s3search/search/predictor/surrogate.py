"""What the cheap rungs say of schedules, and how far to believe it.

The surrogate asks for the proxies' scores of seeds and children, as long as these are worth their
seconds, learns from what was then measured how they rank, and chooses which children are
measured.  It is trained anew whenever the measured schedules have become half as many again.
Where the cross-validated forecasts are no better than chance, it chooses nothing: the children are
taken as they come, and no more are made than are measured.  A free proxy orders the seeds only as
far as it has ranked the first of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from s3search.search.conversation import Conversation, Setup, Talk
from s3search.search.ladder import PROXIES, LadderRung
from s3search.search.predictor.acquire import acquire, places
from s3search.search.predictor.base import Example, Forecast
from s3search.search.predictor.calibration import calibration_of
from s3search.search.predictor.choice import ChosenPredictor, choose
from s3search.search.predictor.free_proxies import FreeProxies
from s3search.search.predictor.positive import PositiveScale
from s3search.search.predictor.proxy_correlation import (
    Column,
    early_columns,
    ladder_of,
    number,
    points,
    whole_column,
)
from s3search.search.predictor.ranks import rank_correlation
from s3search.search.predictor.trajectory import OFFERED, TrajectoryFilter
from s3search.search.questions import Measurement
from s3search.search.trial import Trial

_GROWTH = 1.5  # of the measured schedules between two trainings
_LEAST = 12
_MOST = 300  # newest examples that a training sees
_SEQUENCE_FROM = 150


class Surrogate:
    """Proxies and predictor at one number of network calls.

    ``useless`` says which proxies ranked badly at fewer calls, and why.
    """

    def __init__(self, setup: Setup, talk: Talk, useless: dict[str, str] | None = None) -> None:
        self._setup, self._talk = setup, talk
        self.proxies = FreeProxies(setup, talk, useless)
        self._predicts = LadderRung.PREDICTOR in setup.ladder
        is_traced = LadderRung.TRAJECTORY in setup.ladder
        self._trajectory = TrajectoryFilter(setup, talk, is_used=is_traced)
        self._billed = 0.0
        self._learned: list[tuple[Trial, float]] = []
        self._trained_on = 0  # schedules
        self._is_due = False  # to be trained, at the first look at a forecast
        self._seeing: list[str] = []  # proxies that the training may use
        self._chosen: ChosenPredictor | None = None
        self._positive = PositiveScale()  # of the losses that it was trained on
        self._forecasts: dict[str, tuple[float, float]] = {}
        self._stage = 0
        self._vetoed: frozenset[str] = frozenset()

    @property
    def is_useful(self) -> bool:
        """Whether it can choose among children."""
        if self._trajectory.is_used:
            return True
        if not self._predicts:
            return False
        chosen = self._trained()
        return chosen is None or chosen.trusted

    def order(self, trials: Sequence[Trial]) -> Conversation[list[int]]:
        """Indices by the free proxies' ranks, each weighted by how it ranked what was measured,
        the unscored last; as they came where no proxy orders them.
        """
        yield from self.proxies.score(trials)
        ranks = np.zeros(len(trials))
        for name in self.proxies.asked:
            scores = np.array([self.proxies.of(trial).get(name, math.nan) for trial in trials])
            scores = np.where(np.isnan(scores), np.inf, scores)
            own = np.argsort(np.argsort(scores, kind="stable"))
            ranks += self.proxies.weight(name) * own
        return [int(i) for i in np.argsort(ranks, kind="stable")]

    def bill(self) -> float:
        """Images that its questions took since this was last asked."""
        before, self._billed = self._billed, self._trajectory.images
        return self._billed - before

    def learn(self, measured: Sequence[Measurement]) -> Conversation[None]:
        """Learns what was measured whole, and notes how that was forecast."""
        whole = [(m.trial, m.loss) for m in measured if m.loss is not None]
        self.proxies.n_measured += len(measured)
        yield from self.proxies.score([trial for trial, _ in whole])
        self._learned += whole
        self.proxies.judge(self._learned_from())
        yield from self._trajectory.learn(measured)
        self._note_calibration(whole)

    def leave_out(self, vetoed: frozenset[str]) -> None:
        """Learns nothing from these schedules any more, and forgets what it had learned."""
        self._vetoed, self._trained_on = vetoed, 0
        self._chosen, self._is_due = None, False

    def grow(self) -> None:
        """Notices whether enough was measured to be trained anew."""
        n = len(self._learned_from())
        if self._predicts and n >= max(_LEAST, _GROWTH * self._trained_on):
            self._trained_on, self._is_due = n, True
            self._seeing = self.proxies.asked  # whenever it is trained, as a resumed search may
            self._stage += 1

    def choose(
        self, children: Sequence[Trial], k: int, threshold: float, rng: np.random.Generator
    ) -> Conversation[list[int]]:
        """Which ``k`` of the children to measure."""
        self._trained()
        if not self._trajectory.is_used:
            picked = yield from self._picked(children, k, threshold, rng)
            return picked
        picked = yield from self._picked(children, OFFERED * k, threshold, rng)
        best = yield from self._trajectory.best([children[i] for i in picked], k)
        return [picked[i] for i in best]

    def known_of(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """What was asked about trials that were chosen, in plain data."""
        errors = self._trajectory.errors
        return {
            "scores": [
                {name: number(score) for name, score in self.proxies.of(trial).items()} or None
                for trial in trials
            ],
            "proxies": self.proxies.content(),
            "errors": [number(errors[t.id]) if t.id in errors else None for t in trials],
            "images": self._trajectory.images,
        }

    def remember(self, trials: Sequence[Trial], known: Mapping[str, Any]) -> None:
        """Takes `known_of` back."""
        for trial, scores, error in zip(trials, known["scores"], known["errors"], strict=True):
            if scores is not None:
                own = {name: _nan(score) for name, score in scores.items()}
                self.proxies.remember(trial, own)
            if self._trajectory.is_used:
                self._trajectory.errors[trial.id] = _nan(error)
        self._trajectory.images = known["images"]
        if "proxies" in known:
            self.proxies.restore(known["proxies"])

    def note_ladder(self, when: str, known: Sequence[Measurement], *finals: Column) -> None:
        """Notes how each rung forecast the next."""
        if not known:
            return
        columns: list[Column] = [
            (name, 0, self.proxies.column(name)) for name in self.proxies.shown
        ]
        n_whole, nfe = self._setup.n_images, known[0].trial.nfe
        if LadderRung.TRAJECTORY in self._setup.ladder:
            images = float(self._setup.trajectory_images)
            columns.append((LadderRung.TRAJECTORY, images, self._trajectory.errors))
        if LadderRung.RACE in self._setup.ladder:
            columns += early_columns(known, self._setup.looks, self._setup.metric)
        whole = whole_column(known, n_whole, self._setup.metric)
        proxies = [column for column in columns if column[0] in PROXIES]
        columns += [whole, *finals]
        content = {
            "when": when,
            "nfe": nfe,
            "rungs": ladder_of(columns),
            "scored": {name: len(said) for name, _, said in proxies},
            "against_whole": {column[0]: points(column, whole) for column in proxies},
            "trajectory_used": self._trajectory.is_used,
            "dropped": self.proxies.dropped,
        }
        self._talk.note("ladder", content)

    def worth(self) -> dict[str, Any]:
        """What is known of proxies and predictor in the end, in plain data."""
        chosen = self._trained()
        found = {} if chosen is None else {"predictor": _predictor_content(chosen)}
        return found | self.proxies.worth()

    def _picked(
        self, children: Sequence[Trial], k: int, threshold: float, rng: np.random.Generator
    ) -> Conversation[list[int]]:
        """``k`` by what the predictor says of free proxies and choices."""
        chosen = self._trained()
        if chosen is None or not chosen.trusted or len(children) <= k:
            return list(range(min(k, len(children))))
        yield from self.proxies.score(children)
        forecast = chosen.predictor.predict([self._example(child) for child in children])
        bound = self._positive(threshold) if math.isfinite(threshold) else 0.0
        goal = math.log(bound) if bound > 0.0 else float(np.median(forecast.mean))
        levels = places([child.schedule for child in children])
        picked = acquire(forecast, goal, k, rng, points=levels)
        for i in picked:
            self._forecasts[children[i].id] = (float(forecast.mean[i]), float(forecast.std[i]))
        return picked

    def _trained(self) -> ChosenPredictor | None:
        """The predictor, trained if that is due; None before enough is measured."""
        if not self._is_due:
            return self._chosen
        self._is_due = False
        n = self._trained_on
        newest = self._learned_from()[:n][-_MOST:]
        self._positive = PositiveScale.of([loss for _, loss in newest])
        self._chosen = choose(
            [self._example(trial) for trial, _ in newest],
            [self._positive(loss) for _, loss in newest],
            seed=n,
            proxies=self._seeing,
            sequence_from=_SEQUENCE_FROM,
        )
        self._talk.note(
            "predictor",
            {
                "stage": self._stage,
                "nfe": newest[0][0].nfe,
                "n": n,
                "model": self._chosen.name,
                "trusted": self._chosen.trusted,
                "correlation": number(self._chosen.correlation),
                "top_correlation": number(self._chosen.top_correlation),
                "proxies": {name: self._correlation(name, n) for name in self.proxies.shown},
            },
        )
        return self._chosen

    def _example(self, trial: Trial) -> Example:
        return Example(schedule=trial.schedule, proxies=self.proxies.of(trial))

    def _learned_from(self) -> list[tuple[Trial, float]]:
        """What was measured whole, without the vetoed."""
        if not self._vetoed:
            return self._learned
        return [each for each in self._learned if each[0].id not in self._vetoed]

    def _correlation(self, proxy: str, n: int) -> float | None:
        """The rank correlation of one proxy with what was measured first."""
        pairs = self.proxies.pairs(proxy, n)
        return number(rank_correlation(*pairs.T)) if len(pairs) >= _LEAST else None

    def _note_calibration(self, whole: Sequence[tuple[Trial, float]]) -> None:
        known = [(self._forecasts.pop(t.id), v) for t, v in whole if t.id in self._forecasts]
        if len(known) < 3:
            return
        forecast = Forecast(
            mean=np.array([mean for (mean, _), _ in known]),
            std=np.array([std for (_, std), _ in known]),
        )
        record = calibration_of(self._stage, forecast, [self._positive(v) for _, v in known])
        ranks = [[round(rank, 4) for rank in pair] for pair in record.ranks]
        content = asdict(record) | {"nfe": whole[0][0].nfe, "ranks": ranks}
        self._talk.note("calibration", content)


def _nan(score: float | None) -> float:
    return math.nan if score is None else score


def _predictor_content(chosen: ChosenPredictor) -> dict[str, Any]:
    return {
        "n": chosen.n,
        "correlation": number(chosen.correlation),
        "top_correlation": number(chosen.top_correlation),
        "dropped": None if chosen.trusted else "its forecasts were no better than chance",
    }
