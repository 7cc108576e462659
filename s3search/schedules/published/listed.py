"""Solvers that other programs run on a plain list of noise levels, down to the clean image.

    euler      diffusers' EulerDiscreteScheduler and, for flows, FlowMatchEulerDiscreteScheduler;
               sample_euler of k-diffusion and ComfyUI
    dpmpp_2m   diffusers' DPMSolverMultistepScheduler; sample_dpmpp_2m of k-diffusion and ComfyUI
    ipndm      sample_ipndm of ComfyUI

The levels are all that there is to choose: steps and end are the program's own.  UniPC is not
among them: diffusers' takes a list for flows alone, and tells the network truncated times there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from s3search.processes import Flow, NoiseProcess
from s3search.schedules.published.common import on_times
from s3search.schedules.published.deis import ipndm_steps
from s3search.schedules.published.dpm import ddim_steps, dpm_multistep_steps
from s3search.schedules.schedule import Schedule, Start, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSolver:
    """One solver by its name; ``steps`` makes its steps for so many intervals, to which
    `on_times` gives the end.
    """

    name: str
    title: str
    steps: Callable[[int], tuple[Step, ...]] = field(repr=False)
    runs_flows: bool = False

    def exists_for(self, process: NoiseProcess) -> bool:
        """Whether a program runs it on models of this process."""
        return self.runs_flows or not isinstance(process, Flow)

    def on(self, process: NoiseProcess, times: Sequence[float]) -> Schedule:
        """The schedule at these times, of which the last is the clean end."""
        return on_times(process, times, self.steps(len(times) - 1))


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
    process, steps = schedule.process, schedule.steps
    is_plain = schedule.model_patch is None and schedule.start == Start()
    if schedule.times[-1] != process.clean_time or not is_plain or steps[-1:] != ddim_steps(1):
        return None
    for solver in listed_for(process):
        if name in (None, solver.name) and solver.steps(len(steps))[:-1] == steps[:-1]:
            return solver
    return None
