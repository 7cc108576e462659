"""The trajectory's error as a filter of children, used only where it pays for its images.

The error is the distance between a schedule's images and those of a fine solve from the same few
noises.  It is first taken of the schedules that were measured whole at the beginning, which no
rung has chosen.  Among the good of them a score has a correlation r with the whole distance;

    r^2 / (1 - r^2) / images

is what it says for an image: averaging over more of them raises the ratio in proportion.
Where the error says more than the first look of a measurement does, then of twice as many children
as are measured those with the larger errors are left out; else it is never asked for again.
"""

from collections.abc import Sequence

import numpy as np

from s3search.search.conversation import Conversation, Setup, Talk, scored
from s3search.search.ladder import LadderRung
from s3search.search.predictor.proxy_correlation import signal_per_image
from s3search.search.predictor.ranks import best_share, rank_correlation
from s3search.search.questions import FINE_NFE, Measurement
from s3search.search.trial import Trial

OFFERED = 2  # children looked at, for one that is measured

_LEAST = 12  # schedules that a verdict needs
_GOOD = 0.5  # of them: a quarter would be too few


class TrajectoryFilter:
    """The errors known at one number of calls, and whether to ask for more."""

    def __init__(self, setup: Setup, talk: Talk, *, is_used: bool) -> None:
        self._setup, self._talk = setup, talk
        self._is_judged = False
        self.is_used = is_used
        self.errors: dict[str, float] = {}  # by schedule id, nan where there is none
        self.images = 0.0  # spent so far, the fine solve's included

    def learn(self, measured: Sequence[Measurement]) -> Conversation[None]:
        """Looks at what was measured first, and decides."""
        if self._is_judged or not self.is_used:
            return
        whole = [m for m in measured if m.value is not None]
        yield from self._ask([m.trial for m in whole])
        self.is_used = self._is_worth_it(whole)
        self._is_judged = True

    def best(self, trials: Sequence[Trial], k: int) -> Conversation[list[int]]:
        """Indices of the ``k`` with the smallest errors, those without one last."""
        yield from self._ask(trials)
        errors = [self.errors[trial.id] for trial in trials]
        return [int(i) for i in np.argsort(errors, kind="stable")[:k]]

    def _ask(self, trials: Sequence[Trial]) -> Conversation[None]:
        new = [trial for trial in trials if trial.id not in self.errors]
        if not new:
            return
        n_images = self._setup.trajectory_images
        fine = 0.0 if self.errors else n_images * FINE_NFE / new[0].nfe
        self.images += n_images * len(new) + fine
        scores = yield from scored(self._setup, self._talk, LadderRung.TRAJECTORY, new)
        self.errors |= {trial.id: score for trial, score in zip(new, scores, strict=True)}

    def _is_worth_it(self, whole: Sequence[Measurement]) -> bool:
        first = next(iter(self._setup.looks), None)
        rows = [
            (self.errors[m.trial.id], m.losses[first], m.loss)
            for m in whole
            if m.loss is not None and first is not None and first in m.path
        ]
        known = np.array(rows).reshape(-1, 3)
        known = known[~np.isnan(known).any(axis=1)]
        if first is None or len(known) < _LEAST:
            return False
        good = known[best_share(known[:, 2], share=_GOOD)]
        own, look = (rank_correlation(good[:, i], good[:, 2]) for i in (0, 1))
        n_images = self._setup.trajectory_images
        return signal_per_image(own, n_images) > signal_per_image(look, first)
