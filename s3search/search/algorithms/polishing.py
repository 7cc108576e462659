"""Which schedules are polished, and for how long: many a little, then the best of them longer.

short    the best schedule so far, begun at several noise levels, then the next best ones begun
         where that served it: what descent finds soon depends on the first level most of all,
         and hardly moves it
longer   the best of those go on, fewer and longer in every round (successive halving,
         arXiv:1502.07943)
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from s3search.schedules.schedule import Schedule
from s3search.search.edit.restart import begun_lower
from s3search.search.lab import Measured

_SHORT = 8  # whole measurements that a short polishing costs
_LEAST_SHORT = 4_000  # images of one, where measurements have few
_SHARE_SHORT = 0.3
_ROUNDS = ((0.35, 4), (1.0, 8))  # share of what is left, and at most one in so many of a batch
_LEAST_LONG = 15_000
_LEAST = 40  # images of any polishing
_APART = 0.4  # in lam, of the levels of two starts
_HALVINGS = (0, 2, 3, 1, 4)  # of the first noise level, in the order of trying

Polished = Callable[[Sequence[Schedule], float, int], list[Measured]]
"""Polishes each of the schedules for so many images, with noise of this number, and measures."""


Kept = Callable[[Schedule], bool]
"""Whether a schedule may still be polished: a person may have vetoed it in the meantime."""


def polish_in_rounds(
    ranked: Sequence[Schedule],
    images: float,
    n_images: int,
    polished: Polished,
    kept: Kept,
    *,
    batch: int,
) -> bool:
    """Polishes some of ``ranked``, the best first, for ``images`` in all, measurements of
    ``n_images`` included, at most ``batch`` at a time; whether anything came of it.
    """
    if not ranked:
        return False
    whole = max(_SHORT * n_images, _LEAST_SHORT)
    n = int(np.clip(_SHARE_SHORT * images // (whole + n_images), 1, batch))
    each = max(min(whole, _SHARE_SHORT * images / n - n_images), _LEAST)
    movable = [s for s in ranked if begun_lower(s, 1) is not None]
    tried: list[tuple[int, Schedule]] = []
    if movable[:1] != list(ranked[:1]):
        tried.append((0, ranked[0]))
    for halvings in _HALVINGS if movable else ():
        begun = begun_lower(movable[0], halvings)
        if begun is not None:
            tried.append((halvings, begun))
    tried = tried[:n]
    found = polished([schedule for _, schedule in tried], each, 0)
    values = [math.inf if m.value is None else m.value for m in found]
    if not any(map(math.isfinite, values)):
        return False
    served = tried[int(np.argmin(values))][0]
    known = [schedule for _, schedule in tried]
    others = [s for s in unlike(ranked, n + 2) if s not in known and s is not ranked[0]]
    others = [s for s in others if kept(s)]
    if others := [begun_lower(s, served) or s for s in others][: n - len(tried)]:
        found += polished(others, each, 0)
    left = images - len(found) * (each + n_images)
    for i, (share, one_in) in enumerate(_ROUNDS, start=1):
        best = [schedule for schedule in ranked_of(found) if kept(schedule)]
        if not best:
            break
        most = max(1, min(batch // one_in, len(best)))
        n = int(np.clip(share * left // _LEAST_LONG, 1, most))
        each = max(share * left / n - n_images, _LEAST)
        left -= n * (each + n_images)
        found = polished(unlike(best, n), each, i) or found
    return True


def polish_size(images: float) -> tuple[int, int]:
    """(iterations, images of each) of a polishing that costs ``images``, forward and backward.

    Both grow with the root of the cost: more iterations go further, more images show where.
    """
    n_images = max(20, round(2.5 * math.sqrt(images)))
    return max(1, round(images / (2 * n_images))), n_images


def ranked_of(measured: Sequence[Measured]) -> list[Schedule]:
    """Those measured whole, the best first."""
    whole = [(m.value, i) for i, m in enumerate(measured) if m.value is not None]
    return [measured[i].schedule for _, i in sorted(whole)]


def unlike(schedules: Sequence[Schedule], n: int) -> list[Schedule]:
    """The first ``n``, but as far as possible no two with nearly the same levels: descent makes
    the same of them, whatever their steps.
    """
    chosen: list[Schedule] = []
    for schedule in schedules:
        if len(chosen) >= n:
            return chosen
        if all(_apart(schedule, other) for other in chosen):
            chosen.append(schedule)
    left = [s for s in schedules if s not in chosen]
    return [*chosen, *left][:n]


def _apart(a: Schedule, b: Schedule) -> bool:
    own, other = (
        np.array([s.process.lam(t) for t in s.times if s.process.alpha(t) * s.process.sigma(t)])
        for s in (a, b)
    )
    if len(own) != len(other) or a.start.kind is not b.start.kind:
        return True
    return bool(np.abs(own - other).max(initial=0.0) > _APART)
