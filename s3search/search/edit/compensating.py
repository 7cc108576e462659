"""Compensations of a search (`s3search.rules.compensation`): drawn, moved, and made to fit.

`dc` reads the newest prediction at another ratio through those before it (DC-Solver), `dualfast`
moves it by a share of its distance from an older call's (DualFast).
"""

import numpy as np

from s3search.rules import LINEAR_PREDICTIONS
from s3search.rules.compensation import AnyCompensation, EarlierCall, Interpolation
from s3search.search.space.space import Compensation, SearchSpace

_WIDTH = 0.15  # one small move of a ratio or coefficient, as a share of its range
_HIGHEST_DEGREE = 3


def kind_of_compensation(compensation: AnyCompensation) -> Compensation:
    """The choice that a compensation is one of."""
    is_dc = isinstance(compensation, Interpolation)
    return Compensation.DC if is_dc else Compensation.DUALFAST


def fitted_compensation(
    space: SearchSpace, compensation: AnyCompensation | None, n_points: int
) -> AnyCompensation | None:
    """``compensation`` within the space's ranges and with the points that exist, None where the
    space or the place has none.
    """
    if compensation is None or n_points < 2:
        return None
    if kind_of_compensation(compensation) not in space.compensations:
        return None
    match compensation:
        case Interpolation(ratio=ratio, order=order):
            ratio, order = _within(ratio, space.dc_ratio), min(order, n_points - 1)
            if (ratio, order) == (compensation.ratio, compensation.order):
                return compensation
            return compensation.model_copy(update={"ratio": ratio, "order": order})
        case EarlierCall(point=point, coefficient=coefficient):
            coefficient = _within(coefficient, space.dualfast_coefficient)
            point = point if -n_points <= point < -1 else -n_points
            if (point, coefficient) == (compensation.point, compensation.coefficient):
                return compensation
            return EarlierCall(point=point, coefficient=coefficient)


def random_compensation(
    space: SearchSpace, n_points: int, rng: np.random.Generator
) -> AnyCompensation | None:
    """One of the space's kinds with its number drawn uniformly, or as often none."""
    kind = space.compensations[int(rng.integers(len(space.compensations)))]
    new: AnyCompensation
    if kind is Compensation.DC:
        prediction = LINEAR_PREDICTIONS[int(rng.integers(2))]
        order = int(rng.integers(1, _HIGHEST_DEGREE + 1))
        ratio = float(rng.uniform(*space.dc_ratio))
        new = Interpolation(prediction=prediction, ratio=ratio, order=order)
    else:
        coefficient = float(rng.uniform(*space.dualfast_coefficient))
        new = EarlierCall(point=-max(n_points, 2), coefficient=coefficient)
    return fitted_compensation(space, new, n_points) if rng.random() < 0.5 else None


def moved_compensation(
    space: SearchSpace,
    compensation: AnyCompensation | None,
    n_points: int,
    rng: np.random.Generator,
) -> AnyCompensation | None:
    """``compensation`` after a small move of its number; at times another one, or none."""
    if compensation is None or rng.random() < 0.3:
        return random_compensation(space, n_points, rng)
    match compensation:
        case Interpolation(ratio=ratio):
            update = {"ratio": _walked(ratio, space.dc_ratio, rng)}
        case EarlierCall(coefficient=coefficient):
            update = {"coefficient": _walked(coefficient, space.dualfast_coefficient, rng)}
    return compensation.model_copy(update=update)


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _walked(value: float, limits: tuple[float, float], rng: np.random.Generator) -> float:
    return _within(value + float(rng.normal(0.0, _WIDTH * (limits[1] - limits[0]))), limits)
