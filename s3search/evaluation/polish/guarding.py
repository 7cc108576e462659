"""A polish goes back on its way as far as its guards ask.

The moves m of a finished polish are scaled down, m, 0.8 m, ..., until the schedule keeps every
guard beside the best published one, on noise that no iteration had and with a margin, since the
limit is near and other noise will say otherwise.  Values of a guard that are compared are of
equally many images, so that the bias of a distance is in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from s3search.evaluation.decoding import images_of
from s3search.evaluation.metric import Metric
from s3search.evaluation.noise import for_network
from s3search.evaluation.polish.adam import copied, put_back
from s3search.evaluation.polish.gradient import PlanGradient
from s3search.search.guard import Guard
from s3search.search.questions import FINE_NFE
from s3search.solvers.plan import Plan
from s3search.solvers.sample import AnyPlan, sample

_SHARES = (1.0, 0.8, 0.65, 0.5, 0.35, 0.25, 0.15, 0.08, 0.04)  # of the moves, the largest first
_MARGIN = 0.2  # of what a guard allows beyond the published value


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedBy:
    """The guards of a polish, as a worker measures them, and the plan beside which they hold."""

    guards: Sequence[Guard]
    metrics: Sequence[Metric]
    published: Plan

    @torch.no_grad()
    def keep(self, gradient: PlanGradient, noise_seed: int, n_images: int) -> int:
        """Scales the moves down until every guard is kept; takes them all back where none is.
        Returns the images that it took to know, fine solves by their calls.
        """
        n_solved = 0
        if any(metric.fine_targets for metric in self.metrics):
            n_solved = round(n_images * FINE_NFE / gradient.table.table.nfe)
        moves = gradient.table.moves
        moved = copied(moves)
        limits = self._values(gradient, self.published, noise_seed, n_images)
        for tried, share in enumerate(_SHARES, start=1):
            put_back(moves, [share * move for move in moved])
            gradient.table.project()
            values = self._values(gradient, gradient.table.plan(), noise_seed, n_images)
            if all(map(_is_kept, self.guards, values, limits)):
                return n_solved + (1 + tried) * n_images
        put_back(moves, [torch.zeros_like(move) for move in moved])
        return n_solved + (1 + len(_SHARES)) * n_images

    def _values(
        self, gradient: PlanGradient, plan: AnyPlan, noise_seed: int, n_images: int
    ) -> list[float]:
        """What each guard gives the images of a plan; infinite where they are not finite."""
        seen: list[list[np.ndarray]] = [[] for _ in self.metrics]
        fine = any(metric.fine_targets for metric in self.metrics)
        for noise, condition, draws in gradient.batches(noise_seed, n_images, fine_targets=fine):
            given = for_network(condition)
            states = sample(gradient.denoiser, plan, noise, step_noise=draws, **given)
            images = images_of(gradient.denoiser, states)
            if not torch.isfinite(images).all():
                return [np.inf if m.direction == "minimize" else -np.inf for m in self.metrics]
            for own, metric in zip(seen, self.metrics, strict=True):
                own.append(metric.seen(images, condition))
        pairs = zip(self.metrics, seen, strict=True)
        return [metric.statistic.value(np.concatenate(own)) for metric, own in pairs]


def _is_kept(guard: Guard, value: float, published: float) -> bool:
    allowed = guard.direction.loss(guard.limit(published)) - guard.direction.loss(published)
    return guard.excess(value, published) <= -_MARGIN * abs(allowed)
