"""ER-SDE (arXiv:2309.06169): multistep solvers whose noise is a function of the level."""

from s3search.processes import NoiseProcess
from s3search.rules import ErSde, NoiseFunction
from s3search.schedules.published.common import check_order, on_times, rising_orders
from s3search.schedules.published.sde import CLEAN
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, Spacing, grid


def er_sde(
    process: NoiseProcess,
    *,
    nfe: int,
    order: int = 3,
    function: NoiseFunction | str = NoiseFunction.SDE_5,
    s_noise: float = 1.0,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """ER-SDE of orders 1 to 3 with exact integrals; by default the last call makes the clean
    image.
    """
    steps = er_sde_steps(nfe, order=order, function=function, s_noise=s_noise)
    return on_times(process, grid(process, nfe, spacing, end or CLEAN), steps)


def er_sde_steps(
    n: int,
    *,
    order: int = 3,
    function: NoiseFunction | str = NoiseFunction.SDE_5,
    s_noise: float = 1.0,
    n_nodes: int | None = None,
) -> tuple[Step, ...]:
    """n steps, the first two of lower order; ``n_nodes`` takes integrals as the published codes
    do, 100 in the authors' and 200 in ComfyUI's.
    """
    check_order(order, 3)
    return tuple(
        Step(
            predictor=ErSde(
                order=own, function=NoiseFunction(function), s_noise=s_noise, n_nodes=n_nodes
            )
        )
        for own in rising_orders(n, order, lowers=False)
    )
