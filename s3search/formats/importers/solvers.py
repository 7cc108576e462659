"""The solvers that a bare list of times can be run with, by name."""

from collections.abc import Callable, Sequence
from typing import Any

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.formats.importers.request import Request
from s3search.processes import NoiseProcess
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch, Schedule, Step

_SOLVERS: dict[str, Callable[[int, bool], tuple[Step, ...]]] = {
    "ddim": lambda n, clean: published.ddim_steps(n),
    "euler": lambda n, clean: published.euler_steps(n),
    "heun": lambda n, clean: published.heun_steps(n, ends_clean=clean),
    "dpmpp_2m": lambda n, clean: published.dpm_multistep_steps(n, order=2),
    "dpmpp_3m": lambda n, clean: published.dpm_multistep_steps(n, order=3),
    "unipc": lambda n, clean: published.unipc_steps(n, order=3),
}


def solved(
    process: NoiseProcess,
    times: Sequence[float],
    solver: str,
    *,
    patch: ModelPatch | None = None,
    **provenance: Any,
) -> Schedule:
    """``solver`` on these times, from the noisy one down; provenance names the solver."""
    if solver not in _SOLVERS:
        raise InvalidConfig(f"--solver: {solver!r} is not known; {nearest(solver, _SOLVERS)}")
    if len(times) < 2:
        raise InvalidSchedule(f"times: a schedule needs at least two, found {[*times]}")
    steps = _SOLVERS[solver](len(times) - 1, times[-1] == process.clean_time)
    schedule = published.on_times(process, times, steps)
    return Schedule(
        process=process,
        times=schedule.times,
        steps=schedule.steps,
        model_patch=patch,
        provenance={"solver": solver, **provenance},
    )


def solver_of(request: Request, usual: str) -> str:
    """The solver asked for, else the format's usual one."""
    return usual if request.solver is None else request.solver


def ended(request: Request, process: NoiseProcess, times: Sequence[float]) -> list[float]:
    """``times`` with the clean end after them, unless they reach it or ``--stop`` was given."""
    at_end = bool(request.stop) or not times or times[-1] == process.clean_time
    return [*times] if at_end else [*times, process.clean_time]
