"""The trajectory's error as a filter before the race, used only where it is worth its images.

The error is the distance between a schedule's images and those of a fine solve from the same few
noises.  It is first taken of the schedules that were measured whole at the beginning, which no
rung has chosen.  Among the good of them a score has a correlation r with the whole distance;

    r^2 / (1 - r^2) / images

is what it says for an image: averaging over more of them raises the ratio in proportion.
Where the error says more than the race's first look does, then of twice as many children as are
measured those with the larger errors are left out; else it is never asked for again.
"""

from collections.abc import Sequence

import numpy as np

from s3search.schedules.schedule import Schedule
from s3search.search.early_stopping import checkpoints
from s3search.search.lab import Lab, Measured
from s3search.search.ladder import LadderRung
from s3search.search.predictor.proxy_correlation import signal_per_image
from s3search.search.predictor.ranks import best_share, rank_correlation

OFFERED = 2  # children looked at, for one that is measured

_LEAST = 12  # schedules that a verdict needs
_GOOD = 0.5  # of them: a quarter would be too few


class TrajectoryFilter:
    """The errors known at one number of calls, and whether to ask for more."""

    def __init__(self, lab: Lab, *, is_used: bool) -> None:
        self._lab = lab
        self._is_judged = False
        self.is_used = is_used
        self.errors: dict[str, float] = {}  # by schedule id, nan where there is none
        self.images = 0.0  # spent so far, the fine solve's included

    def learn(self, measured: Sequence[Measured]) -> None:
        """Looks at what was measured first, and decides."""
        if self._is_judged or not self.is_used:
            return
        whole = [m for m in measured if m.value is not None]
        self._ask([m.schedule for m in whole])
        self.is_used = self._is_worth_it(whole)
        self._is_judged = True

    def best(self, schedules: Sequence[Schedule], k: int) -> list[int]:
        """Indices of the ``k`` with the smallest errors, those without one last."""
        self._ask(schedules)
        errors = [self.errors[s.id] for s in schedules]
        return [int(i) for i in np.argsort(errors, kind="stable")[:k]]

    def _ask(self, schedules: Sequence[Schedule]) -> None:
        new = [s for s in schedules if s.id not in self.errors]
        if not new:
            return
        price = self._lab.price(LadderRung.TRAJECTORY, new[0].nfe)
        self.images += price.images * len(new) + (0.0 if self.errors else price.once)
        found = self._lab.scores(LadderRung.TRAJECTORY, new)
        self.errors |= {s.id: float(error) for s, error in zip(new, found, strict=True)}

    def _is_worth_it(self, whole: Sequence[Measured]) -> bool:
        bars = checkpoints(self._lab.n_images)
        rows = [
            (self.errors[m.schedule.id], m.path[bars[0]], m.value)
            for m in whole
            if m.value is not None and bars and bars[0] in m.path
        ]
        known = np.array(rows).reshape(-1, 3)
        known = known[~np.isnan(known).any(axis=1)]
        if len(known) < _LEAST:
            return False
        good = known[best_share(known[:, 2], share=_GOOD)]
        own, first = (rank_correlation(good[:, i], good[:, 2]) for i in (0, 1))
        price = self._lab.price(LadderRung.TRAJECTORY, whole[0].schedule.nfe)
        return signal_per_image(own, price.images) > signal_per_image(first, bars[0])
