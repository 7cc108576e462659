"""What a metric saw of a schedule's images as they come, and whether it is measured further."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from s3search.evaluation.metric import Metric
from s3search.evaluation.views import Condition
from s3search.metrics.samples import Array
from s3search.search.questions import Measure, Rung


class Observed:
    """What was seen of the images of one question so far."""

    def __init__(self, question: Measure, metric: Metric, guards: Sequence[Metric] = ()) -> None:
        self.question = question
        self.path: dict[int, float] = {}  # values at the thresholds, by number of images
        self.n_images = 0  # seen
        self.has_stopped = False
        self.metric, self._guards = metric, guards
        self._thresholds = deque(question.thresholds)
        self._seen: list[Array] = []
        self._by_guards: list[list[Array]] = [[] for _ in guards]

    def sees(self, images: Tensor, condition: Condition) -> None:
        """Looks at the next images (b, ...); raises `EvaluationFailed`."""
        self.takes(self.metric.seen(images, condition))
        self.guards_take([guard.seen(images, condition) for guard in self._guards])

    def takes(self, seen: Array) -> None:
        """Takes what the metric saw of the next images (b, d); raises `EvaluationFailed`."""
        self._seen.append(seen)
        self.n_images += len(seen)
        if self._thresholds and self.n_images >= self._thresholds[0][0]:
            n_images, threshold = self._thresholds.popleft()
            so_far = self.seen[:n_images]
            value = self.metric.statistic.value(so_far)
            self.path[n_images] = value
            if self.metric.direction.loss(value) > threshold:
                self.has_stopped = True
                self._seen = [so_far]

    def guards_take(self, seen: Sequence[Array]) -> None:
        """Takes what each guard saw of the same images (b, d)."""
        for all_of_one, new in zip(self._by_guards, seen, strict=True):
            all_of_one.append(new)

    @property
    def seen(self) -> Array:
        """What the metric saw of all images that count (n, d)."""
        return np.concatenate(self._seen)

    @property
    def by_guards(self) -> tuple[float, ...]:
        """The values of the guards; none of a schedule that was stopped early."""
        if self.has_stopped:
            return ()
        pairs = zip(self._guards, self._by_guards, strict=True)
        return tuple(guard.statistic.value(np.concatenate(seen)) for guard, seen in pairs)

    @property
    def guard_errors(self) -> tuple[float | None, ...]:
        """The standard errors of `by_guards` where a person asks; a search needs none."""
        if self.question.rung is not Rung.USER:
            return ()
        pairs = zip(self._guards, self._by_guards, strict=True)
        found = (guard.statistic.estimate(np.concatenate(seen)) for guard, seen in pairs)
        return tuple(each.standard_error for each in found)
