"""What a predictor said of the schedules that were then measured: a record for the study."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s3search.search.predictor.base import Forecast
from s3search.search.predictor.ranks import rank_correlation, ranks_of

_NORMAL_90 = 1.6449


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Predicted against measured, of the ``n`` schedules proposed in one stage.

    Ranks count from 0 (best) to 1 (worst); by chance their error is about a third.  ``spearman``
    is None where nothing could be ranked, ``coverage`` is the share inside the 90 % intervals,
    ``ranks`` are (predicted, measured) of each schedule.
    """

    stage: int
    n: int
    spearman: float | None
    mean_abs_rank_error: float
    coverage: float
    ranks: tuple[tuple[float, float], ...]


def calibration_of(stage: int, forecast: Forecast, values: Sequence[float]) -> Calibration:
    """The record of one stage; ``values`` are the finite distances, one per forecast."""
    n = len(values)
    if n == 0 or n != len(forecast.mean):
        raise ValueError(
            f"a calibration compares one distance with each forecast and needs one at least, "
            f"found {n} distances for {len(forecast.mean)} forecasts"
        )
    y = np.log(np.maximum(np.asarray(values, dtype=np.float64), 1e-12))
    correlation = rank_correlation(forecast.mean, y)
    steps = max(n - 1, 1)
    predicted, measured = ((ranks_of(each) - 1) / steps for each in (forecast.mean, y))
    inside = np.abs(y - forecast.mean) <= _NORMAL_90 * forecast.std
    return Calibration(
        stage=stage,
        n=n,
        spearman=None if math.isnan(correlation) else correlation,
        mean_abs_rank_error=float(np.abs(predicted - measured).mean()),
        coverage=float(inside.mean()),
        ranks=tuple(zip(predicted.tolist(), measured.tolist(), strict=True)),
    )
