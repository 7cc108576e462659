"""What is searched: a space for one process, with what the workers found of the model."""

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

from s3search.models.statistics import GaussianStatistics
from s3search.processes import Edm, NoiseProcess, VpDiscrete
from s3search.rules import (
    LINEAR_PREDICTIONS,
    EmsNodes,
    Limits,
    NumberArray,
    Prediction,
    Range,
    SearchedRule,
    number_array,
    solvers,
)
from s3search.schedules.jump import GaussianJump
from s3search.schedules.layers import Layers
from s3search.schedules.published.listed import ListedSolver, listed_for
from s3search.schedules.schedule import Schedule, StartKind
from s3search.search.space.config import SpaceConfig
from s3search.search.space.targets import ANY, RUNTIMES, Runtime, objection, runtime_of
from s3search.search.trial import Trial
from s3search.solvers.trainable import Freedom


@dataclass(frozen=True)
class Problem:
    """The schedules to choose from: those of a space, for a process, as far as the model has what
    they need.
    """

    space: SpaceConfig
    process: NoiseProcess
    _: KW_ONLY
    mean_image: NumberArray | None = None  # for `average_x0` starts
    ems: EmsNodes | None = None  # the statistics that v3 steps are computed with
    jump: GaussianJump | None = None  # from the noisy end
    layers: Layers | None = None  # the network's blocks that a call may leave out

    @cached_property
    def runtime(self) -> Runtime:
        """What the program that the winner is for can express."""
        return runtime_of(self.space.target)

    @cached_property
    def listed(self) -> tuple[ListedSolver, ...]:
        """The program's own solvers, where the winner is to be a list for one of them."""
        if not self.runtime.listed:
            return ()
        known = listed_for(self.process)
        return tuple(own for own in known if self.space.solver in (None, own.name))

    @cached_property
    def fixed_in_polish(self) -> tuple[Freedom, ...]:
        """What of a table gradient descent must leave as it is."""
        begins = self.runtime.scales_noise and not self.runtime.below_noisiest
        rounded = (Freedom.TIMES, Freedom.NETWORK_TIMES) * self.runtime.rounds(self.process)
        return (*(() if begins else (Freedom.START,)), *rounded)

    @cached_property
    def first_times(self) -> tuple[float, ...]:
        """Where schedules may begin that no jump begins."""
        return self.runtime.first_times(self.process)

    @staticmethod
    def found(
        space: SpaceConfig,
        process: NoiseProcess,
        *,
        mean_image: Any = None,
        ems: EmsNodes | None = None,
        gaussian: GaussianStatistics | None = None,
        layers: Layers | None = None,
    ) -> "Problem":
        """The problem of what was measured: ``mean_image`` is an array or nested lists,
        ``gaussian`` what jumps are made with.
        """
        if mean_image is not None:
            mean_image = number_array(mean_image)
        noisy_end = process.time_range[1]
        return Problem(
            space,
            process,
            mean_image=mean_image,
            ems=ems,
            jump=None if gaussian is None else gaussian.jump(noisy_end, space.jump_modes),
            layers=layers,
        )

    def can_run(self, schedule: Schedule) -> bool:
        """Whether the program that the winner is for can express ``schedule``."""
        return objection(self.runtime, schedule, self.space.solver) is None

    def runnable(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those that the program which the winner is for can express; where that is all, no
        schedule is read.
        """
        if self.runtime == RUNTIMES[ANY]:
            return list(trials)
        return [trial for trial in trials if self.can_run(trial.schedule)]

    @cached_property
    def predictions(self) -> tuple[Prediction, ...]:
        """The predictions that exist: `v3` needs statistics."""
        if self.ems is not None:
            return self.space.predictions
        return tuple(p for p in self.space.predictions if p in LINEAR_PREDICTIONS)

    @cached_property
    def solvers(self) -> tuple[type[SearchedRule], ...]:
        """The rules that are drawn: `velocity` belongs to flows."""
        named = (solvers()[name] for name in self.space.solvers)
        return tuple(solver for solver in named if solver.exists_for(self.process))

    @cached_property
    def limits(self) -> Limits:
        """What rules and compensations must keep to."""
        return Limits(
            process=self.process,
            highest_order=max(self.space.orders),
            predictions=self.space.predictions,
            ranges=self.space.parameter_ranges,
        )

    def starts_at(self, first_time: float) -> tuple[StartKind, ...]:
        """The starts that exist: `average_x0` needs a mean image, `unit_noise` a signal."""
        has_signal = self.process.alpha(first_time) > 0.0
        possible = tuple(
            kind
            for kind in self.space.starts
            if (kind is not StartKind.AVERAGE_X0 or self.mean_image is not None)
            and (kind is not StartKind.UNIT_NOISE or has_signal)
        )
        return possible or (StartKind.NETWORK,)

    def end_lams(self, *, called: bool) -> Range:
        """Lowest and highest lam of the end level; ``called`` if the network is called there."""
        low, high = (-math.log(sigma) for sigma in reversed(self.space.end_sigma))
        if called:
            high = min(high, self.highest_called_lam)
        return min(low, high), high

    @cached_property
    def highest_called_lam(self) -> float:
        """The cleanest level that the network was trained on, as far as the process tells."""
        match self.process:
            case Edm():
                return self.process.lam(self.process.sigma_min)
            case VpDiscrete():
                return self.process.lam(0.0)
            case _:
                return math.inf

    @cached_property
    def jump_lams(self) -> Range | None:
        """Lowest and highest lam at which a jump may land, None where there are no jumps."""
        space = self.space
        if self.jump is None or space.jump_sigma is None or StartKind.NETWORK not in space.starts:
            return None
        low, high = (-math.log(sigma) for sigma in reversed(space.jump_sigma))
        low = max(low, self.process.lam(self.jump.from_time) + space.min_gap)
        end, _ = self.end_lams(called=True)
        return (low, high) if low <= high < end else None
