"""What every reader of a scheduler is given, and what readers share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.diffusers import grids
from s3search.formats.importers.diffusers.config import SchedulerConfig
from s3search.processes import Flow, NoiseProcess, VpDiscrete
from s3search.schedules.schedule import Step

INEXACT = "not exact"
"""How a note begins that says the schedule is not the scheduler's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverRun:
    """One scheduler at work in n steps."""

    config: SchedulerConfig
    process: NoiseProcess
    n: int
    indices: tuple[int, ...] | None = None  # the user's own timesteps
    sigmas: tuple[float, ...] | None = None  # levels of a flow that its pipeline passes
    notes: list[str] = field(default_factory=list)


Made = tuple[Sequence[float], Sequence[Step]]


def check_flow(run: SolverRun) -> None:
    """Raises `InvalidConfig` unless the process is a flow's."""
    if not isinstance(run.process, Flow):
        raise InvalidConfig(f"expected a flow's config, found one of {run.process.type!r}")


def clean_sampler_times(run: SolverRun) -> list[float]:
    """n + 1 times of k-diffusion's samplers that know no end but the clean one, whatever a config
    made for another scheduler says.
    """
    ends_clean = run.config.model_copy(update={"final_sigmas_type": "zero"})
    return grids.sampler_times(ends_clean, discrete(run), run.n)


def discrete(run: SolverRun) -> VpDiscrete:
    """The process, which has a table of betas; raises `InvalidSchedule` for any other."""
    if not isinstance(run.process, VpDiscrete):
        raise InvalidSchedule(
            f"this scheduler on a {run.process.type!r} model is not supported; "
            "it takes a table of betas"
        )
    return run.process
