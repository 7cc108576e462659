"""Compensations of a search (`s3search.rules.compensation`): drawn, moved, and made to fit."""

import numpy as np

from s3search.rules.compensation import COMPENSATIONS, AnyCompensation
from s3search.search.space import Problem


def fitted_compensation(
    problem: Problem,
    compensation: AnyCompensation | None,
    n_points: int,
) -> AnyCompensation | None:
    """``compensation`` within the space's ranges and with the points that exist, None where the
    space or the place has none.
    """
    allowed = problem.space.compensations
    if compensation is None or n_points < 2 or compensation.choice not in allowed:
        return None
    return compensation.fitted(problem.limits, n_points)


def random_compensation(
    problem: Problem, n_points: int, rng: np.random.Generator
) -> AnyCompensation | None:
    """One of the space's kinds with its number drawn uniformly, or as often none."""
    allowed = problem.space.compensations
    kind = COMPENSATIONS[allowed[int(rng.integers(len(allowed)))]]
    new = kind.drawn(problem.limits, n_points, rng)
    return fitted_compensation(problem, new, n_points) if rng.random() < 0.5 else None


def moved_compensation(
    problem: Problem,
    compensation: AnyCompensation | None,
    n_points: int,
    rng: np.random.Generator,
) -> AnyCompensation | None:
    """``compensation`` after a small move of its number; at times another one, or none."""
    if compensation is None or rng.random() < 0.3:
        return random_compensation(problem, n_points, rng)
    return compensation.moved(problem.limits, rng)
