"""The proxies that make no network call: what they say, and whether they are worth their seconds.

The Gaussian scores all; the others a portion of the seeds at first, the best by the Gaussian among
them, then a few schedules for each one that is measured: 32, 8 or 2, as a share of the seconds
pays.  That is decided once, after the first measurements, and in steps of four, so that
two runs decide alike although their seconds differ; the log keeps it.  A proxy is dropped, and
asked no more at this number of network calls,

    rank    where it ranks what was measured no better than it should: over all, or inside the
            best part, where a search moves; at no later number of calls either
    cost    where its share pays not even two; what fits it once is paid whatever is decided
    empty   where it has no score for any of the first schedules, as for models of latents
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s3search.search.conversation import Conversation, Setup, Talk, proxy_rate, scored
from s3search.search.ladder import LadderRung
from s3search.search.predictor.base import Array
from s3search.search.predictor.proxy_correlation import number
from s3search.search.predictor.ranks import best_share, rank_correlation
from s3search.search.trial import Trial

FREE = (LadderRung.GAUSSIAN, LadderRung.MIXTURE)

_CHEAP = (LadderRung.GAUSSIAN.value,)  # a thousandth of a second a schedule
_AHEAD = 32  # schedules that are scored before any is measured
_PER_MEASURED = (32, 8, 2)  # schedules scored for each that is measured
_LEAST = 12  # schedules that a verdict needs
_LEAST_EMPTY = 4  # schedules without a score that tell that none has one
_TOP, _LEAST_TOP = 0.25, 10  # of the measured, and how many of these a verdict needs
_PRIOR, _PRIOR_TOP = (0.5, 8), (0.3, 8)  # a correlation, and how many schedules it counts for
_LEAST_WEIGHT = 0.2  # a proxy of a lower correlation orders nothing
_MOST_SHARE = 0.08  # of the workers' seconds
_UNCOUNTED = 0.3  # seconds at one number of calls: what takes less in all is not counted


class FreeProxies:
    """Scores at one number of network calls.

    ``useless`` says why proxies were dropped by rank, at fewer calls too; those of now are added.
    """

    def __init__(self, setup: Setup, talk: Talk, useless: dict[str, str] | None = None) -> None:
        self._setup, self._talk = setup, talk
        self._useless = {} if useless is None else useless
        self.dropped = dict(self._useless)  # why, by name
        self.shown = [p.value for p in FREE if p in setup.ladder and p.value not in self.dropped]
        self._scores: dict[str, dict[str, float]] = {}  # by schedule id and name
        self._counts: dict[str, int] = {}  # schedules scored, by name
        self._unsaid: dict[str, dict[str, float]] = {}  # scores since `content` was last asked for
        self._nfe = 0
        self._per_measured: int | None = None  # None: not decided yet
        self._learned: Sequence[tuple[Trial, float]] = ()
        self.n_measured = 0

    @property
    def asked(self) -> list[str]:
        """Names of those that are still asked."""
        return [name for name in self.shown if name not in self.dropped]

    @property
    def n_scored(self) -> int:
        """Schedules that the others than the cheap scored."""
        return max((n for name, n in self._counts.items() if name not in _CHEAP), default=0)

    def of(self, trial: Trial) -> dict[str, float]:
        """What is known of a trial."""
        return self._scores.get(trial.id, {})

    def column(self, name: str) -> dict[str, float]:
        """The scores of one proxy by schedule id."""
        return {i: scores[name] for i, scores in self._scores.items() if name in scores}

    def remember(self, trial: Trial, scores: Mapping[str, float]) -> None:
        """Takes the scores that a trial had in an earlier run."""
        self._scores[trial.id] = dict(scores)

    def score(self, trials: Sequence[Trial]) -> Conversation[None]:
        """Asks the cheap for the scores of all trials, the others for as many as may be scored
        now: half of these the best by the cheap, the rest evenly chosen.
        """
        if trials:
            self._nfe = trials[0].nfe
        for name in [name for name in self.asked if name in _CHEAP]:
            yield from self._ask(name, self._without(name, trials))
        if self.n_measured and self._dear and self._per_measured is None:
            yield from self._decide()
        new = self._without(self._dear[0], trials) if self._dear else []
        n = min(len(new), _AHEAD + (self._per_measured or 0) * self.n_measured - self.n_scored)
        if n <= 0:
            return
        chosen = self._portion(new, n)
        for name in self._dear:
            yield from self._ask(name, chosen)

    @property
    def _dear(self) -> list[str]:
        """Those of the asked that are not cheap."""
        return [name for name in self.asked if name not in _CHEAP]

    def _without(self, name: str, trials: Sequence[Trial]) -> list[Trial]:
        return [trial for trial in trials if name not in self.of(trial)]

    def _portion(self, new: Sequence[Trial], n: int) -> list[Trial]:
        """``n`` of the trials in their order."""
        cheap = [name for name in self.asked if name in _CHEAP and self.weight(name) > 0.0]
        scores = [sum(self.of(trial).get(name, math.nan) for name in cheap) for trial in new]
        ranked = [i for i in np.argsort(scores, kind="stable").tolist() if cheap]
        best = set(ranked[: n // 2])
        rest = [i for i in range(len(new)) if i not in best]
        spread = {rest[k * len(rest) // (n - len(best))] for k in range(n - len(best))}
        return [new[i] for i in sorted(best | spread)]

    def _ask(self, name: str, trials: Sequence[Trial]) -> Conversation[None]:
        if not trials:
            return
        found = yield from scored(self._setup, self._talk, LadderRung(name), trials)
        self._counts[name] = self._counts.get(name, 0) + len(trials)
        for trial, score in zip(trials, found, strict=True):
            for kept in (self._scores, self._unsaid):
                kept.setdefault(trial.id, {})[name] = score
        is_first = self._counts[name] == len(trials)
        if is_first and len(trials) >= _LEAST_EMPTY and np.isnan(found).all():
            self.shown.remove(name)

    def weight(self, name: str) -> float:
        """How far a proxy orders what is not measured yet: not at all if wrong or worthless."""
        return self._shrunk(name)[0] if self._is_worth_it(name) else 0.0

    def judge(self, learned: Sequence[tuple[Trial, float]]) -> None:
        """Drops what ranks badly what was measured whole."""
        self._learned = learned
        for name in self.asked:
            pairs = self.pairs(name)
            if len(pairs) >= _LEAST and not self._is_worth_it(name):
                whole, top, _ = _correlations(pairs)
                self.dropped[name] = (
                    f"rank correlation {whole:.2f} with {len(pairs)} measured schedules, "
                    f"{top:.2f} in the best quarter"
                )
                self._useless[name] = f"{self.dropped[name]} (at {learned[0][0].nfe} calls)"

    def pairs(self, name: str, n: int | None = None) -> Array:  # (n, 2)
        """A proxy's scores and the distances, where there are both."""
        known = [(self.of(t).get(name, math.nan), value) for t, value in self._learned[:n]]
        pairs: Array = np.array(known, dtype=np.float64).reshape(-1, 2)
        return pairs[~np.isnan(pairs[:, 0])]

    def content(self) -> dict[str, Any]:
        """How many were scored, how fast, what was dropped, and the scores since this was last
        asked for, in plain data.
        """
        said = {i: {k: number(v) for k, v in own.items()} for i, own in self._unsaid.items()}
        self._unsaid = {}
        scored, rates = dict(self._counts), dict(self._talk.rates)
        return {"scored": scored, "rates": rates, "dropped": dict(self.dropped), "scores": said}

    def worth(self) -> dict[str, Any]:
        """What each proxy was worth, and why one was dropped, in plain data."""
        found: dict[str, Any] = {}
        for name in dict.fromkeys([*self.shown, *self.dropped]):
            pairs = self.pairs(name)
            whole, top, _ = _correlations(pairs)
            found[name] = {
                "n": len(pairs),
                "correlation": number(whole),
                "top_correlation": number(top),
                "scored": self._counts.get(name, 0),
                "dropped": self.dropped.get(name),
            }
        return found

    def restore(self, content: Mapping[str, Any]) -> None:
        """Takes `content` of an earlier run back, whose scores this one did not ask for."""
        for i, own in content.get("scores", {}).items():
            known = {k: math.nan if v is None else v for k, v in own.items()}
            self._scores.setdefault(i, {}).update(known)
        self._counts = dict(content["scored"])
        self._talk.rates |= content["rates"]
        self.dropped |= content["dropped"]

    def _is_worth_it(self, name: str) -> bool:
        return min(self._shrunk(name)) > _LEAST_WEIGHT

    def _shrunk(self, name: str) -> tuple[float, float]:
        """Its correlations over all and in the best part, by few schedules little moved."""
        pairs = self.pairs(name)
        whole, top, n_top = _correlations(pairs)
        known = top if n_top >= _LEAST_TOP else math.nan
        return _drawn(whole, len(pairs), _PRIOR), _drawn(known, n_top, _PRIOR_TOP)

    def _decide(self) -> Conversation[None]:
        """How many schedules are scored for each that is measured; drops what is too dear."""
        key = f"NFE {self._nfe}, share of the proxies"
        known = yield from self._talk.recall(key)
        if known is None:
            content = self._affordable()
            self._talk.decided(key, (), content)
        else:
            content = dict(known.content)
        self.dropped |= content["dropped"]
        self._per_measured = int(content["per_measured"])

    def _affordable(self) -> dict[str, Any]:
        """The most that the share of the seconds pays, and why proxies are too dear, the dearest
        first.
        """
        talk, left = self._talk, self._dear
        whole = talk.seconds / talk.images * self._setup.n_images if talk.images else math.inf
        n_measured = talk.outside.budget / len(self._setup.nfe) / self._setup.n_images
        uncounted = _UNCOUNTED / n_measured if n_measured else math.inf
        most = max(uncounted, _MOST_SHARE / (1.0 - _MOST_SHARE) * whole)
        dear: dict[str, str] = {}
        while left:
            rate = sum(self._rate(name) for name in left)
            for per_measured in _PER_MEASURED:
                if per_measured * rate <= most:
                    return {"dropped": dear, "per_measured": per_measured}
            name = max(left, key=self._rate)
            left.remove(name)
            least = _PER_MEASURED[-1]
            share = 100 * least * rate / (whole + least * rate)
            dear[name] = (
                f"{1000 * self._rate(name):.3g} ms a schedule: {least} for each that is measured "
                f"would take {share:.0f} % of the search's worker seconds"
            )
        return {"dropped": dear, "per_measured": 0}

    def _rate(self, name: str) -> float:
        """Seconds a schedule, 0 where they are unknown."""
        return self._talk.rates.get(proxy_rate(name, self._nfe), 0.0)


def _correlations(pairs: Array) -> tuple[float, float, int]:
    """Spearman's over all, inside the best part, and how many are in that."""
    top = best_share(pairs[:, 1], share=_TOP)
    inside = pairs[top]
    return rank_correlation(*pairs.T), rank_correlation(*inside.T), len(top)


def _drawn(found: float, n: int, prior: tuple[float, int]) -> float:
    """A correlation of ``n`` schedules drawn towards a prior one."""
    value, n_prior = prior
    return value if math.isnan(found) else (n_prior * value + n * found) / (n_prior + n)
