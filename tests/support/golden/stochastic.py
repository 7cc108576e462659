"""Golden cases with noise in their steps, as schedules; their README is that of the second set."""

from collections.abc import Callable, Mapping
from typing import Any

from s3search.rules import Adams, StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step
from tests.support.golden import cases
from tests.support.helpers import Waits


def problem_of(case: Mapping[str, Any]) -> "cases.Problem":
    """The problem that a case states, in our terms; raises as `cases.problem_of`."""
    schedule = FAMILIES[case["family"]](case)
    return cases.Problem(schedule=schedule, denoiser=cases.mixture(schedule.process))


def _k_diffusion(case: Mapping[str, Any]) -> Schedule:
    solver, process = case["solver"], cases.process_of(case)
    times = cases.times_of(case, process)
    name = solver["name"].removeprefix("sample_")
    if name != "euler_ancestral":
        raise Waits(name)
    noise = StepNoise(amount=solver.get("eta", 1.0), scale=solver.get("s_noise", 1.0))
    steps = [Step(predictor=Adams(), noise=noise if t > 0.0 else None) for t in times[1:]]
    return published.on_times(process, times, steps)


def _waits(case: Mapping[str, Any]) -> Schedule:
    raise Waits(case["solver"]["name"])


FAMILIES: dict[str, Callable[[Mapping[str, Any]], Schedule]] = {
    "sde_k_diffusion": _k_diffusion,
    **dict.fromkeys(
        ("adasde", "er_sde", "restart", "sa_solver", "sde_diffusers", "sde_edm", "seeds"), _waits
    ),
}
