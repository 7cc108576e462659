"""The sampling loop: one for every plan."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.solvers.plan import PixelRow, Plan
from s3search.solvers.start_map import jumped


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
    return run_plan(lambda x, t: denoiser(x, t, **condition), plan, initial_state(plan, noise))


def initial_state(plan: Plan, noise: Tensor) -> Tensor:
    """The state at the plan's first level that ``noise`` ~ N(0, I) leads to."""
    x = noise * plan.noise_scale
    return x if plan.start_map is None else jumped(plan.start_map, x)


def run_plan(network: Callable[[Tensor, Tensor], Tensor], plan: Plan, x: Tensor) -> Tensor:
    """Executes the table from the initial state ``x``, already at the first level's scale."""
    run = Run(plan, x)
    while not run.is_over:
        run.answered(network(run.state, run.times))
    return run.state


class Run:
    """A plan on its way from call to call: at first, and after every answer, it stands at the next
    row that the network is called at, or at its end.
    """

    def __init__(self, plan: Plan, x: Tensor) -> None:
        check_shape(plan, x)
        self._plan = plan
        self._states: list[Tensor] = [x]
        self._predictions: list[Tensor] = []
        self._calls = dict(zip(plan.evaluated, plan.network_times, strict=True))
        self._advance()

    @property
    def is_over(self) -> bool:
        """Whether no call is left."""
        return self.n_calls == len(self._calls)

    @property
    def n_calls(self) -> int:
        """Calls that were answered."""
        return len(self._predictions)

    @property
    def state(self) -> Tensor:
        """Where the plan stands (B, C, H, W)."""
        return self._states[-1]

    @property
    def times(self) -> Tensor:
        """What the network is told there (B,)."""
        x, t = self.state, self._calls[self._row]
        return torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)

    def answered(self, prediction: Tensor) -> None:
        """Takes the network's answer and goes on to the next call."""
        self._predictions.append(prediction)
        if self._row + 1 < self._plan.n_rows:
            self._states.append(self._next())
            self._advance()

    @property
    def _row(self) -> int:
        return len(self._states) - 1

    def _next(self) -> Tensor:
        return next_state(self._plan, len(self._states), self._states, self._predictions)

    def _advance(self) -> None:
        """Over the rows that need no call."""
        while self._row not in self._calls and len(self._states) < self._plan.n_rows:
            self._states.append(self._next())


def next_state(plan: Plan, row: int, states: list[Tensor], predictions: list[Tensor]) -> Tensor:
    """x of one row from the states before it and the predictions so far; zero weights cost
    nothing.
    """
    total: Tensor | None = None
    weights = (*plan.p[row, :row].tolist(), *plan.q[row, : len(predictions)].tolist())
    for weight, tensor in zip(weights, (*states[:row], *predictions), strict=True):
        if weight:
            total = tensor * weight if total is None else total.add_(tensor, alpha=weight)
    if total is None:
        total = torch.zeros_like(states[0])
    if row in plan.pixel_rows:
        total = _with_pixels(total, plan.pixel_rows[row], states, predictions)
    if plan.image is not None and plan.constant[row]:
        image = torch.as_tensor(plan.image, dtype=total.dtype, device=total.device)
        total = total + float(plan.constant[row]) * image
    return total


def _with_pixels(
    total: Tensor, row: PixelRow, states: list[Tensor], predictions: list[Tensor]
) -> Tensor:
    """``total`` plus the terms of one row that differ per pixel, in its dtype."""

    def here(values: Any) -> Tensor:
        return torch.tensor(values, dtype=total.dtype, device=total.device)

    total = total + here(row.offset)
    for weights, tensors in ((row.p, states), (row.q, predictions)):
        for k, weight in weights.items():
            total.addcmul_(here(weight), tensors[k])
    return total


def check_shape(plan: Plan, x: Tensor) -> None:
    """Raises `IncompatibleStatistics` unless the plan's per-pixel weights are for images like
    ``x`` (B, C, H, W).
    """
    shape = plan.pixel_shape
    if shape is not None and shape not in ((1, 1, 1), tuple(x.shape[1:])):
        raise IncompatibleStatistics(
            f"the plan's EMS statistics are for images of shape {shape}, the noise has "
            f"{tuple(x.shape[1:])}"
        )


def check_process(denoiser: Denoiser, plan: Plan) -> None:
    """Raises `InvalidSchedule` unless the plan's process is the denoiser's."""
    if not plan.process.same_levels(denoiser.process):
        raise InvalidSchedule(
            f"process: the schedule was made for {plan.process!r}, "
            f"the model has {denoiser.process!r}"
        )
