"""Schedules whose distance to Gaussian data is known in closed form, as examples."""

from functools import lru_cache

import numpy as np

from s3search.models.gaussian import gaussian_distance
from s3search.processes import edm
from s3search.schedules.schedule import Schedule
from s3search.search.edit.draft import random_schedule
from s3search.search.predictor.base import Example
from s3search.search.space import Problem, load_space
from s3search.solvers.plan import compile_plans

NFE = 4
_MEAN = np.linspace(-0.5, 0.5, 16)
_SPECTRUM, _OTHER_SPECTRUM = np.geomspace(1e-3, 1.0, 16), np.geomspace(1e-2, 4.0, 16)


@lru_cache(maxsize=1)
def measured(n: int = 160) -> tuple[tuple[Schedule, ...], np.ndarray, np.ndarray]:
    """Random schedules, their distances (n,), and those on other data (n,): a good proxy."""
    rng, space = np.random.default_rng(0), load_space("usf", {"starts": ["network"]})
    schedules = [random_schedule(Problem(space, edm()), NFE, rng) for _ in range(n)]
    plans = compile_plans(schedules)
    values = gaussian_distance(plans, _MEAN, _SPECTRUM)
    noise = np.exp(0.2 * rng.normal(size=n))
    return tuple(schedules), values, noise * gaussian_distance(plans, -_MEAN, _OTHER_SPECTRUM)


def examples(kind: str = "good") -> tuple[list[Example], np.ndarray]:
    """Examples whose one proxy is good, anti-correlated, noise or absent, and their values."""
    schedules, values, proxy = measured()
    noise = np.exp(np.random.default_rng(1).normal(size=len(values)))
    scores = {"good": proxy, "anti": 1.0 / proxy, "noise": noise}
    found = [
        Example(schedule=s, proxies={} if kind == "none" else {kind: float(scores[kind][i])})
        for i, s in enumerate(schedules)
    ]
    return found, values
