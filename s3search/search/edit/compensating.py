"""Compensations of a search (`s3search.rules.compensation`): drawn, moved, and made to fit."""

import numpy as np

from s3search.processes import NoiseProcess
from s3search.rules.compensation import COMPENSATIONS, AnyCompensation
from s3search.search.space.space import SearchSpace


def fitted_compensation(
    space: SearchSpace,
    process: NoiseProcess,
    compensation: AnyCompensation | None,
    n_points: int,
) -> AnyCompensation | None:
    """``compensation`` within the space's ranges and with the points that exist, None where the
    space or the place has none.
    """
    if compensation is None or n_points < 2 or compensation.choice not in space.compensations:
        return None
    return compensation.fitted(space.limits(process), n_points)


def random_compensation(
    space: SearchSpace, process: NoiseProcess, n_points: int, rng: np.random.Generator
) -> AnyCompensation | None:
    """One of the space's kinds with its number drawn uniformly, or as often none."""
    kind = COMPENSATIONS[space.compensations[int(rng.integers(len(space.compensations)))]]
    new = kind.drawn(space.limits(process), n_points, rng)
    return fitted_compensation(space, process, new, n_points) if rng.random() < 0.5 else None


def moved_compensation(
    space: SearchSpace,
    process: NoiseProcess,
    compensation: AnyCompensation | None,
    n_points: int,
    rng: np.random.Generator,
) -> AnyCompensation | None:
    """``compensation`` after a small move of its number; at times another one, or none."""
    if compensation is None or rng.random() < 0.3:
        return random_compensation(space, process, n_points, rng)
    return compensation.moved(space.limits(process), rng)
