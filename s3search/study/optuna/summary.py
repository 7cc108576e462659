"""A dozen numbers about a schedule, as Optuna parameters: what plots of a study can say
something about.
"""

from statistics import fmean
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from s3search.rules import Prediction, level
from s3search.schedules.schedule import Schedule, StartKind
from s3search.solvers.noise_shares import noise_shares

_SIGMA = FloatDistribution(1e-6, 1e6, log=True)
_SHARE = FloatDistribution(0.0, 1.0)
_CLEAN = 1e-6  # what a clean end (sigma = 0) shows as on a log axis

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "is_baseline": CategoricalDistribution((False, True)),
    "nfe": IntDistribution(0, 1000),
    "steps": IntDistribution(1, 1000),
    "start": CategoricalDistribution(tuple(kind.value for kind in StartKind)),
    "order_mean": FloatDistribution(1.0, 16.0),
    "data_share": _SHARE,
    "corrector_share": _SHARE,
    "sigma_second": _SIGMA,
    "sigma_middle": _SIGMA,
    "sigma_last_call": _SIGMA,
    "sigma_end": _SIGMA,
    "noise_share": FloatDistribution(0.0, 100.0),  # of schedules that draw noise in their steps
}


def summary(schedule: Schedule, *, is_baseline: bool) -> dict[str, Any]:
    """The values of `DISTRIBUTIONS` for one schedule, as far as it has them; sigma is the
    noise-to-signal ratio.
    """
    rules = [step.predictor for step in schedule.steps]
    ratios = [_ratio(schedule, t) for t in schedule.times]
    shares = noise_shares(schedule)
    drawn = {"noise_share": min(fmean(shares), 100.0)} if any(shares) else {}
    return {
        "is_baseline": is_baseline,
        "nfe": schedule.nfe,
        "steps": schedule.n_steps,
        "start": schedule.start.kind.value,
        "order_mean": fmean(rule.counted_order for rule in rules),
        "data_share": fmean(rule.extrapolated is Prediction.DATA for rule in rules),
        "corrector_share": fmean(step.corrector is not None for step in schedule.steps),
        "sigma_second": ratios[1],
        "sigma_middle": ratios[len(ratios) // 2],
        "sigma_last_call": ratios[-2],
        "sigma_end": ratios[-1],
        **drawn,
    }


def _ratio(schedule: Schedule, t: float) -> float:
    at = level(schedule.process, t)
    ratio = at.sigma / at.alpha if at.alpha else _SIGMA.high
    return min(max(ratio, _CLEAN), _SIGMA.high)
