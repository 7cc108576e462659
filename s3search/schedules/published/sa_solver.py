"""SA-Solver (arXiv:2309.05019): stochastic Adams predictors and correctors of one draw."""

from collections.abc import Callable, Sequence

from s3search.processes import NoiseProcess
from s3search.rules import Prediction, StochasticAdams
from s3search.schedules.published.common import check_order, on_times
from s3search.schedules.published.sde import CLEAN, sde_noise
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Step
from s3search.schedules.spacing import End, Spacing, grid

HIGHEST_ORDER = 4


def sa_solver(
    process: NoiseProcess,
    *,
    nfe: int,
    predictor_order: int = 2,
    corrector_order: int = 2,
    tau: float | Callable[[float], float] = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """SA-Solver with one call per step, as diffusers runs it; by default the last call makes the
    clean image.

    ``tau`` is the amount of noise, 0 for none and 1 for the usual SDE: a number, or a function of
    the time that a step begins at.  A corrector of order 0 is none.
    """
    times = grid(process, nfe, spacing, end or CLEAN)
    taus = [tau(t) if callable(tau) else tau for t in times[:-1]]
    steps = sa_solver_steps(taus, predictor_order=predictor_order, corrector_order=corrector_order)
    return on_times(process, times, steps)


def sa_solver_steps(
    taus: Sequence[float],
    *,
    predictor_order: int = 2,
    corrector_order: int = 2,
    prediction: Prediction | str = Prediction.DATA,
    rescaled: bool = True,
    kind: CorrectorKind | str = CorrectorKind.PSEUDO,
) -> tuple[Step, ...]:
    """A step for each of ``taus``, orders lowered at the end as in diffusers, the last without a
    corrector; ``rescaled`` as diffusers and the authors' code for few steps have it, ``kind`` for
    their PEC or PECE.
    """
    n = len(taus)
    check_order(predictor_order, HIGHEST_ORDER)
    steps = []
    for i, tau in enumerate(taus):
        predictor = min(predictor_order, i + 1, n - i)
        corrector = 0 if i == n - 1 else min(corrector_order, i + 2, n - i + 1)
        orders = (predictor, corrector)
        steps.append(sa_step(orders, tau, prediction=prediction, rescaled=rescaled, kind=kind))
    return tuple(steps)


def sa_step(
    orders: tuple[int, int],
    tau: float,
    *,
    prediction: Prediction | str = Prediction.DATA,
    rescaled: bool = True,
    kind: CorrectorKind | str = CorrectorKind.PSEUDO,
) -> Step:
    """One step with a predictor and a corrector of such orders, without a corrector for 0."""
    prediction = Prediction(prediction)
    makes_two = rescaled and prediction is Prediction.DATA

    def rule(order: int, start: int) -> StochasticAdams:
        return StochasticAdams(
            prediction=prediction,
            start=start,
            points=tuple(range(-order, 0)),
            noise=sde_noise(tau * tau),
            rescaled=makes_two and order == 2,
        )

    predictor, order = orders
    corrector = Corrector(kind=CorrectorKind(kind), rule=rule(order, -2)) if order else None
    return Step(predictor=rule(predictor, -1), corrector=corrector)
