"""The honest finish: who wins on held-out noise, without believing that noise more than once.

The search has looked at its own noise hundreds of times, so its winner's score there is too good.
Held-out noise shows by how much, but the lowest of k held-out scores is too good as well: for k
equal schedules by 1.4 standard errors at k = 8, by 2.2 at k = 50.  The reusable holdout (Dwork et
al. 2015, arXiv:1506.02629, "Thresholdout") keeps held-out data honest by answering with the
search's own value as long as the two agree, and by counting how often they did not.

All values are distances, lower is better, of equally many images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

_CHANCE = 0.05  # that any of the candidates overtakes the search's winner by luck
_NOISE = 0.025  # the holdout's noise, as a share of its threshold


class ReusableHoldout:
    """Thresholdout: T is the threshold, sigma the noise, B the budget of looks.

    A question costs a look only where the held-out value contradicts the search's by more than
    the noisy threshold; after the last look there are no answers.
    """

    def __init__(self, *, threshold: float, noise: float, looks: int, seed: int) -> None:
        if threshold < 0 or noise < 0 or looks < 0:
            raise ValueError(
                f"a holdout's threshold, noise and looks must not be negative, "
                f"found {threshold}, {noise}, {looks}"
            )
        self._threshold, self._noise, self._looks_left = threshold, noise, looks
        self._rng = np.random.default_rng(seed)
        self._noisy_threshold = threshold + self._laplace(2.0)

    @property
    def looks_left(self) -> int:
        """How often the held-out value may still contradict."""
        return self._looks_left

    def answer(self, *, search: float, held_out: float) -> float | None:
        """The search's value if the held-out one agrees, else that one with noise; None once the
        budget is spent.
        """
        if self._looks_left == 0:
            return None
        if abs(held_out - search) <= self._noisy_threshold + self._laplace(4.0):
            return search
        self._looks_left -= 1
        self._noisy_threshold = self._threshold + self._laplace(2.0)
        return held_out + self._laplace(1.0)

    def _laplace(self, times: float) -> float:
        return float(self._rng.laplace(0.0, times * self._noise))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A finalist: its distance on noise of the search and on held-out noise, and the standard
    error of the latter over noises.

    ``search_value`` decides where the held-out values do not, so it should be measured afresh,
    on noise that did not choose the finalists.
    """

    search_value: float
    held_out_value: float
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The winner's index, its held-out value, by how much the search's was better, and the looks
    that the choice took.
    """

    index: int
    value: float
    optimism: float
    looks: int


def choose_finalist(
    candidates: Sequence[Candidate], *, seed: int, looks: int = 5, margin: float | None = None
) -> Winner:
    """The finalist that the search prefers, unless held-out noise clearly contradicts.

    The candidates are gone through in the order of their search values.  One takes the place of
    the best so far if a `ReusableHoldout` says that it is better: its held-out value is lower by
    more than ``margin`` standard errors of their difference, about, and fewer than ``looks`` have
    done so before.  The usual margin lets one of k equal candidates win by luck once in 20 times.

    So the held-out value of the winner is hardly chosen for being low and can be reported: for
    equal candidates it is 0.2 (k = 8) to 0.3 (k = 50) standard errors too good, where the lowest
    is 1.4 to 2.2.  The price: where the search values are much less precise than the held-out
    ones, differences below the margin are decided by them.  Give search values of as many images.
    """
    if not candidates:
        raise ValueError("there are no finalists to choose from; validate some first")
    if min(candidate.standard_error for candidate in candidates) <= 0.0:
        raise ValueError("every finalist needs a standard error above 0; measure more images")
    if margin is None:
        margin = float(ndtri(1.0 - _CHANCE / len(candidates)))
    holdout = ReusableHoldout(threshold=margin, noise=_NOISE * margin, looks=looks, seed=seed)
    order = sorted(range(len(candidates)), key=lambda i: (candidates[i].search_value, i))
    best = order[0]
    for i in order[1:]:
        gain = candidates[best].held_out_value - candidates[i].held_out_value
        error = np.hypot(candidates[best].standard_error, candidates[i].standard_error)
        # the search says that it gains nothing; a loss agrees with that
        answer = holdout.answer(search=0.0, held_out=max(0.0, float(gain / error)))
        if answer is not None and answer > 0.0:
            best = i
    winner = candidates[best]
    return Winner(
        index=best,
        value=winner.held_out_value,
        optimism=winner.held_out_value - winner.search_value,
        looks=looks - holdout.looks_left,
    )


def monotone_by_nfe(best: Mapping[int, float]) -> dict[int, int]:
    """For which numbers of network calls fewer calls did better: the number with the lowest value
    among the smaller ones, by the number that it beats.

    ``best`` is the lowest validated value of each.  `s3search.search.edit.extend_nfe`
    makes of the winner with fewer calls a schedule of more.

    >>> monotone_by_nfe({5: 0.12, 6: 0.10, 7: 0.11, 8: 0.13})
    {7: 6, 8: 6}
    """
    found: dict[int, int] = {}
    leader: int | None = None
    for nfe in sorted(best):
        if leader is not None and best[leader] < best[nfe]:
            found[nfe] = leader
        else:
            leader = nfe
    return found
