"""Golden cases of the solvers along slopes: DEIS, iPNDM, PNDM, Runge-Kutta, momentum and BDIA.

`golden_cases.problem_of` calls these with the case, the process, and the times in its unit; each
answers with a schedule, or raises `Waits`.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from s3search.processes import NoiseProcess, edm
from s3search.rules import Clock, NoisePath, Prediction, Scale, Taylor, Velocity, level
from s3search.schedules import published
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    Schedule,
    Start,
    StartKind,
    Step,
)
from tests.support.helpers import NoSchedule, Waits

Case = Mapping[str, Any]
Times = Sequence[float]

_RUNGE_KUTTA = {
    "1euler": "euler",
    "2heun": "heun2",
    "3kutta": "kutta3",
    "3ral": "ralston3",
    "3heun": "heun3",
    "3vdh": "houwen3",
    "4rk": "rk4",
}
_ABLATION_ENDS = {"ve": (0.02, 100.0), "iddpm": (0.002, 81.0), "edm": (0.002, 80.0)}


# --- DEIS and iPNDM ---


def deis(case: Case, process: NoiseProcess, times: Times) -> Schedule:
    """diff-sampler's `deis` and qsh-zh's `th_deis.*`."""
    solver, n = case["solver"], len(times) - 1
    name = solver["name"]
    if name == "deis":
        if solver["deis_mode"] == "rhoab":
            steps = published.rho_ab_steps(n, solver["max_order"])
        elif solver["deis_mode"] == "tab":
            clock = published.clock_of(edm(solver["sigma_min"], solver["sigma_max"]))
            steps = published.deis_steps(n, solver["max_order"], clock)
        else:
            raise ValueError(f"unknown deis_mode {solver['deis_mode']!r}")
        return _diff_sampler(solver, process, times, steps)
    match name.removeprefix("th_deis."):
        case "t_ab":
            clock = published.clock_of(process)
            steps = published.deis_steps(n, solver["ab_order"] + 1, clock)
        case "rho_ab":
            steps = published.rho_ab_steps(n, solver["ab_order"] + 1)
        case "ipndm":
            steps = published.ipndm_steps(n, 4)
        case "rho_rk":
            method = solver["rk_method"]
            if method == "3ssprk":
                raise Waits("a Runge-Kutta stage that goes back in time")
            times, steps = published.runge_kutta_on(process, times, _RUNGE_KUTTA[method])
        case _:
            raise ValueError(f"unknown solver {name!r}")
    return Schedule(process=process, times=times, steps=steps)


def ipndm(case: Case, process: NoiseProcess, times: Times) -> Schedule:
    """diff-sampler's `ipndm` and `ipndm_v`."""
    solver, n = case["solver"], len(times) - 1
    make = {"ipndm": published.ipndm_steps, "ipndm_v": published.rho_ab_steps}[solver["name"]]
    return _diff_sampler(solver, process, times, make(n, solver["max_order"]))


def dpm_2(solver: Mapping[str, Any], process: NoiseProcess, times: Times) -> Schedule:
    """diff-sampler's `dpm_2`."""
    times, steps = published.dpm2_on(process, times, solver["r"])
    return _diff_sampler(solver, process, times, steps)


def _diff_sampler(
    solver: Mapping[str, Any], process: NoiseProcess, times: Times, steps: Sequence[Step]
) -> Schedule:
    start = Start(kind=StartKind.UNIT_NOISE if solver["afs"] else StartKind.NETWORK)
    if solver["denoise_to_zero"]:
        last = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
        times, steps = (*times, process.clean_time), (*steps, last)
    return Schedule(process=process, times=times, steps=steps, start=start)


# --- k-diffusion, EDM's ablation sampler ---


def lms(solver: Mapping[str, Any], process: NoiseProcess, times: Times) -> Schedule:
    """k-diffusion's `lms`; it keeps its order on the last step, to sigma = 0."""
    steps = published.rho_ab_steps(len(times) - 1, solver.get("order", 4))
    return Schedule(process=process, times=times, steps=steps)


def k_dpm_2(process: NoiseProcess, times: Times) -> Schedule:
    """k-diffusion's `dpm_2` and, without noise, `dpm_2_ancestral`; the last step is Euler's."""
    inner, steps = published.dpm2_on(process, times[:-1])
    last = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
    return Schedule(process=process, times=(*inner, times[-1]), steps=(*steps, last))


def ablation(solver: Mapping[str, Any], process: NoiseProcess, times: Times) -> Schedule:
    """EDM's `ablation_sampler`: Euler or a two-stage step in the time of a path."""
    path, alpha = path_of(solver), solver.get("alpha", 1)
    kind = solver.get("solver", "heun")
    if kind not in ("euler", "heun"):
        raise ValueError(f"unknown solver {kind!r}")
    euler = Step(predictor=Velocity(path=path))
    second = 0.5 / alpha
    end = Velocity(start=-2, points=(-2, -1), weights=(1 - second, second), path=path)
    visited, steps = [times[0]], []
    for sigma, following in pairwise(times):
        is_last = following == times[-1]
        if kind == "euler" or is_last:
            visited, steps = [*visited, following], [*steps, euler]
        elif alpha == 1:
            corrector = Corrector(kind=CorrectorKind.IMPLICIT, rule=end)
            step = Step(predictor=euler.predictor, corrector=corrector)
            visited, steps = [*visited, following], [*steps, step]
        else:
            t, to = (path_time(path, s) for s in (sigma, following))
            visited += [path.ratio(t + alpha * (to - t)), following]
            steps += [euler, Step(predictor=end)]
    return Schedule(process=process, times=visited, steps=steps)


def path_of(solver: Mapping[str, Any]) -> NoisePath:
    """The path in whose time EDM's `ablation_sampler` steps."""
    scale = {"none": Scale.NONE, "vp": Scale.VP}[solver.get("scaling", "none")]
    clock = Clock(solver.get("schedule", "linear"))
    if clock is not Clock.VP:
        return NoisePath(clock=clock, scale=scale)
    kind, first = solver.get("discretization", "edm"), solver.get("epsilon_s", 1e-3)
    usual_path = NoisePath(clock=clock, scale=scale)
    usual = _ABLATION_ENDS.get(kind) or (usual_path.ratio(first), usual_path.ratio(1.0))
    given = (solver.get("sigma_min"), solver.get("sigma_max"))
    low, high = (own if asked is None else asked for asked, own in zip(given, usual, strict=True))
    beta_d, beta_min = _fitted_betas(low, high, first)
    return NoisePath(clock=clock, scale=scale, beta_d=beta_d, beta_min=beta_min)


def _fitted_betas(low: float, high: float, first: float) -> tuple[float, float]:
    """beta_d and beta_min with the ratio ``low`` at time ``first`` and ``high`` at time 1.

    log(1 + r^2) = beta_d t^2 / 2 + beta_min t at both; the levels of EDM and iDDPM make
    beta_min negative.
    """
    slopes = [math.log1p(low * low) / first, math.log1p(high * high)]
    half = (slopes[1] - slopes[0]) / (1.0 - first)
    return 2.0 * half, slopes[1] - half


def path_time(path: NoisePath, sigma: float) -> float:
    """The time at which a path has this noise level."""
    return path.time(level(edm(), sigma))


# --- PNDM, momentum, BDIA ---


def pndm(case: Case, process: NoiseProcess, times: Times) -> Schedule:
    """TS-DPM's unshifted `pnm_*`."""
    solver, n = case["solver"], len(times) - 1
    match solver["method"]:
        case "euler":
            steps = published.ddim_steps(n)
        case "improved_euler_solver":
            times, steps = published.runge_kutta_on(process, times, "heun2")
        case "s_pndm":
            steps = published.s_pndm_steps(n)
        case "f_pndm":
            times, steps = _with_inner(times, 3), published.f_pndm_steps(n)
        case "runge_kutta":
            times = _with_inner(times, n)
            rows = (published.runge_kutta_steps("rk4", is_last=i == n - 1) for i in range(n))
            steps = tuple(step for row in rows for step in row)
        case method:
            raise Waits(f"the PNDM method {method!r}")
    return Schedule(process=process, times=times, steps=steps)


def _with_inner(times: Times, n_halved: int) -> Times:
    """With the integer part of the middle time in each of the first steps."""
    visited = [times[0]]
    for i, (t, to) in enumerate(pairwise(times)):
        middle = float(math.floor((t + to) / 2))
        if i < n_halved and middle == to:
            raise NoSchedule(
                "the last step's middle is its end, so the network is called three times at one "
                "level; times fall, and a corrector adds one call at most"
            )
        visited += [middle, to] if i < n_halved else [to]
    return visited


def momentum(case: Case, process: NoiseProcess, times: Times) -> Schedule:
    """sWizad's three schedulers."""
    solver = case["solver"]
    kinds = {
        "GHVBScheduler": "ghvb",
        "PLMSWithHBScheduler": "heavy_ball",
        "PLMSWithNTScheduler": "nesterov",
    }
    order, beta = published.split_order(solver["order"])
    steps = published.momentum_steps(
        len(times) - 1, order=order, beta=beta, kind=kinds[solver["name"]]
    )
    return Schedule(process=process, times=times, steps=steps)


def bdia(case: Case, process: NoiseProcess, times: Times) -> Schedule:
    """BDIA-DDIM."""
    solver = case["solver"]
    if solver["name"] != "bdia_ddim":
        raise ValueError(f"unknown solver {solver['name']!r}")
    if solver.get("eta", 0.0) != 0.0:
        raise Waits("stochastic steps")
    steps = published.bdia_steps(len(times) - 1, solver["gamma"])
    return Schedule(process=process, times=times, steps=steps)
