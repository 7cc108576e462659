"""What the cheap rungs say, and how far to believe it.

The guide asks the lab for the proxies' scores of seeds and children, learns from what was then
measured how they rank, and chooses which children are measured.  It is trained anew whenever the
measured schedules have become half as many again.  Where the cross-validated forecasts are no
better than chance, it chooses nothing: the children are taken as they come, and no more are made
than are measured.  A free proxy orders the seeds only as far as it has ranked the first of them.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from s3search.schedules.schedule import Schedule
from s3search.search.early_stopping import checkpoints
from s3search.search.lab import Lab, Measured
from s3search.search.ladder import PROXIES, LadderRung
from s3search.search.predictor.acquire import acquire, places
from s3search.search.predictor.base import Array, Example, Forecast
from s3search.search.predictor.calibration import calibration_of
from s3search.search.predictor.choice import Chosen, choose
from s3search.search.predictor.proxy_correlation import (
    Column,
    ladder_of,
    number,
    points,
    race_columns,
    whole_column,
)
from s3search.search.predictor.ranks import rank_correlation
from s3search.search.predictor.trajectory import OFFERED, TrajectoryFilter

_FREE = (LadderRung.GAUSSIAN, LadderRung.MIXTURE)
_GROWTH = 1.5  # of the measured schedules between two trainings
_LEAST = 12
_PRIOR = (0.5, 8)  # what a proxy's correlation is taken for, by so many schedules, at first
_LEAST_WORTH = 0.2  # a proxy of less orders nothing
_MOST = 300  # newest examples that a training sees
_SEQUENCE_FROM = 150


class Guide:
    """Proxies and predictor at one number of network calls."""

    def __init__(self, has: Callable[[LadderRung], bool], lab: Lab) -> None:
        self._lab = lab
        self._has = has
        self._free = [rung for rung in _FREE if has(rung)]
        self._predicts = has(LadderRung.PREDICTOR)
        self._trajectory = TrajectoryFilter(lab, is_used=has(LadderRung.TRAJECTORY))
        self._billed = 0.0
        self._scores: dict[str, dict[str, float]] = {}
        self._examples: list[tuple[Example, float]] = []
        self._trained_on = 0
        self._chosen: Chosen | None = None
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
        return self._chosen is None or self._chosen.trusted

    def order(self, schedules: Sequence[Schedule]) -> list[int]:
        """Indices by the free proxies' ranks, each weighted by how it ranked what was measured,
        the unscored last; as they came where no proxy is worth anything.
        """
        self._score(schedules)
        ranks = np.zeros(len(schedules))
        for rung in self._free:
            scores = np.array([self._scores[s.id][rung.value] for s in schedules])
            own = np.argsort(np.argsort(np.where(np.isnan(scores), np.inf, scores)))
            ranks += self._weight(rung.value) * own
        return [int(i) for i in np.argsort(ranks, kind="stable")]

    def bill(self) -> float:
        """Images that its questions took since this was last asked."""
        before, self._billed = self._billed, self._trajectory.images
        return self._billed - before

    def tell(self, measured: Sequence[Measured]) -> None:
        """Learns what was measured whole, and notes how that was forecast."""
        whole = [(m.schedule, m.value) for m in measured if m.value is not None]
        self._score([schedule for schedule, _ in whole])
        for schedule, value in whole:
            example = Example(schedule=schedule, proxies=self._scores[schedule.id])
            self._examples.append((example, value))
        self._trajectory.learn(measured)
        self._note_calibration(whole)

    def leave_out(self, vetoed: frozenset[str]) -> None:
        """Learns nothing from these schedules any more, and forgets what it had learned."""
        self._vetoed, self._trained_on, self._chosen = vetoed, 0, None

    def choose(
        self,
        children: Sequence[Schedule],
        k: int,
        bar: float,
        rng: np.random.Generator,
    ) -> list[int]:
        """Which ``k`` of the children to measure."""
        self._train()
        if not self._trajectory.is_used:
            return self._picked(children, k, bar, rng)
        picked = self._picked(children, OFFERED * k, bar, rng)
        return [picked[i] for i in self._trajectory.best([children[i] for i in picked], k)]

    def note_ladder(self, when: str, known: Sequence[Measured], *finals: Column) -> None:
        """Notes what each rung was worth as a forecast of the next."""
        if not known:
            return
        columns: list[Column] = [
            (rung.value, 0, {i: scores[rung.value] for i, scores in self._scores.items()})
            for rung in self._free
        ]
        n_whole, nfe = self._lab.n_images, known[0].schedule.nfe
        if self._has(LadderRung.TRAJECTORY):
            price = self._lab.price(LadderRung.TRAJECTORY, nfe)
            columns.append((LadderRung.TRAJECTORY, price.images, self._trajectory.errors))
        if self._has(LadderRung.RACE):
            columns += race_columns(known, checkpoints(n_whole))
        whole = whole_column(known, n_whole)
        proxies = [column for column in columns if column[0] in PROXIES]
        columns += [whole, *finals]
        content = {
            "when": when,
            "nfe": nfe,
            "rungs": ladder_of(columns),
            "scored": {name: len(said) for name, _, said in proxies},
            "against_whole": {column[0]: points(column, whole) for column in proxies},
            "trajectory_used": self._trajectory.is_used,
        }
        self._lab.note("ladder", content)

    def _picked(
        self, children: Sequence[Schedule], k: int, bar: float, rng: np.random.Generator
    ) -> list[int]:
        """``k`` by what the predictor says of free proxies and choices."""
        if self._chosen is None or not self._chosen.trusted or len(children) <= k:
            return list(range(min(k, len(children))))
        self._score(children)
        examples = [Example(schedule=s, proxies=self._scores[s.id]) for s in children]
        forecast = self._chosen.predictor.predict(examples)
        finite = math.isfinite(bar) and bar > 0
        goal = math.log(bar) if finite else float(np.median(forecast.mean))
        picked = acquire(forecast, goal, k, rng, points=places(children))
        for i in picked:
            self._forecasts[children[i].id] = (float(forecast.mean[i]), float(forecast.std[i]))
        return picked

    def _weight(self, proxy: str) -> float:
        """How far a proxy orders what is not measured yet: not at all if wrong or worthless."""
        pairs = self._pairs(proxy)
        found = rank_correlation(*pairs.T) if len(pairs) else math.nan
        prior, n_prior = _PRIOR
        n = 0 if math.isnan(found) else len(pairs)
        worth = (n_prior * prior + (n * found if n else 0.0)) / (n_prior + n)
        return worth if worth > _LEAST_WORTH else 0.0

    def _score(self, schedules: Sequence[Schedule]) -> None:
        new = [s for s in schedules if s.id not in self._scores]
        if not new:
            return
        columns = {rung.value: self._lab.scores(rung.value, new) for rung in self._free}
        for i, schedule in enumerate(new):
            self._scores[schedule.id] = {name: float(c[i]) for name, c in columns.items()}
        if not self._examples and len(new) >= _LEAST:
            # as for models of latents: what has no score for any is not asked, nor shown, again
            self._free = [r for r in self._free if not np.isnan(columns[r.value]).all()]

    def _train(self) -> None:
        examples = self._learned_from()
        n = len(examples)
        if not self._predicts or n < max(_LEAST, _GROWTH * self._trained_on):
            return
        self._trained_on = n
        newest = examples[-_MOST:]
        self._chosen = choose(
            [example for example, _ in newest],
            [value for _, value in newest],
            seed=n,
            proxies=[rung.value for rung in self._free],
            sequence_from=_SEQUENCE_FROM,
        )
        self._stage += 1
        self._lab.note(
            "predictor",
            {
                "stage": self._stage,
                "nfe": newest[0][0].schedule.nfe,
                "n": n,
                "model": self._chosen.name,
                "trusted": self._chosen.trusted,
                "correlation": number(self._chosen.correlation),
                "top_correlation": number(self._chosen.top_correlation),
                "proxies": {rung.value: self._worth(rung.value) for rung in self._free},
            },
        )

    def _learned_from(self) -> list[tuple[Example, float]]:
        """What was measured whole, without the vetoed."""
        if not self._vetoed:
            return self._examples
        return [each for each in self._examples if each[0].schedule.id not in self._vetoed]

    def _worth(self, proxy: str) -> float | None:
        """The rank correlation of one proxy with what was measured."""
        pairs = self._pairs(proxy)
        return number(rank_correlation(*pairs.T)) if len(pairs) >= _LEAST else None

    def _pairs(self, proxy: str) -> Array:  # (n, 2)
        """The proxy's scores and the distances, where there are both."""
        known = [(example.proxies[proxy], value) for example, value in self._learned_from()]
        pairs: Array = np.array(known, dtype=np.float64).reshape(-1, 2)
        return pairs[~np.isnan(pairs[:, 0])]

    def _note_calibration(self, whole: Sequence[tuple[Schedule, float]]) -> None:
        known = [(self._forecasts.pop(s.id), v) for s, v in whole if s.id in self._forecasts]
        if len(known) < 3:
            return
        forecast = Forecast(
            mean=np.array([mean for (mean, _), _ in known]),
            std=np.array([std for (_, std), _ in known]),
        )
        record = calibration_of(self._stage, forecast, [value for _, value in known])
        self._lab.note(
            "calibration",
            {
                "stage": record.stage,
                "nfe": whole[0][0].nfe,
                "n": record.n,
                "spearman": record.spearman,
                "mean_abs_rank_error": record.mean_abs_rank_error,
                "coverage": record.coverage,
                "ranks": [[round(rank, 4) for rank in pair] for pair in record.ranks],
            },
        )
