"""Gradient polish: a schedule in, a polished one out.

A schedule is written as a table over x_0 and its calls (`s3search.solvers.coefficients`), whose
coefficients, levels, network times and start then follow the gradient of a loss through all
network calls: full-matrix Adam with a short warm-up and a cosine decay.  Where network or
extractor carry no gradient, differences take its place at the same cost
(`s3search.evaluation.polish.differences`).  Steps that draw noise draw other noise in every
iteration, a function of seed and iteration, and how much they draw moves too.  What came of it is
compared with the start, which is kept where it is no worse: on noise that no iteration had, or on
the targets of a trajectory's loss.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.evaluation.decoding import images_of
from s3search.evaluation.fine import fine_plan
from s3search.evaluation.metric import Metric
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish import losses
from s3search.evaluation.polish.adam import RecoveringAdam, copied, put_back
from s3search.evaluation.polish.differences import PlanDifferences
from s3search.evaluation.polish.differentiable import DifferentiableDenoiser, frozen
from s3search.evaluation.polish.gradient import PlanGradient, Seen
from s3search.evaluation.polish.guarding import GuardedBy
from s3search.evaluation.record import PolishReply
from s3search.evaluation.views import View
from s3search.metrics.statistic import Statistic
from s3search.schedules.schedule import Schedule
from s3search.search.questions import (
    FINE_NFE,
    TRAJECTORY_TARGETS,
    Polish,
    PolishLoss,
    PolishResult,
    polish_checks,
)
from s3search.solvers.coefficients import CoefficientTable, coefficient_table
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import check_process
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range
from s3search.solvers.trainable_times import TrainableTimes

_RATE, _MOST_RATE, _WHOLE_RUN = 0.4, 0.08, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PolishSettings:
    """How long, how fast and what."""

    iterations: int = 60
    n_images: int = 500  # per iteration
    learning_rate: float | None = None  # None: by the number of calls
    keep_invariants: bool = False  # every row carries a constant image and noise
    loss: PolishLoss = "metric"
    free: frozenset[Freedom] = frozenset(Freedom)
    keeps_steps: bool = False  # levels move, and amounts of noise that are free; rules do the rest
    whole_steps: bool = False  # these levels end at whole training steps
    recompute: bool | None = None  # what happens inside a call, when needed; None: as memory asks
    target: Literal["features", "pixels"] = "features"  # of the loss "trajectory"
    target_batches: int = TRAJECTORY_TARGETS  # sets of n_images whose fine solves take turns
    fine_targets: bool = False  # the metric compares images with fine solves
    fine_nfe: int = FINE_NFE  # calls of the fine solve, DPM-Solver++(2M)
    by_differences: bool = False  # network or extractor carry no gradient

    @classmethod
    def of(
        cls,
        request: Polish,
        *,
        by_differences: bool,
        fine_targets: bool,
        target: Literal["features", "pixels"],
    ) -> "PolishSettings":
        """What a search asks for."""
        return cls(
            iterations=request.iterations,
            n_images=request.n_images,
            keep_invariants=request.keep_invariants,
            loss=request.loss,
            free=frozenset(Freedom) - set(request.fixed),
            keeps_steps=request.keeps_steps,
            whole_steps=request.whole_steps,
            by_differences=by_differences,
            fine_targets=fine_targets,
            target=target,
        )

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("n_images", 4), ("target_batches", 1)):
            if getattr(self, name) < least:
                raise InvalidConfig(f"{name}: needs at least {least}, found {getattr(self, name)}")
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0.0):
            raise InvalidConfig(f"learning_rate: needs to be > 0, found {rate}")
        if not self.free:
            raise InvalidConfig("free: nothing may move; name at least one of the freedoms")
        for name, choices in (
            ("loss", ("metric", "trajectory")),
            ("target", ("features", "pixels")),
        ):
            if getattr(self, name) not in choices:
                raise InvalidConfig(f"{name}: {getattr(self, name)!r} is none of {choices}")


def polish(
    denoiser: Any,
    metric: Metric,
    schedule: Schedule,
    settings: PolishSettings,
    *,
    noise: NoiseBank,
    noise_seed: int,
    batch_size: int,
    guarded_by: GuardedBy | None = None,
) -> PolishReply:
    """``schedule`` after ``settings.iterations`` steps of Adam down the loss of ``metric``: as
    many calls, free steps unless the settings keep its own.

    Raises `InvalidSchedule` for what has no table of numbers (DPM-Solver-v3's steps, patches of
    the network), `EvaluationFailed` where network or extractor cannot be differentiated, unless
    it is done by differences, or give no finite number from the start.
    """
    if schedule.model_patch is not None:
        raise InvalidSchedule("model_patch: a patched network is not polished; remove the patch")
    numbers, solved_before = coefficient_table(schedule), noise.n_solved
    check_process(denoiser, compile_plan(schedule))
    with ExitStack() as stack:
        still = () if settings.by_differences else (frozen(denoiser), frozen(metric.view.function))
        for each in (torch.inference_mode(False), torch.enable_grad(), *still):
            stack.enter_context(each)
        table = _trainable(schedule, numbers, settings, trained_range(denoiser.process))
        kind = PlanDifferences if settings.by_differences else PlanGradient
        gradient = kind(
            denoiser=DifferentiableDenoiser(denoiser, numbers.nfe, recompute=settings.recompute),
            seen=_compared(denoiser, metric.view, settings),
            table=table,
            noise=noise,
            batch_size=batch_size,
            fine_targets=settings.fine_targets,
        )
        lowered = _lowered(gradient, metric.statistic, settings, noise_seed)
        guard_images: list[int] = []

        def settled() -> bool:
            if guarded_by is not None:
                seed = losses.iteration_seed(noise_seed, settings.iterations)
                n_images = polish_checks(settings.iterations) * settings.n_images
                guard_images.append(guarded_by.keep(gradient, seed, n_images))
            return _keeps_the_better(gradient, lowered, settings)

        if isinstance(gradient, PlanDifferences):
            # an iteration of a gradient runs an image forward and backward
            values = gradient.run(lowered, 2.0 * settings.iterations * settings.n_images)
            settled()
        else:
            values = _descended(gradient, lowered, settings, settled)
        made = table.moved_schedule(_provenance(schedule, settings))
    return PolishReply(
        made=PolishResult(schedule=made, losses=tuple(values), guard_images=sum(guard_images)),
        network_calls=gradient.denoiser.network_calls
        + (noise.n_solved - solved_before) * gradient.denoiser.calls_of(settings.fine_nfe),
    )


def _descended(
    gradient: PlanGradient,
    lowered: losses.Lowered,
    settings: PolishSettings,
    settled: Callable[[], bool],
) -> list[float]:
    """The losses of Adam's iterations, after which the better of end and start is kept."""
    table, n = gradient.table, settings.iterations
    rate = settings.learning_rate or _rate(table.table.nfe, n)
    adam = RecoveringAdam(table.moves, table.project, rate)
    values = adam.run(lambda i: gradient(*lowered(i, settings.n_images)), n)
    if not settled():
        adam.restore()
        settled()
    return values


def _provenance(schedule: Schedule, settings: PolishSettings) -> dict[str, Any]:
    by = {"polished_by": "differences"} if settings.by_differences else {}
    return {**schedule.provenance, "polished_from": schedule.id, **by}


def _rate(nfe: int, iterations: int) -> float:
    """The rate of a run of so many iterations.

    The moves of n calls are about n^2, and a step scaled by the whole second moment is as long as
    the root of their number: n calls have 1 / n of the rate, and few no more than five have.  A
    short run has seen few gradients, from few images, and goes less far.
    """
    return min(_MOST_RATE, _RATE / nfe) * min(1.0, iterations / _WHOLE_RUN)


def _trainable(
    schedule: Schedule,
    numbers: CoefficientTable,
    settings: PolishSettings,
    trained: tuple[float, float],
) -> TrainableTable | TrainableTimes:
    if settings.keeps_steps:
        return TrainableTimes(
            schedule,
            trained=trained,
            rounds=settings.whole_steps,
            moves_noise=Freedom.NOISE in settings.free,
        )
    return TrainableTable(
        numbers, carries=settings.keep_invariants, free=settings.free, trained=trained
    )


def _lowered(
    gradient: PlanGradient, statistic: Statistic, settings: PolishSettings, noise_seed: int
) -> losses.Lowered:
    if settings.loss == "metric":
        n_sets = settings.target_batches if settings.fine_targets else None
        loss = statistic.loss(gradient.noise.device)
        return losses.of_metric(gradient, loss, noise_seed, n_sets)
    fine = fine_plan(gradient.denoiser.process, settings.fine_nfe)
    return losses.trajectory(gradient, fine, noise_seed, settings.target_batches)


def _keeps_the_better(
    gradient: PlanGradient, lowered: losses.Lowered, settings: PolishSettings
) -> bool:
    """Takes every move back unless the loss is lower than without; False, with the moves as they
    are, where it is not finite.
    """
    first, n = settings.iterations, settings.n_images
    unseen = range(first, first + polish_checks(first))

    def value() -> float:
        return math.fsum(gradient.value(*lowered(i, n)) for i in unseen)

    moves = gradient.table.moves
    ended, moved = value(), copied(moves)
    if not math.isfinite(ended):
        return False
    put_back(moves, [torch.zeros_like(move) for move in moves])
    if not value() <= ended:
        put_back(moves, moved)
    return True


def _compared(denoiser: Any, view: View, settings: PolishSettings) -> Seen:
    """What the loss sees of a plan's last states (b, ...): (b, d)."""
    if settings.loss == "trajectory" and settings.target == "pixels":
        return lambda x, _: x.flatten(1)
    return lambda x, condition: view.differentiable(images_of(denoiser, x), condition)
