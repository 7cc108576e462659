"""UniPC (arXiv:2302.04867)."""

from s3search.processes import NoiseProcess
from s3search.rules import Prediction, UniPC, Variant
from s3search.schedules.published.common import check_order, on_times, rising_orders
from s3search.schedules.schedule import Corrector, Schedule, Step
from s3search.schedules.spacing import End, Spacing, grid


def unipc(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 3,
    variant: Variant | str = "bh2",
    prediction: Prediction | str = Prediction.DATA,
    spacing: Spacing | str = "logsnr",
    end: End | None = None,
) -> Schedule:
    """UniPC of orders 1 to 4 with its corrector on every step but the last."""
    steps = unipc_steps(nfe, order=order, variant=variant, prediction=prediction)
    return on_times(process, grid(process, nfe, spacing, end), steps)


def unipc_steps(
    n: int,
    *,
    order: int,
    variant: Variant | str = "bh2",
    prediction: Prediction | str = Prediction.DATA,
    corrector: bool = True,
    lower_order_final: bool = True,
) -> tuple[Step, ...]:
    """UniPC predictors of rising order, each corrected at its own order by the next call (no extra
    call).
    """
    check_order(order, 4)
    prediction, variant = Prediction(prediction), Variant(variant)
    steps = []
    for i, own in enumerate(rising_orders(n, order, lowers=lower_order_final)):
        points = tuple(range(-own, -1))
        rule = UniPC(prediction=prediction, variant=variant, points=points)
        back = (*(p - 1 for p in points), -1)
        correct = UniPC(prediction=prediction, variant=variant, start=-2, points=back)
        follows = corrector and i < n - 1
        steps.append(Step(predictor=rule, corrector=Corrector(rule=correct) if follows else None))
    return tuple(steps)
