r"""The compensation ratios of DC-Solver (arXiv:2409.03755), fitted to a model.

    rho_i    ratio of step i;  u = rho - 1
    x_{i+1}  the state step i predicts, before any corrector
    y_{i+1}  the state there on a fine solve from the same noise

The ratios are found greedily, one step after the other, each minimising |x_{i+1} - y_{i+1}|^2 over
all samples and pixels, as published.  The paper does so with 40 iterations of AdamW; here the
minimum is exact: x_{i+1} is linear in the compensated prediction, whose Lagrange weights are
polynomials of degree k in rho, so the loss is a polynomial of degree 2k, known from k + 1 values
of x_{i+1} that cost no network call.  A minimum outside the bounds is taken on them.  Greedy is
not global: the last state may get no nearer although every step did, so compare before use.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.rules import Prediction
from s3search.schedules.published import dpm_multistep_steps, on_times, with_ratios
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind
from s3search.schedules.spacing import Spacing, spaced
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import Denoiser, advance, check_process, run_plan

Array = npt.NDArray[np.float64]


def fit_dc_ratios(
    denoiser: Denoiser,
    schedule: Schedule,
    noise: Tensor,  # (B, ...)
    *,
    dc_order: int = 2,
    prediction: Prediction | str = Prediction.DATA,
    bounds: tuple[float, float] = (0.5, 1.5),
    n_substeps: int = 20,
    **condition: Any,
) -> tuple[float, ...]:
    """One ratio per step for `published.with_ratios`; the first ``dc_order`` are 1.

    ``noise`` ~ N(0, I), ten samples in the paper.  Costs the calls of the schedule once, and
    ``n_substeps`` per step for the fine solve.
    """
    if not bounds[0] <= 1.0 <= bounds[1]:
        raise InvalidConfig(f"bounds: must hold 1 (no compensation), found {bounds}")
    plan = compile_plan(schedule)
    check_process(denoiser, plan)
    x = plan.first_state(noise)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return denoiser(x, t, **condition)

    targets = _fine_states(network, schedule, x, n_substeps)
    ratios = [1.0] * schedule.n_steps
    predictions: list[Tensor] = []

    def state_with(ratios: Sequence[float]) -> Tensor:
        """Where the next call is made, or the last state, with these ratios."""
        tried = with_ratios(schedule, ratios, dc_order=dc_order, prediction=prediction)
        states = [x]
        advance(compile_plan(tried), states, predictions)
        return states[-1]

    nodes = np.linspace(-0.5, 0.5, dc_order + 1)
    n_calls = int(schedule.start.kind is StartKind.NETWORK)  # before what step i predicts
    for i, step in enumerate(schedule.steps):
        while len(predictions) < n_calls:
            at = state_with(ratios)
            predictions.append(network(at, plan.call_times(len(predictions), at)))
        if i >= dc_order:
            tried = [state_with([*ratios[:i], 1.0 + float(u), *ratios[i + 1 :]]) for u in nodes]
            ratios[i] = 1.0 + _minimum(nodes, tried, targets[i], bounds[0] - 1.0, bounds[1] - 1.0)
        is_implicit = step.corrector is not None and step.corrector.kind is CorrectorKind.IMPLICIT
        n_calls += 1 + is_implicit
    return tuple(ratios)


def _fine_states(network: Any, schedule: Schedule, x: Tensor, n_substeps: int) -> list[Tensor]:
    """The states at times[1:] from ``x`` at times[0]: DPM-Solver++(2M) on each interval cut into
    ``n_substeps``.

    An interval that ends clean stays whole: the image there is D, as in the schedule.
    """
    process, times, coarse = schedule.process, [schedule.times[0]], {0}
    for s, t in pairwise(schedule.times):
        is_whole = t == process.clean_time
        times += [t] if is_whole else spaced(process, s, t, n_substeps, Spacing.LOGSNR)[1:]
        coarse.add(len(times) - 1)
    n = len(times) - 1
    fine = on_times(process, times, dpm_multistep_steps(n, order=2, lower_order_final=False))
    plan, found, n_calls = compile_plan(fine), [], 0

    def noting(x: Tensor, t: Tensor) -> Tensor:
        nonlocal n_calls
        if n_calls in coarse:
            found.append(x)
        n_calls += 1
        answer: Tensor = network(x, t)
        return answer

    end = run_plan(noting, plan, x)
    return [*found[1:], end]


def _minimum(
    nodes: Array, values: Sequence[Tensor], target: Tensor, low: float, high: float
) -> float:
    """The u in [low, high] at which the polynomial through ``values`` is nearest to ``target``."""
    flat = torch.stack([(value - target).double().flatten() for value in values]).cpu()
    gram = (flat @ flat.T).numpy()
    inverse = np.linalg.inv(np.vander(nodes, increasing=True))
    squares = inverse @ gram @ inverse.T  # <v_m, v_n> of the residual sum_m v_m u^m
    loss = np.polynomial.Polynomial([0.0])
    for m, row in enumerate(squares):
        for n, c in enumerate(row):
            loss += np.polynomial.Polynomial.basis(m + n) * c
    flats = [float(u.real) for u in loss.deriv().roots() if abs(u.imag) < 1e-9]
    candidates = [0.0, low, high, *(u for u in flats if low < u < high)]
    return min(candidates, key=lambda u: float(loss(u)))
