"""Racing on common noise: a schedule that will not reach the bar is measured no further.

All schedules of a search see the same noises, so the distance of the first n images says much of
the whole.  From schedules that were measured whole, the gain  g = whole - value(n)  is known; one
with value(n) is left if even the `_LUCKY` quantile of the gains of the better half would not bring
it to the bar:

    leave at n  if  value(n) + quantile(g) > bar

Differences are taken and not ratios, since nearly all of a distance of few images is its bias,
which schedules have in common.
"""

from collections.abc import Sequence

import numpy as np

from s3search.search.lab import Measured, Race

_SHARES = (0.125, 0.25, 0.5)  # of a whole measurement
_LUCKY = 0.1
_LEAST_KNOWN = 6  # whole measurements before anything is left
_NEVER = float("inf")


def checkpoints(n_images: int) -> tuple[int, ...]:
    """The numbers of images at which a race looks."""
    return tuple(sorted({n for n in (round(n_images * s) for s in _SHARES) if n >= 2}))


def open_race(n_images: int) -> Race:
    """A race that nobody leaves, for the distances on its way."""
    return tuple((n, _NEVER) for n in checkpoints(n_images))


def race_to(bar: float, known: Sequence[Measured], n_images: int) -> Race:
    """The race against ``bar``, a whole distance, with what is known of earlier ones."""
    whole = [(m.value, m.path) for m in known if m.value is not None]
    whole.sort(key=lambda each: each[0])
    better = whole[: max(_LEAST_KNOWN, len(whole) // 2)]
    return tuple((n, _highest(bar, better, n)) for n in checkpoints(n_images))


def _highest(bar: float, whole: Sequence[tuple[float, object]], n: int) -> float:
    gains = [value - path[n] for value, path in whole if isinstance(path, dict) and n in path]
    if len(gains) < _LEAST_KNOWN:
        return _NEVER
    return bar - float(np.quantile(gains, _LUCKY))
