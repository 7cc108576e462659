"""The sampling loop: one for every plan, alone or with others.

A trajectory is a plan on its way.  It stands at the row of its next call; the network's answer
there, a prediction, takes it to the row of the one after, and the last to its end.  The loop asks
for all trajectories together: their states lie one after another in one batch, each with its own
times, so that schedules too small to fill a device fill it together.  A plan with fewer calls
leaves the batch earlier; those that are alike so far share their rows of it, and predictions that
a cache still has are not asked for again (`s3search.solvers.prefix`).

Sampling runs a single trajectory.  So does polishing, of a plan whose weights have derivatives
(`s3search.solvers.tensor_plan`); what a network call keeps for these is the network's business.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Protocol

import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.solvers.plan import Plan
from s3search.solvers.prefix import call_keys
from s3search.solvers.shapes import Shape
from s3search.solvers.step_noise import Draws, from_generator, given, nothing, of_seed
from s3search.solvers.tensor_plan import TensorPlan

AnyPlan = Plan | TensorPlan
"""Numbers, or tensors with derivatives: what the loop asks of them is alike."""

Network = Callable[[Tensor, Tensor], Tensor]
"""x (B, ...) and times (B,) -> D (B, ...)."""

StepNoiseSource = Sequence[Tensor] | Tensor | torch.Generator | Draws | None
"""Where the noise that steps draw comes from."""


class Denoiser(Protocol):
    """D(x, t, **condition) -> x0 on native-scale x; ``t`` (B,) in the process's unit."""

    process: NoiseProcess
    sample_shape: Shape  # of one sample, of any rank

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The network's estimate of the clean image, shape and dtype of x."""


class CallCache(Protocol):
    """What the network predicted before, by `call_keys`."""

    def get(self, key: str) -> Tensor | None:
        """The prediction (B, ...), if it is still there; nobody may change it."""

    def keep(self, key: str, call: int, prediction: Tensor) -> None:
        """Takes the prediction of the ``call``-th call of a plan."""


def sample(
    denoiser: Denoiser,
    plan: AnyPlan,
    noise: Tensor,
    *,
    step_noise: StepNoiseSource = None,
    **condition: Any,
) -> Tensor:
    """The images (B, ...) that ``plan`` makes of ``noise`` ~ N(0, I) of the same shape.

    States live in the noise's dtype and on its device; one network call per evaluated row.
    ``step_noise`` is what the steps of a stochastic plan draw: tensors like ``noise``, one for
    each of ``plan.noisy_rows``, stacked or not; or a generator, which draws them in turn; by
    default they are a function of image and row, the same in every call.  ``condition`` goes to
    every call. Raises `InvalidSchedule` when the plan is for another process than the denoiser's,
    or for another number of draws.
    """
    check_process(denoiser, plan)
    draws = _draws_of(plan, step_noise)
    return run_plan(lambda x, t: denoiser(x, t, **condition), plan, plan.first_state(noise), draws)


def _draws_of(plan: AnyPlan, source: StepNoiseSource) -> Draws:
    if source is None:
        return of_seed(0)
    if isinstance(source, torch.Generator):
        return from_generator(source)
    return source if callable(source) else given([*source], plan.noisy_rows)


def sample_population(
    denoiser: Denoiser,
    plans: Sequence[Plan],
    noise: Tensor,
    cache: CallCache | None = None,
    images: str = "",
    draws: Draws = nothing,
    /,
    **condition: Tensor,
) -> list[Tensor]:
    """What `sample` makes with each of the plans of one ``noise`` (B, ...), each (B, ...),
    up to rounding: a matrix product of more rows may add numbers up in another order.

    ``condition`` holds what each of the B images is conditioned on, (B, ...) each.  To the
    ``cache`` noise, the steps' included, and condition go by the name ``images``; others have
    another name.  ``draws`` is common to the plans: what one draws in a row, all do.
    """
    for plan in plans:
        check_process(denoiser, plan)

    def network(x: Tensor, t: Tensor) -> Tensor:
        n = len(x) // len(noise)
        return denoiser(x, t, **{key: joined([value] * n) for key, value in condition.items()})

    keys = (call_keys(plan, images) for plan in plans)
    starts = (plan.first_state(noise) for plan in plans)
    shared = repeat(_remembering(draws))
    return _ends(network, [*map(_Trajectory, plans, starts, keys, shared)], cache)


def _remembering(draws: Draws) -> Draws:
    """``draws``, with each row drawn once and kept: for states of one batch."""
    drawn: dict[int, Tensor] = {}

    def draw(row: int, like: Tensor) -> Tensor:
        if row not in drawn:
            drawn[row] = draws(row, like)
        return drawn[row]

    return draw


def run_plan(network: Network, plan: AnyPlan, x: Tensor, draws: Draws = nothing) -> Tensor:
    """The images (B, ...) that ``plan`` makes of its initial state ``x``, which is already at
    the first level's scale, and of what its steps draw.
    """
    (images,) = _ends(network, [_Trajectory(plan, x, (), draws)])
    return images


class _Trajectory:
    """The states and predictions of a plan so far: up to its next call, or to its end."""

    def __init__(self, plan: AnyPlan, x: Tensor, keys: Sequence[str | None], draws: Draws) -> None:
        """``keys`` tell which calls of others are the same; without any, none are."""
        _check_shape(plan, x)
        self._plan, self._keys, self._draws = plan, keys, draws
        self._states: list[Tensor] = [x]
        self._predictions: list[Tensor] = []
        self._go_on()

    def _go_on(self) -> None:
        advance(self._plan, self._states, self._predictions, self._draws)
        self.state = self._states[-1]  # (B, ...), where the plan stands
        self.n_calls = len(self._predictions)  # that were made
        self.is_over = self.n_calls == len(self._plan.evaluated)
        self.key = self._keys[self.n_calls] if self._keys and not self.is_over else None

    @property
    def times(self) -> Tensor:
        """The network time of the next call for each image (B,)."""
        return self._plan.call_times(self.n_calls, self.state)

    def take(self, prediction: Tensor) -> None:
        """Goes on to the call after the one with this prediction."""
        self._predictions.append(prediction)
        self._go_on()

    def take_known(self, cache: CallCache) -> None:
        """Goes on as far as the cache knows."""
        while self.key is not None:
            known = cache.get(self.key)
            if known is None:
                return
            self.take(known)


def _ends(
    network: Network, trajectories: Sequence[_Trajectory], cache: CallCache | None = None
) -> list[Tensor]:
    """The loop itself: where the trajectories end, (B, ...) each."""
    while calls := _next_calls(trajectories, cache):
        n = len(calls)
        x = joined([members[0].state for members in calls])
        t = joined([members[0].times for members in calls])
        predictions = network(x, t)
        each = predictions.chunk(n) if n > 1 else (predictions,)
        for members, prediction in zip(calls, each, strict=True):
            key = members[0].key
            if cache is not None and key is not None:
                kept = prediction.clone() if n > 1 else prediction  # a part would keep the whole
                cache.keep(key, members[0].n_calls, kept)
            for one in members:
                one.take(prediction)
    return [one.state for one in trajectories]


def _next_calls(
    trajectories: Sequence[_Trajectory], cache: CallCache | None
) -> list[list[_Trajectory]]:
    """The trajectories that have a call to make, together those for which it is one and the same;
    each goes on as far as the cache knows before.
    """
    calls: dict[object, list[_Trajectory]] = {}
    for one in trajectories:
        if cache is not None:
            one.take_known(cache)
        if not one.is_over:
            calls.setdefault(one.key or one, []).append(one)
    return [*calls.values()]


def advance(
    plan: AnyPlan,
    states: list[Tensor],
    predictions: Sequence[Tensor],
    draws: Draws = nothing,
) -> None:
    """Appends to ``states`` those up to the next call's, or to the last after the last call."""
    n = len(predictions)
    row = plan.evaluated[n] if n < len(plan.evaluated) else plan.n_rows - 1
    while len(states) <= row:
        states.append(plan.next_state(states, predictions, draws))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """All of them in one batch, one after another."""
    return parts[0] if len(parts) == 1 else torch.cat([*parts])


def _check_shape(plan: AnyPlan, x: Tensor) -> None:
    """Raises `IncompatibleStatistics` unless the plan's per-pixel weights are for images like
    ``x`` (B, ...).
    """
    shape = plan.pixel_shape if isinstance(plan, Plan) else None
    if shape is not None and shape != tuple(x.shape[1:]):
        raise IncompatibleStatistics(
            f"the plan's EMS statistics are for images of shape {shape}, the noise has "
            f"{tuple(x.shape[1:])}"
        )


def check_process(denoiser: Denoiser, plan: AnyPlan) -> None:
    """Raises `InvalidSchedule` unless the plan's process is the denoiser's."""
    if not plan.process.same_levels(denoiser.process):
        raise InvalidSchedule(
            f"process: the schedule was made for {plan.process!r}, "
            f"the model has {denoiser.process!r}"
        )
