"""Golden cases whose states are raised by noise: churn, and restart intervals."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from s3search.processes import edm
from s3search.rules import NoiseKind, StepNoise, Velocity
from s3search.schedules.published.churn import Churn, churn_on
from s3search.schedules.published.raised import Method
from s3search.schedules.published.restart import RestartInterval, restart_on
from s3search.schedules.schedule import Schedule, Start, Step
from tests.support.golden import ancestral, cases
from tests.support.golden import slopes as golden_slopes
from tests.support.helpers import NoSchedule

Case = Mapping[str, Any]

_GRID = ("name", "num_steps", "sigma_min", "sigma_max", "rho")
_CHURN = ("S_churn", "S_min", "S_max", "S_noise")
_PATH = (
    "discretization",
    "schedule",
    "scaling",
    "epsilon_s",
    "solver",
    "alpha",
    "C_1",
    "C_2",
    "M",
)


def k_diffusion(case: Case) -> Schedule:
    """k-diffusion's sample_euler, sample_heun and sample_dpm_2."""
    given = ancestral.sampler_arguments(case, "s_churn", "s_tmin", "s_tmax", "s_noise")
    churn = Churn(
        s_churn=given.get("s_churn", 0.0),
        s_min=given.get("s_tmin", 0.0),
        s_max=given.get("s_tmax", math.inf),
        s_noise=given.get("s_noise", 1.0),
    )
    method = case["solver"]["name"].removeprefix("sample_")
    return churn_on(cases.process_of(case), case["timesteps"], method, churn)


def diffusers_euler(case: Case) -> Schedule:
    """EulerDiscreteScheduler and EDMEulerScheduler, as EDM's authors have churn."""
    given = ancestral.check_arguments(
        case["solver"]["step"], "s_churn", "s_tmin", "s_tmax", "s_noise"
    )
    churn = Churn(
        s_churn=given.get("s_churn", 0.0),
        s_min=given.get("s_tmin", 0.0),
        s_max=given.get("s_tmax", math.inf),
        s_noise=given.get("s_noise", 1.0),
    )
    return churn_on(edm(), ancestral.sigmas_of(case), Method.EULER, churn)


def nvlabs(case: Case) -> "Schedule | cases.Problem":
    """EDM's edm_sampler and ablation_sampler."""
    solver = case["solver"]
    if solver["name"] == "edm_sampler":
        ancestral.check_arguments(solver, *_GRID, *_CHURN)
        return churn_on(cases.process_of(case), case["timesteps"], Method.HEUN, _churn(solver))
    if solver["name"] != "ablation_sampler":
        raise ValueError(f"unknown sampler {solver['name']!r}")
    ancestral.check_arguments(solver, *_GRID, *_CHURN, *_PATH)
    schedule = _ablation(case, _churn(solver))
    is_scaled = solver.get("scaling", "none") != "none"  # its state is kept at 1 / alpha
    return cases.Problem(
        schedule=schedule,
        denoiser=cases.mixture(schedule.process),
        start_scale=1.0 / case["alphas"][0] if is_scaled else 1.0,
    )


def _churn(solver: Mapping[str, Any]) -> Churn:
    return Churn(
        s_churn=solver.get("S_churn", 0.0),
        s_min=solver.get("S_min", 0.0),
        s_max=math.inf if solver.get("S_max") in (None, "inf") else solver["S_max"],
        s_noise=solver.get("S_noise", 1.0),
    )


def _ablation(case: Case, churn: Churn) -> Schedule:
    """Steps in the time of a path: Euler's or of two stages, each from a raised level."""
    times, solver = case["timesteps"], case["solver"]
    path, alpha = golden_slopes.path_of(solver), solver.get("alpha", 1)
    euler, second = Velocity(path=path), 0.5 / alpha
    end = Velocity(start=-2, points=(-2, -1), weights=(1 - second, second), path=path)
    two_stages = {"euler": False, "heun": True}[solver.get("solver", "heun")]
    n = len(times) - 1
    hats = [*(churn.raised(t, n) for t in times[:-1]), times[-1]]
    visited, steps = [hats[0]], []
    for i, (s, below, to) in enumerate(zip(hats, times[1:], hats[1:], strict=False)):
        noise = None
        if to != below:
            noise = StepNoise(kind=NoiseKind.TIME, amount=below, scale=churn.s_noise)
        if not two_stages or i == n - 1:
            visited, steps = [*visited, to], [*steps, Step(predictor=euler, noise=noise)]
        elif noise is None and alpha == 1:
            plain = golden_slopes.ablation(solver, edm(), [s, below, 0.0])
            visited, steps = [*visited, to], [*steps, plain.steps[0]]
        else:
            t, last = (golden_slopes.path_time(path, at) for at in (s, below))
            visited += [path.ratio(t + alpha * (last - t)), to]
            steps += [Step(predictor=euler), Step(predictor=end, noise=noise)]
    start = Start()
    if hats[0] != times[0]:
        first = StepNoise(kind=NoiseKind.TIME, amount=times[0], scale=churn.s_noise)
        start = Start(noise=first)
    return Schedule(process=edm(), times=visited, steps=steps, start=start)


def restart(case: Case) -> Schedule:
    """The restart sampler, which keeps the last of the intervals that move to one level."""
    solver = case["solver"]
    ancestral.check_arguments(solver, *_GRID, *_CHURN, "restart_info", "restart_gamma")
    if solver.get("restart_gamma"):
        raise NoSchedule("two draws before one call, of the restart and of the churn inside it")
    times, by_place = case["timesteps"], dict[int, RestartInterval]()
    for n, repeats, low, high in solver["restart_info"].values():
        if n < 2:
            raise NoSchedule("an interval without a step")
        place = min(range(len(times)), key=lambda i: abs(times[i] - low))
        by_place[place] = RestartInterval(n_steps=n - 1, repeats=repeats, low=low, high=high)
    churn = replace(_churn(solver), s_noise=solver.get("S_noise", 0.0))
    return restart_on(
        cases.process_of(case),
        times,
        list(by_place.values()),
        s_noise=churn.s_noise,
        rho=solver.get("rho", 7),
        churn=churn,
    )
