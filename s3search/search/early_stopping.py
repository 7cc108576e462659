"""Early stopping on common noise: a schedule that will not reach the threshold is measured no
further.

All schedules of a search see the same noises, so the loss of the first n images says much of the
whole.  From schedules that were measured whole, the gain  g = whole - value(n)  is known; one
with value(n) is stopped if even the `_LUCKY` quantile of the gains of the better half would not
bring it to the threshold:

    stop at n  if  value(n) + quantile(g) > threshold

Differences are taken and not ratios, since nearly all of a distance of few images is its bias,
which schedules have in common.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from s3search.search.questions import Measurement, Thresholds

SHARES = (0.125, 0.25, 0.5)
"""Of a whole measurement: where a distance is looked at, most of whose value for fewer images is
bias."""

SCORE_SHARES = (1 / 32, 1 / 16, *SHARES)
"""Where the mean of scores is looked at: it has no bias, and two schedules' images are paired."""

_LEAST_IMAGES = 16  # of a look that is earlier than the first of a distance
_LUCKY = 0.1
_LEAST_KNOWN = 6  # whole measurements before anything is stopped
_NEVER = float("inf")


def checkpoints(n_images: int, shares: Sequence[float] = SHARES) -> tuple[int, ...]:
    """The numbers of images at which a schedule may be stopped."""
    found = {round(n_images * s) for s in shares if s >= SHARES[0]}
    found |= {n for s in shares if (n := round(n_images * s)) >= _LEAST_IMAGES}
    return tuple(sorted(n for n in found if n >= 2))


def never(looks: Sequence[int]) -> Thresholds:
    """Thresholds that stop nothing, for the losses on the way."""
    return tuple((n, _NEVER) for n in looks)


def thresholds_for(
    threshold: float, known: Sequence[Measurement], looks: Sequence[int]
) -> Thresholds:
    """The thresholds on the way to ``threshold``, the loss of a whole measurement, by what is
    known of earlier schedules.
    """
    whole = [(m.loss, m.losses) for m in known if m.loss is not None]
    whole.sort(key=lambda each: each[0])
    better = whole[: max(_LEAST_KNOWN, len(whole) // 2)]
    return tuple((n, _highest(threshold, better, n)) for n in looks)


def _highest(
    threshold: float, whole: Sequence[tuple[float, Mapping[int, float]]], n: int
) -> float:
    gains = [value - path[n] for value, path in whole if n in path]
    if len(gains) < _LEAST_KNOWN:
        return _NEVER
    return threshold - float(np.quantile(gains, _LUCKY))
