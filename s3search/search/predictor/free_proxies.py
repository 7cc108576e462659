"""The proxies that make no network call: what they say, and whether they are worth their seconds.

They score a portion of the seeds at first, then a few schedules for each one that is measured.  A
proxy is dropped, and asked no more at this number of network calls,

    rank    where it ranks what was measured no better than it should: over all, or inside the
            best part, where a search moves; at no later number of calls either
    cost    where the proxies would take more than their share of the seconds that the budget
            takes, by those so far, the dearest first; what fits them once is paid whatever is
            decided.  The log keeps the decision, since seconds differ between runs
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

_AHEAD = 32  # schedules that are scored before any is measured
_PER_MEASURED = 4
_LEAST = 12  # schedules that a verdict needs
_LEAST_EMPTY = 4  # schedules without a score that tell that none has one
_TOP = 0.25  # of the measured
_PRIOR, _PRIOR_TOP = (0.5, 8), (0.3, 8)  # a correlation, and how many schedules it counts for
_LEAST_WEIGHT = 0.2  # a proxy of a lower correlation orders nothing
_MOST_SHARE = 0.08  # of the workers' seconds
_UNCOUNTED = 1.0  # seconds: what takes less is worth no decision


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
        self._learned: Sequence[tuple[Trial, float]] = ()
        self.n_measured = 0

    @property
    def asked(self) -> list[str]:
        """Names of those that are still asked."""
        return [name for name in self.shown if name not in self.dropped]

    @property
    def n_scored(self) -> int:
        """Schedules that any of them scored."""
        return max(self._counts.values(), default=0)

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
        """Asks for the scores of as many of the trials as may be scored now, evenly chosen."""
        new = [trial for trial in trials if trial.id not in self._scores]
        n = min(len(new), _AHEAD + _PER_MEASURED * self.n_measured - self.n_scored)
        if n <= 0 or not self.asked:
            return
        new = [new[i * len(new) // n] for i in range(n)]
        self._nfe = new[0].nfe
        yield from self._drop_dear(n)
        own: dict[str, dict[str, float]] = {trial.id: {} for trial in new}
        for name in self.asked:
            found = yield from scored(self._setup, self._talk, LadderRung(name), new)
            self._counts[name] = self._counts.get(name, 0) + n
            for trial, score in zip(new, found, strict=True):
                own[trial.id][name] = score
            is_first = self._counts[name] == n
            if is_first and n >= _LEAST_EMPTY and np.isnan(found).all():
                self.shown.remove(name)
        self._scores |= own
        self._unsaid |= own

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
            self._scores[i] = {k: math.nan if v is None else v for k, v in own.items()}
        self._counts = dict(content["scored"])
        self._talk.rates |= content["rates"]
        self.dropped |= content["dropped"]

    def _is_worth_it(self, name: str) -> bool:
        return min(self._shrunk(name)) > _LEAST_WEIGHT

    def _shrunk(self, name: str) -> tuple[float, float]:
        """Its correlations over all and in the best part, by few schedules little moved."""
        pairs = self.pairs(name)
        whole, top, n_top = _correlations(pairs)
        return _drawn(whole, len(pairs), _PRIOR), _drawn(top, n_top, _PRIOR_TOP)

    def _drop_dear(self, n: int) -> Conversation[None]:
        """Drops proxies that would pass their share of the seconds with ``n`` schedules more."""
        if not self.n_measured:
            return
        key = f"NFE {self._nfe}, proxies after {self.n_scored} schedules"
        known = yield from self._talk.recall(key)
        if known is not None:
            self.dropped |= known.content["dropped"]
            return
        if sum(self._cost(name, n) for name in self.asked) < _UNCOUNTED:
            return
        dear = self._dear(n)
        self._talk.decided(key, (), {"dropped": dear})
        self.dropped |= dear

    def _dear(self, n: int) -> dict[str, str]:
        """Why proxies are too dear, the dearest first; none before anything is measured."""
        talk, left = self._talk, list(self.asked)
        if not talk.images:
            return {}
        whole = talk.seconds * talk.outside.budget / len(self._setup.nfe) / talk.images
        dear: dict[str, str] = {}
        for name in sorted(left, key=lambda name: -self._cost(name, n)):
            cost = sum(self._cost(other, n) for other in left)
            if cost > _MOST_SHARE * (whole + cost):
                left.remove(name)
                rate = 1000 * self._rate(name)
                dear[name] = (
                    f"{rate:.3g} ms a schedule: proxies would take "
                    f"{100 * cost / (whole + cost):.0f} % of the search's worker seconds"
                )
        return dear

    def _cost(self, name: str, n: int) -> float:
        """Seconds for all that a proxy scored, and ``n`` schedules more."""
        return self._rate(name) * (self._counts.get(name, 0) + n)

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
