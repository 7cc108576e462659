"""Randomised trees on the flat features of a schedule and its log proxies.

Extra-trees (Geurts et al. 2006): cheap, indifferent to scale and to useless columns.  The
uncertainty is the spread of the trees' answers and the spread that is left inside their leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s3search.search.predictor.base import Array, Example, Forecast, log_distances
from s3search.search.predictor.features import Proxies, Standard, flat, proxy_names
from s3search.search.predictor.process import kept_rows, winsorised

_TREES, _TREES_IN_FOLD = 64, 24
_MOST = 600
_LEAST_VARIANCE = 1e-6


@dataclass(slots=True, kw_only=True, eq=False)
class Trees:
    """The ensemble; ``proxies`` names the columns to use, None all that enough examples have."""

    proxies: tuple[str, ...] | None = None
    n_trees: int = _TREES
    _proxies: Proxies | None = field(default=None, init=False)
    _schedules: Standard | None = field(default=None, init=False)
    _forest: Any = field(default=None, init=False)

    def fit(self, examples: Sequence[Example], values: Sequence[float], seed: int) -> None:
        """Grows the trees."""
        from sklearn.ensemble import (  # type: ignore[import-untyped] # noqa: PLC0415
            ExtraTreesRegressor,  # importing it takes a second
        )

        y = log_distances(examples, values)
        kept = kept_rows(y, _MOST, seed)
        examples, y = [examples[i] for i in kept], winsorised(y[kept])
        names = proxy_names(examples) if self.proxies is None else self.proxies
        self._proxies = Proxies(examples, names)
        self._schedules = Standard(flat([example.schedule for example in examples]))
        self._forest = ExtraTreesRegressor(
            n_estimators=self.n_trees,
            min_samples_leaf=2,
            max_features=0.4,
            random_state=seed % 2**32,
        )
        self._forest.fit(self._columns(examples), y)

    def predict(self, examples: Sequence[Example]) -> Forecast:
        """Mean over the trees; the variance is that of their answers plus that in their leaves."""
        if self._forest is None:
            raise RuntimeError("predict: the trees have learnt nothing yet; call fit first")
        leaves = self._forest.apply(self._columns(examples))  # (n, trees)
        means, inside = np.empty(leaves.shape), np.empty(leaves.shape)
        for k, tree in enumerate(self._forest.estimators_):
            means[:, k] = tree.tree_.value[leaves[:, k], 0, 0]
            inside[:, k] = tree.tree_.impurity[leaves[:, k]]
        variance = means.var(1) + inside.mean(1) + _LEAST_VARIANCE
        return Forecast(means.mean(1), np.sqrt(variance))

    def for_fold(self) -> "Trees":
        """Trees for one fold of a cross-validation, which are fewer."""
        return Trees(proxies=self.proxies, n_trees=min(self.n_trees, _TREES_IN_FOLD))

    def _columns(self, examples: Sequence[Example]) -> Array:
        assert self._proxies is not None
        assert self._schedules is not None
        schedules = flat([example.schedule for example in examples])
        constant = np.zeros((len(examples), 1))  # a tree needs a column, even of one example
        return np.hstack([constant, self._proxies(examples), self._schedules(schedules)])
