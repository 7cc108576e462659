"""Which schedules are polished, and for how long: many a little, then the best of them longer.

short    the best schedule so far as it is, begun at other noise levels, with a little noise in
         its steps where the space has any, and the next best ones: what gradient descent finds
         soon depends on the first level most of all, hardly moves it, and no level serves every
         model
longer   the best of those go on, fewer and longer in every round (successive halving,
         arXiv:1502.07943); the last round has most of the images, for one long descent ends
         lower than several short ones
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from s3search.schedules.schedule import Schedule
from s3search.search.conversation import Conversation
from s3search.search.edit.restart import begun_lower
from s3search.search.questions import Measurement, polish_checks
from s3search.search.trial import Trial

_SHARE_SHORT = 0.3
_SHORT = 8  # whole measurements that a short polishing costs at least
_FEWEST, _MOST_SHORT = 2, 6  # short ones, where there are images for them
_ROUNDS = ((0.3, 8), (1.0, 16))  # share of what is left, and at most one in so many of a batch
_LEAST_LONG = 15_000
_LEAST = 40  # images of any polishing
_APART = 0.4  # in lam, of the levels of two starts
_HALVINGS = (0, 2, 1, 3)  # of the first noise level, in the order of trying

Polished = Callable[[Sequence[Trial], float, int], Conversation[list[Measurement]]]
"""Polishes each of the trials for so many images, with noise of this number, and measures."""

Varied = Callable[[Trial], Trial | None]
"""A trial changed so that it may be another start, None where that is not possible."""

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
    seeded: Varied = lambda _: None,
) -> Conversation[bool]:
    """Polishes some of ``ranked``, the best first, for ``images`` in all, measurements of
    ``n_images`` included, at most ``batch`` at a time; whether anything came of it.

    ``lowers``: the first noise level may be another one; ``seeded`` adds noise to steps.
    """
    if not ranked:
        return False
    short = _SHARE_SHORT * images
    n = int(np.clip(short // ((_SHORT + 1) * n_images), _FEWEST, min(_MOST_SHORT, batch)))
    each = max(short / n - n_images, _LEAST)
    tried = _starts(ranked, seeded, lowers=lowers)[: n - n // 3]
    known = {trial.id for trial in (*tried, ranked[0])}
    others = [trial for trial in unlike(ranked, n + 2) if trial.id not in known and kept(trial)]
    starts = [*tried, *others][:n]
    found = yield from polished(starts, each, 0)
    if all(m.loss is None for m in found):
        return False
    left = images - len(found) * (each + n_images)
    done = 1
    for share, one_in in _ROUNDS:
        best = [trial for trial in ranked_of(found) if kept(trial)]
        if not best:
            break
        most = max(1, min(batch // one_in, len(best)))
        n = int(np.clip(share * left // _LEAST_LONG, 1, most))
        if n == 1 and share < 1.0:
            continue  # nothing to choose from: all of it in one descent
        each = max(share * left / n - n_images, _LEAST)
        left -= n * (each + n_images)
        found = yield from polished(unlike(best, n), each, done)
        done += 1
    return True


def _starts(ranked: Sequence[Trial], seeded: Varied, *, lowers: bool) -> list[Trial]:
    """The best trial, the best that can be begun at other noise levels at these, if ``lowers``,
    and, third, the best with noise in its steps.
    """
    lowerable = [trial for trial in ranked if lowers and _begun(trial, 1) is not None]
    begun = [_begun(lowerable[0], halvings) for halvings in _HALVINGS] if lowerable else []
    tried = [ranked[0], *(trial for trial in begun if trial is not None)]
    found = list({trial.id: trial for trial in tried}.values())
    noisy = seeded(ranked[0])
    return found if noisy is None else [*found[:2], noisy, *found[2:]]


def _begun(trial: Trial, halvings: int) -> Trial | None:
    """The trial begun at a lower noise level, itself for 0."""
    if halvings == 0:
        return trial
    begun = begun_lower(trial.schedule, halvings)
    return None if begun is None else Trial.of(begun, trial.origin)


def polish_size(images: float) -> tuple[int, int]:
    """(iterations, images of each) of a polishing that costs ``images``, forward and backward,
    with its checks.

    Both grow with the root of the cost: more iterations go further, more images show where.
    """
    n_images = max(20, round(2.5 * math.sqrt(images)))
    in_all = max(2, round(images / (2 * n_images)))
    return max(1, in_all - polish_checks(in_all)), n_images


def ranked_of(measured: Sequence[Measurement]) -> list[Trial]:
    """Those measured whole, the best first."""
    whole = [(m.loss, i) for i, m in enumerate(measured) if m.loss is not None]
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
