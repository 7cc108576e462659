"""Solvers whose newest prediction is compensated: DC-Solver and DualFast.

The formulas stand in `s3search.rules.compensation`.  DC-Solver (arXiv:2409.03755) publishes ratios
for its models only; `s3search.search.edit.fit_dc` fits them.  For DualFast (arXiv:2506.13058)
neither published code nor the method's text was at hand, and no golden case: the formula is the
one our notes ascribe to the paper, with the earlier call fixed at the first, the noisiest, and the
changed prediction kept in the history.  That the coefficients fall along the run is the paper's
too; which values they take is left to the caller.
"""

from collections.abc import Sequence

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import Prediction, Variant
from s3search.rules.compensation import EarlierCall, Interpolation
from s3search.schedules.published.unipc import unipc
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, Spacing


def dc_solver(
    process: NoiseProcess,
    ratios: Sequence[float],
    *,
    order: int = 3,
    dc_order: int = 2,
    variant: Variant | str = "bh2",
    prediction: Prediction | str = Prediction.DATA,
    spacing: Spacing | str = "logsnr",
    end: End | None = None,
) -> Schedule:
    """UniPC with one compensation ratio per call; the first ``dc_order`` ratios must be 1."""
    base = unipc(
        process,
        nfe=len(ratios),
        order=order,
        variant=variant,
        prediction=prediction,
        spacing=spacing,
        end=end,
    )
    return with_ratios(base, ratios, dc_order=dc_order, prediction=prediction)


def with_ratios(
    schedule: Schedule,
    ratios: Sequence[float],
    *,
    dc_order: int = 2,
    prediction: Prediction | str = Prediction.DATA,
) -> Schedule:
    """``schedule`` with a DC-Solver compensation at every step whose ratio is not 1."""
    return _with_compensations(
        schedule,
        [
            None
            if ratio == 1.0
            else Interpolation(prediction=Prediction(prediction), ratio=ratio, order=dc_order)
            for ratio in ratios
        ],
    )


def dualfast(schedule: Schedule, coefficients: Sequence[float]) -> Schedule:
    """``schedule`` (DDIM, DPM-Solver, DPM-Solver++, ...) with eps <- (1 + c_i) eps - c_i eps_0 at
    step i.

    One coefficient per step; the first must be 0, for there is no earlier call.  `falling` makes
    some that fall.
    """
    if coefficients and coefficients[0] != 0.0:
        raise InvalidSchedule(
            f"coefficients[0]: step 0 has no earlier call, expected 0, found {coefficients[0]}"
        )
    return _with_compensations(
        schedule,
        [
            None if c == 0.0 else EarlierCall(point=-i - 1, coefficient=c)
            for i, c in enumerate(coefficients)
        ],
    )


def falling(largest: float, n: int) -> tuple[float, ...]:
    """n coefficients for `dualfast`: 0, then a straight line from ``largest`` to 0."""
    return (0.0, *(largest * (n - 1 - i) / max(n - 2, 1) for i in range(1, n)))


def _with_compensations(
    schedule: Schedule, compensations: Sequence[Interpolation | EarlierCall | None]
) -> Schedule:
    if len(compensations) != schedule.n_steps:
        raise InvalidSchedule(
            f"compensations: {schedule.n_steps} steps take {schedule.n_steps} ratios or "
            f"coefficients, found {len(compensations)}"
        )
    steps: list[Step] = [
        step.model_copy(update={"compensation": own})
        for step, own in zip(schedule.steps, compensations, strict=True)
    ]
    return schedule.changed(steps=steps, provenance={})
