"""Which schedules are polished, and for how long: many a little, then the best of them longer.

short    the best schedule so far, begun at several noise levels, then the next best ones begun
         where that served it: what gradient descent finds soon depends on the first level most
         of all, and hardly moves it
longer   the best of those go on, fewer and longer in every round (successive halving,
         arXiv:1502.07943)
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from s3search.schedules.schedule import Schedule
from s3search.search.conversation import Conversation
from s3search.search.edit.restart import begun_lower
from s3search.search.questions import Measurement
from s3search.search.trial import Trial

_SHORT = 8  # whole measurements that a short polishing costs
_LEAST_SHORT = 4_000  # images of one, where measurements have few
_SHARE_SHORT = 0.3
_ROUNDS = ((0.35, 4), (1.0, 8))  # share of what is left, and at most one in so many of a batch
_LEAST_LONG = 15_000
_LEAST = 40  # images of any polishing
_APART = 0.4  # in lam, of the levels of two starts
_HALVINGS = (0, 2, 3, 1, 4)  # of the first noise level, in the order of trying

Polished = Callable[[Sequence[Trial], float, int], Conversation[list[Measurement]]]
"""Polishes each of the trials for so many images, with noise of this number, and measures."""

Kept = Callable[[Trial], bool]
"""Whether a trial may still be polished: a person may have vetoed it in the meantime."""


def polish_in_rounds(
    ranked: Sequence[Trial],
    images: float,
    n_images: int,
    polished: Polished,
    kept: Kept,
    *,
    batch: int,
    lowers: bool = True,
) -> Conversation[bool]:
    """Polishes some of ``ranked``, the best first, for ``images`` in all, measurements of
    ``n_images`` included, at most ``batch`` at a time; whether anything came of it.

    ``lowers``: the first noise level may be another one.
    """
    if not ranked:
        return False
    whole = max(_SHORT * n_images, _LEAST_SHORT)
    n = int(np.clip(_SHARE_SHORT * images // (whole + n_images), 1, batch))
    each = max(min(whole, _SHARE_SHORT * images / n - n_images), _LEAST)
    tried = _starts(ranked, lowers=lowers)[:n]
    found = yield from polished([trial for _, trial in tried], each, 0)
    values = [math.inf if m.value is None else m.value for m in found]
    if not any(map(math.isfinite, values)):
        return False
    served = tried[int(np.argmin(values))][0]
    known = {trial.id for _, trial in tried} | {ranked[0].id}
    others = [trial for trial in unlike(ranked, n + 2) if trial.id not in known and kept(trial)]
    if others := [_begun(trial, served) or trial for trial in others][: n - len(tried)]:
        found += yield from polished(others, each, 0)
    left = images - len(found) * (each + n_images)
    for i, (share, one_in) in enumerate(_ROUNDS, start=1):
        best = [trial for trial in ranked_of(found) if kept(trial)]
        if not best:
            break
        most = max(1, min(batch // one_in, len(best)))
        n = int(np.clip(share * left // _LEAST_LONG, 1, most))
        each = max(share * left / n - n_images, _LEAST)
        left -= n * (each + n_images)
        longer = yield from polished(unlike(best, n), each, i)
        found = longer or found
    return True


def _starts(ranked: Sequence[Trial], *, lowers: bool) -> list[tuple[int, Trial]]:
    """The best trial, begun at several noise levels if ``lowers``, by their halvings."""
    lowerable = [trial for trial in ranked if lowers and _begun(trial, 1) is not None]
    tried: list[tuple[int, Trial]] = []
    if lowerable[:1] != list(ranked[:1]):
        tried.append((0, ranked[0]))
    for halvings in _HALVINGS if lowerable else ():
        begun = _begun(lowerable[0], halvings)
        if begun is not None:
            tried.append((halvings, begun))
    return tried


def _begun(trial: Trial, halvings: int) -> Trial | None:
    """The trial begun at a lower noise level, itself for 0."""
    if halvings == 0:
        return trial
    begun = begun_lower(trial.schedule, halvings)
    return None if begun is None else Trial.of(begun, trial.origin)


def polish_size(images: float) -> tuple[int, int]:
    """(iterations, images of each) of a polishing that costs ``images``, forward and backward.

    Both grow with the root of the cost: more iterations go further, more images show where.
    """
    n_images = max(20, round(2.5 * math.sqrt(images)))
    return max(1, round(images / (2 * n_images))), n_images


def ranked_of(measured: Sequence[Measurement]) -> list[Trial]:
    """Those measured whole, the best first."""
    whole = [(m.value, i) for i, m in enumerate(measured) if m.value is not None]
    return [measured[i].trial for _, i in sorted(whole)]


def unlike(trials: Sequence[Trial], n: int) -> list[Trial]:
    """The first ``n``, but as far as possible no two with nearly the same levels: descent makes
    the same of them, whatever their steps.
    """
    chosen: list[Trial] = []
    for trial in trials:
        if len(chosen) >= n:
            return chosen
        if all(_apart(trial.schedule, other.schedule) for other in chosen):
            chosen.append(trial)
    known = {trial.id for trial in chosen}
    left = [trial for trial in trials if trial.id not in known]
    return [*chosen, *left][:n]


def _apart(a: Schedule, b: Schedule) -> bool:
    own, other = (
        np.array([s.process.lam(t) for t in s.times if s.process.alpha(t) * s.process.sigma(t)])
        for s in (a, b)
    )
    if len(own) != len(other) or a.start.kind is not b.start.kind:
        return True
    return bool(np.abs(own - other).max(initial=0.0) > _APART)
