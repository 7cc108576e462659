"""The sampling loop: one for every plan."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.solvers.plan import Plan


class Denoiser(Protocol):
    """D(x, t, **condition) -> x0 on native-scale x; ``t`` (B,) in the process's unit."""

    process: NoiseProcess
    sample_shape: tuple[int, int, int]  # (C, H, W)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The network's estimate of the clean image, shape and dtype of x."""


def sample(denoiser: Denoiser, plan: Plan, noise: Tensor, **condition: Any) -> Tensor:
    """The images (B, C, H, W) that ``plan`` makes of ``noise`` ~ N(0, I) of the same shape.

    States live in the noise's dtype and on its device; one network call per evaluated row.
    ``condition`` goes to every call. Raises `InvalidSchedule` when the plan is for another process
    than the denoiser's.
    """
    check_process(denoiser, plan)
    return run_plan(lambda x, t: denoiser(x, t, **condition), plan, noise * plan.levels[0].sigma)


def run_plan(network: Callable[[Tensor, Tensor], Tensor], plan: Plan, x: Tensor) -> Tensor:
    """Executes the table from the initial state ``x``, already at the first level's scale."""
    states: list[Tensor] = [x]
    predictions: list[Tensor] = []
    calls = dict(zip(plan.evaluated, plan.network_times, strict=True))
    image = (
        None if plan.image is None else torch.as_tensor(plan.image, dtype=x.dtype, device=x.device)
    )
    p, q, constant = plan.p.tolist(), plan.q.tolist(), plan.constant.tolist()
    for r in range(plan.n_rows):
        if r:
            terms = [*zip(p[r], states, strict=False), *zip(q[r], predictions, strict=False)]
            new = _weighted_sum(terms, x)
            states.append(new if image is None else new + constant[r] * image)
        if r in calls:
            t = torch.full((x.shape[0],), calls[r], dtype=x.dtype, device=x.device)
            predictions.append(network(states[r], t))
    return states[-1]


def _weighted_sum(terms: list[tuple[float, Tensor]], like: Tensor) -> Tensor:
    """Sum of weight times tensor; zero weights cost nothing."""
    total: Tensor | None = None
    for weight, tensor in terms:
        if weight:
            total = tensor * weight if total is None else total.add_(tensor, alpha=weight)
    return torch.zeros_like(like) if total is None else total


def check_process(denoiser: Denoiser, plan: Plan) -> None:
    """Raises `InvalidSchedule` unless the plan's process is the denoiser's."""
    if not plan.process.same_levels(denoiser.process):
        raise InvalidSchedule(
            f"process: the schedule was made for {plan.process!r}, "
            f"the model has {denoiser.process!r}"
        )
