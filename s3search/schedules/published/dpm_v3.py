"""DPM-Solver-v3 (arXiv:2310.13268) with its EMS statistics.

Its times are nodes of the statistics. Predictors of rising order are Taylor steps with the v3
prediction; correctors reuse the call at the predicted state and start one point earlier. A
*pseudo* estimate takes the k-th derivative from the k nearest points instead of from all. With
*half* only the points in the noisier half of the times are corrected.
"""

from collections.abc import Sequence
from itertools import pairwise

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, VpDiscrete
from s3search.rules import Derivative, EmsStatistics, Prediction, Taylor
from s3search.schedules.published.common import check_order, on_times, rising_orders
from s3search.schedules.schedule import Corrector, Schedule, StatisticsReference, Step
from s3search.schedules.spacing import End, EndRule, Spacing, grid

_HALF = 0.5  # above this time `half` corrects


def dpm_solver_v3(  # noqa: PLR0913  # the options of the published call
    process: NoiseProcess,
    ems: EmsStatistics,
    *,
    nfe: int,
    order: int = 3,
    p_pseudo: bool = False,
    use_corrector: bool = True,
    c_pseudo: bool = True,
    half: bool = False,
    spacing: Spacing | str = "logsnr",
    end: End | None = None,
) -> Schedule:
    """DPM-Solver-v3 on the nodes nearest to the grid; compile it with the same ``ems``.

    The authors choose ``p_pseudo`` and ``c_pseudo`` per model, and ``half`` for strong guidance.
    """
    end = end or End()
    denoise = end.rule is EndRule.DENOISE
    fine = grid(process, nfe, spacing, end)
    times = snapped(process, fine[:-1] if denoise else fine, ems)
    steps = dpm_solver_v3_steps(
        nfe - denoise,
        order=order,
        p_pseudo=p_pseudo,
        use_corrector=use_corrector,
        c_pseudo=c_pseudo,
        n_corrected=corrected_by_half(process, times) if half else None,
    )
    if denoise:
        last = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
        times, steps = (*times, process.clean_time), (*steps, last)
    reference = StatisticsReference(digest=ems.digest) if steps[0].predictor.needs_ems else None
    return on_times(process, times, steps, statistics=reference)


def dpm_solver_v3_steps(
    n: int,
    *,
    order: int,
    p_pseudo: bool = False,
    use_corrector: bool = True,
    c_pseudo: bool = True,
    n_corrected: int | None = None,
    lower_order_final: bool = True,
) -> tuple[Step, ...]:
    """n predictors of rising order and, on all but the last, correctors.

    As in the authors' code a corrector has its predictor's order, and with ``c_pseudo`` one more;
    of order 1 it would change nothing, and is left out.  ``n_corrected`` leaves out those after so
    many steps, see `corrected_by_half`.
    """
    check_order(order, 3)
    last_corrected = n - 1 if n_corrected is None else min(n_corrected, n - 1)
    steps = []
    for i, own in enumerate(rising_orders(n, order, lowers=lower_order_final)):
        predictor = _rule(own, start=-1, others=range(-2, -1 - own, -1), pseudo=p_pseudo)
        corrected = own + c_pseudo
        corrector = None
        if use_corrector and i < last_corrected and corrected > 1:
            others = (-1, *range(-3, -1 - corrected, -1))
            corrector = Corrector(rule=_rule(corrected, start=-2, others=others, pseudo=c_pseudo))
        steps.append(Step(predictor=predictor, corrector=corrector))
    return tuple(steps)


def corrected_by_half(process: NoiseProcess, times: Sequence[float]) -> int:
    """The number of steps that the authors' ``half`` corrects: those that end at a time above 0.5.

    Times count as in their code: up to 1 for VP, sigma for EDM.  (That is what the code does; its
    documentation says t <= 0.5.)
    """
    half = _HALF * process.n - 1 if isinstance(process, VpDiscrete) else _HALF
    return sum(t > half for t in times[1:])


def snapped(
    process: NoiseProcess, times: tuple[float, ...], ems: EmsStatistics
) -> tuple[float, ...]:
    """The times of the nodes nearest to ``times``; raises `InvalidSchedule` where two are one.

    From order 2 on the authors' code divides by their distance, and ends in NaN or an error.
    """
    nodes = [ems.nearest_node(process.lam(t)) for t in times]
    for i, (node, following) in enumerate(pairwise(nodes)):
        if node == following:
            raise InvalidSchedule(
                f"times[{i}] and times[{i + 1}] share node {node} of {ems.n_intervals + 1}; "
                "use fewer calls, or statistics with more nodes"
            )
    return tuple(process.time_of_lam(float(ems.lams[node])) for node in nodes)


def _rule(order: int, *, start: int, others: range | tuple[int, ...], pseudo: bool) -> Taylor:
    """The Taylor step from ``start``; ``others`` are order - 1 points, newest first."""
    derivatives = tuple(
        Derivative(points=tuple(others[:k] if pseudo else others)) for k in range(1, order)
    )
    return Taylor(prediction=Prediction.V3, order=order, start=start, derivatives=derivatives)
