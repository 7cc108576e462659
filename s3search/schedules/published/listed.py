"""Solvers that other programs run on a plain list of noise levels, to an end of their own.

    euler        diffusers' EulerDiscreteScheduler and, for flows, FlowMatchEulerDiscreteScheduler;
                 sample_euler of k-diffusion and ComfyUI
    dpmpp_2m     diffusers' DPMSolverMultistepScheduler; sample_dpmpp_2m of k-diffusion and ComfyUI
    ipndm        sample_ipndm of ComfyUI
    uni_pc       sample_unipc of ComfyUI: B_1, order 3 from four calls on, down to sigma 0.001
    uni_pc_bh2   the same with B_2

The levels are all that there is to choose: steps and end are the program's own.  diffusers' UniPC
is not among them: it takes a list for flows alone, and tells the network truncated times there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from s3search.processes import Flow, NoiseProcess
from s3search.rules import Variant
from s3search.schedules.published.common import on_times
from s3search.schedules.published.deis import ipndm_steps
from s3search.schedules.published.dpm import ddim_steps, dpm_multistep_steps
from s3search.schedules.published.unipc import unipc_steps
from s3search.schedules.schedule import Schedule, Start, Step
from s3search.schedules.spacing import is_near_its_level

_UNIPC_END, _UNIPC_ORDER = 0.001, 3  # sigma, where a list says 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSolver:
    """One solver by its name; ``steps`` makes its steps for so many intervals, ``fewest`` at
    least.  It ends at ``end_sigma``; where that is 0 `on_times` gives the last step.
    """

    name: str
    title: str
    steps: Callable[[int], tuple[Step, ...]] = field(repr=False)
    runs_flows: bool = False
    fewest: int = 1
    end_sigma: float = 0.0

    def exists_for(self, process: NoiseProcess) -> bool:
        """Whether a program runs it on models of this process."""
        return self.runs_flows or not isinstance(process, Flow)

    def end_time(self, process: NoiseProcess) -> float:
        """Where its last step leads to."""
        if self.end_sigma == 0.0:
            return process.clean_time
        return process.time_of_lam(-math.log(self.end_sigma))

    def on(self, process: NoiseProcess, times: Sequence[float]) -> Schedule:
        """The schedule with a call at each of these times, the noisiest first."""
        ended = (*times, self.end_time(process))
        return on_times(process, ended, self.steps(len(times)))

    def makes(self, schedule: Schedule) -> bool:
        """Whether this is its schedule on the times of the calls."""
        process, steps = schedule.process, schedule.steps
        if len(steps) < self.fewest or schedule.times[-1] != self.end_time(process):
            return False
        own = self.steps(len(steps))
        return steps == (own if self.end_sigma else (*own[:-1], *ddim_steps(1)))


def _unipc(name: str, variant: Variant) -> ListedSolver:
    def steps(n: int) -> tuple[Step, ...]:
        return unipc_steps(n, order=min(_UNIPC_ORDER, n - 1), variant=variant)

    return ListedSolver(
        name=name,
        title=f"UniPC ({name})",
        steps=cache(steps),
        fewest=2,
        end_sigma=_UNIPC_END,
    )


LISTED_SOLVERS: dict[str, ListedSolver] = {
    solver.name: solver
    for solver in (
        ListedSolver(name="euler", title="Euler", steps=cache(ddim_steps), runs_flows=True),
        ListedSolver(
            name="dpmpp_2m",
            title="DPM-Solver++(2M)",
            steps=cache(lambda n: dpm_multistep_steps(n, order=2, lower_order_final=False)),
        ),
        ListedSolver(name="ipndm", title="iPNDM", steps=cache(lambda n: ipndm_steps(n, 4))),
        _unipc("uni_pc", Variant.BH1),
        _unipc("uni_pc_bh2", Variant.BH2),
    )
}
"""By their names, as ``[space] solver`` has them."""


def listed_for(process: NoiseProcess) -> tuple[ListedSolver, ...]:
    """Those that exist for a process."""
    return tuple(each for each in LISTED_SOLVERS.values() if each.exists_for(process))


def listed_solver_of(schedule: Schedule, name: str | None = None) -> ListedSolver | None:
    """The solver, or the one of that name, whose schedule this is on its times; None where it is
    none's, or says more than a list of levels can.
    """
    if schedule.model_patch is not None or not _begins_plainly(schedule):
        return None
    known = listed_for(schedule.process)
    asked = (own for own in known if name in (None, own.name))
    return next((own for own in asked if own.makes(schedule)), None)


def _begins_plainly(schedule: Schedule) -> bool:
    """Whether the program's own start is the schedule's, up to what their reports measure."""
    scale = schedule.start.noise_scale
    plain = schedule.start.model_copy(update={"noise_scale": None}) == Start()
    process, first = schedule.process, schedule.times[0]
    return plain and (scale is None or is_near_its_level(process, first, scale))
