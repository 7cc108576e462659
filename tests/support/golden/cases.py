"""Golden cases as schedules: how the arguments of each published sampler map onto ours.

A case states a problem and the state the published code ended at (tests/golden/README.md).
`problem_of` answers with a `Problem`; it raises `Waits` where the project has no such solver yet,
`NoSchedule` where none can be had,
and `ValueError` for an argument nobody has looked at: an unknown case must not pass by accident.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.models.denoiser import thresholded
from s3search.models.gaussian import GaussianMixture
from s3search.processes import NoiseProcess, VpDiscrete, edm, process_from_dict
from s3search.rules import (
    Derivative,
    EmsStatistics,
    Prediction,
    Relaxation,
    RelaxationKind,
    Taylor,
)
from s3search.schedules import published
from s3search.schedules.schedule import Corrector, Schedule, Start, StartKind, Step, needs_ems
from s3search.solvers.plan import Plan
from s3search.solvers.sample import Denoiser
from tests.support.golden import diffusers as golden_diffusers
from tests.support.golden import ems as golden_ems
from tests.support.golden import inversion as golden_inversion
from tests.support.golden import misc as golden_misc
from tests.support.golden import slopes as golden_slopes
from tests.support.golden import stochastic as golden_stochastic
from tests.support.helpers import NoSchedule, Waits

_REPOSITORY = Path(__file__).resolve().parents[3]
_OWN_FOLDER = _REPOSITORY / "tests" / "golden"
Case = Mapping[str, Any]
_Adaptor = Callable[[Case, NoiseProcess], Schedule]

SPACINGS = {"logSNR": "logsnr", "time_uniform": "uniform", "time_quadratic": "quadratic"}
ADAPTIVE = "the step size depends on the state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A schedule and the denoiser the published code ran it with; a plan where times rise."""

    schedule: Schedule | None = None
    plan: Plan | None = None
    denoiser: Denoiser
    unused_calls: int = 0  # that the published code makes after the last step
    start_scale: float = 1.0  # of the published state, in ours
    statistics: EmsStatistics | None = None
    unused_draws: frozenset[int] = frozenset()  # numbers of those that the published code wasted
    sign_of_draws: float = 1.0  # with which they enter there


def golden_folders() -> list[Path]:
    """Those that $S3SEARCH_GOLDEN names, as a path list, else the full sets beside the repository
    and the set inside it.
    """
    if "S3SEARCH_GOLDEN" in os.environ:
        return [Path(name) for name in os.environ["S3SEARCH_GOLDEN"].split(os.pathsep) if name]
    beside = _REPOSITORY.parent / "shared"
    full = [folder for folder in (beside / "golden", beside / "golden2") if folder.is_dir()]
    return [*full, _OWN_FOLDER]


def golden_folder() -> Path:
    """The first of the folders with the analytic model, which all cases share."""
    found = (folder for folder in golden_folders() if (folder / "mixture.json").is_file())
    return next(found, _OWN_FOLDER)


def case_files() -> dict[str, Path]:
    """Case id to file; every file in a family's folder is a case, listed in the index or not.

    The sets beside the repository do not replace the cases that only tests/golden has.
    """
    folders = reversed(golden_folders())
    found = {path.stem: path for folder in folders for path in folder.glob("*/*.json")}
    return {name: found[name] for name in sorted(found)}


def problem_of(case: Case) -> Problem:
    """The problem that ``case`` states, in our terms."""
    family = case["family"]
    if family == "diffusers":
        return _diffusers(case)
    if family == "inversion":
        return _inversion(case)
    if family in _NO_SOLVER:
        raise Waits(_NO_SOLVER[family])
    if family in golden_stochastic.FAMILIES:
        return golden_stochastic.problem_of(case)
    if family not in _FAMILIES:
        raise ValueError(f"unknown family {family!r}; known: {sorted(_FAMILIES)}")
    _check_scaling(case["solver"])
    is_scaled = case["solver"].get("scaling", "none") != "none"  # edm, its state kept at 1/alpha
    process = process_of(case)
    denoiser: Denoiser = mixture(process)
    schedule = _FAMILIES[family](case, process)
    denoiser = _with_threshold(case, denoiser, schedule)
    if family in golden_misc.FAMILIES or family == "time_shift":
        return Problem(
            schedule=schedule,
            denoiser=golden_misc.wrapped(case, denoiser),
            unused_calls=golden_misc.unused_calls(case),
        )
    start_scale = 1.0 / case["alphas"][0] if is_scaled else 1.0
    return Problem(
        schedule=schedule,
        denoiser=denoiser,
        start_scale=start_scale,
        statistics=golden_ems.statistics_of(case, golden_folder()),
    )


def _diffusers(case: Case) -> Problem:
    replay = golden_diffusers.replay(case)
    denoiser: Denoiser = mixture(replay.schedule.process)
    if golden_diffusers.thresholds(case["solver"]):
        denoiser = golden_diffusers.Thresholded(denoiser, case["solver"]["config"])
    return Problem(
        schedule=replay.schedule,
        denoiser=denoiser,
        start_scale=replay.start_scale,
        unused_calls=replay.unused_calls,
    )


def _inversion(case: Case) -> Problem:
    process = process_of(case)
    assert isinstance(process, VpDiscrete)
    plan, unused_calls = golden_inversion.plan_of(case, process)
    denoiser: Denoiser = mixture(process)
    if case["solver"]["config"].get("thresholding"):
        denoiser = golden_diffusers.Thresholded(denoiser, case["solver"]["config"])
    return Problem(plan=plan, denoiser=denoiser, unused_calls=unused_calls)


def _check_scaling(solver: Mapping[str, Any]) -> None:
    if solver.get("state_scaling", "vp") not in ("vp", "flow"):
        raise Waits("a state scaled otherwise than the process's")


def mixture(process: NoiseProcess) -> GaussianMixture:
    """The analytic model of every case."""
    data = json.loads((golden_folder() / "mixture.json").read_text())
    means = torch.tensor(data["means"], dtype=torch.float64)
    stds, weights = (torch.tensor(data[key], dtype=torch.float64) for key in ("stds", "weights"))
    return GaussianMixture(process, means.reshape(-1, *data["shape"]), stds, weights)


def tensor(values: Any) -> Tensor:
    """A float64 tensor of nested lists."""
    return torch.tensor(values, dtype=torch.float64)


# --- processes and times ---


def process_of(case: Case) -> NoiseProcess:
    """The process; its unit of time is ours, see `times_of`."""
    fields = dict(case["process"])
    fields.pop("time", None)
    fields.pop("total_N_after_clipping", None)
    return process_from_dict(fields)


def times_of(case: Case, process: NoiseProcess) -> list[float]:
    """The grid in our unit: of a discrete process, the table index."""
    times = case["timesteps"]
    if any(t is None for t in times):
        raise Waits("grids with a last level that has no timestep")
    if not isinstance(process, VpDiscrete) or case["process"].get("time", "i") == "i":
        return list(times)
    if case["process"]["time"] != "(i+1)/n":
        raise ValueError(f"unknown meaning of a timestep: {case['process']['time']!r}")
    # a clipped cosine table keeps its first nodes and spreads them over (0, 1] again
    n = case["process"].get("total_N_after_clipping", process.n)
    return [t * n - 1 for t in times]


# --- the families ---


def _usf(case: Case, process: NoiseProcess) -> Schedule:
    decisions = case["decisions"]
    predictions = {
        "noise_prediction": Prediction.NOISE,
        "data_prediction": Prediction.DATA,
        golden_ems.USF_V3: Prediction.V3,
    }
    steps = []
    for i, name in enumerate(decisions["prediction_types"]):
        prediction = predictions[name]
        rule = _usf_rule(
            prediction,
            decisions["orders"][i],
            decisions["start_points"][i],
            decisions["derivative_types"][i],
        )
        corrector = _usf_corrector(prediction, decisions["corrector_types"][i])
        steps.append(Step(predictor=rule, corrector=corrector))
    start = _usf_start(decisions["afs"], process)
    return Schedule(
        process=process,
        times=times_of(case, process),
        steps=steps,
        start=start,
        statistics=golden_ems.reference_of(case, golden_folder()) if needs_ems(steps) else None,
    )


def _usf_rule(
    prediction: Prediction, order: int, start: int, derivatives: Sequence[Mapping[str, Any]]
) -> Taylor:
    estimates = []
    for number, entry in enumerate(derivatives):
        points = entry["active_points"]
        if entry["estimate"] != f"Difference_{len(points)}":
            raise ValueError(f"{entry['estimate']} with active points {points}")
        # the published code relaxes the first derivative only
        relaxation = _usf_relaxation(entry) if number == 0 else None
        estimates.append(Derivative(points=points, relaxation=relaxation))
    return Taylor(prediction=prediction, order=order, start=start, derivatives=tuple(estimates))


def _usf_relaxation(entry: Mapping[str, Any]) -> Relaxation | None:
    if entry.get("relaxation") is None:
        return None
    kind = RelaxationKind(entry["relaxation"])
    is_linear = kind is RelaxationKind.LINEAR
    return Relaxation(
        kind=kind, coefficient=entry["relaxation_coefficient"] if is_linear else None
    )


def _usf_corrector(prediction: Prediction, entry: Mapping[str, Any]) -> Corrector | None:
    if entry["type"] == "no_corrector":
        return None
    rule = _usf_rule(
        prediction, entry["taylor_order"], entry["start_point"], entry["derivative_type"]
    )
    return Corrector(kind=entry["type"], rule=rule)


def _usf_start(afs: str, process: NoiseProcess) -> Start:
    if afs == "no_afs":
        return Start()
    if afs == "zero_x0":  # in the VP codebases under this name: eps = x
        is_edm = process.same_levels(edm())
        return Start(kind=StartKind.ZERO_X0 if is_edm else StartKind.UNIT_NOISE)
    if afs == "average_x0":
        data = json.loads((golden_folder() / "mixture.json").read_text())
        image = tensor(data["mean"]).reshape(data["shape"]).tolist()
        return Start(kind=StartKind.AVERAGE_X0, image=image)
    raise ValueError(f"unknown afs {afs!r}")


def _dpm_solver(case: Case, process: NoiseProcess) -> Schedule:
    constructor, arguments = case["solver"]["constructor"], dict(case["solver"]["sample"])
    prediction = {"dpmsolver": "noise", "dpmsolver++": "data"}[constructor["algorithm_type"]]
    times = times_of(case, process)
    n, order, method = len(times) - 1, arguments.pop("order"), arguments.pop("method")
    taylor = {"dpmsolver": False, "taylor": True}[arguments.pop("solver_type", "dpmsolver")]
    spacing = SPACINGS[arguments.pop("skip_type", "time_uniform")]
    lowers = arguments.pop("lower_order_final", True)
    n_calls, denoise = arguments.pop("steps", None), arguments.pop("denoise_to_zero", False)
    if method == "adaptive":
        raise NoSchedule(ADAPTIVE)
    _nothing_left(arguments, "t_start", "t_end", "atol", "rtol")
    if denoise:
        n -= len(times) == n_calls + 2  # a grid that lists the clean end too
    if method == "multistep":
        steps = published.dpm_multistep_steps(
            n,
            order=order,
            prediction=prediction,
            taylor=taylor,
            lower_order_final=None if lowers else False,
        )
    elif method in ("singlestep", "singlestep_fixed"):
        is_fixed = method == "singlestep_fixed"
        orders = (
            (order,) * (n_calls // order)
            if is_fixed
            else published.singlestep_orders(n_calls, order)
        )
        if list(orders) != case["solver"].get("step_orders", list(orders)):
            raise ValueError(f"the case has steps of order {case['solver']['step_orders']}")
        times, steps = published.singlestep_on(
            process, times, orders, spacing, prediction=prediction, taylor=taylor
        )
    else:
        raise ValueError(f"unknown method {method!r}")
    if denoise:
        times, steps = _denoised(process, times, steps)
    return published.on_times(process, times, steps)


def _dpm_solver_v3(case: Case, process: NoiseProcess) -> Schedule:
    return golden_ems.dpm_solver_v3(case, process, times_of(case, process), golden_folder())


def _unipc(case: Case, process: NoiseProcess) -> Schedule:
    constructor, arguments = case["solver"]["constructor"], dict(case["solver"]["sample"])
    prediction = constructor["algorithm_type"].removesuffix("_prediction")
    times = times_of(case, process)
    variant, order = constructor["variant"], arguments.pop("order")
    method = arguments.pop("method", "multistep")
    if method != "multistep":
        raise ValueError(f"unknown method {method!r}")
    lowers, denoise = (
        arguments.pop("lower_order_final", True),
        arguments.pop("denoise_to_zero", False),
    )
    _nothing_left(arguments, "steps", "skip_type", "t_start", "t_end")
    corrector = case["solver"].get("use_corrector", True)
    n = len(times) - 1
    if variant == "vary_coeff":
        steps = _unipc_vary(n, order, prediction, corrector=corrector, lowers=lowers)
    else:
        steps = published.unipc_steps(
            n,
            order=order,
            variant=variant,
            prediction=prediction,
            corrector=corrector,
            lower_order_final=lowers,
        )
    if denoise:
        times, steps = _denoised(process, times, steps)
    return published.on_times(process, times, steps)


def _unipc_vary(
    n: int, order: int, prediction: str, *, corrector: bool, lowers: bool
) -> tuple[Step, ...]:
    """UniPC with full coefficients: plain Taylor steps; correctors take one order more."""
    steps = []
    for i in range(n):
        own = min(order, i + 1, n - i if lowers else order)
        follows = corrector and i < n - 1
        points = (*range(-own - 1, -2), -1)
        estimate = (Derivative(points=points),) * own
        rule = Taylor(prediction=prediction, order=own + 1, start=-2, derivatives=estimate)
        steps.append(
            Step(
                predictor=Taylor(prediction=prediction, order=own),
                corrector=Corrector(rule=rule) if follows else None,
            )
        )
    return tuple(steps)


def _ddim(case: Case, process: NoiseProcess) -> Schedule:
    if case["solver"]["name"] != "ddim":
        raise ValueError(f"unknown solver {case['solver']['name']!r}")
    if case["solver"].get("eta", 0.0) != 0.0:
        raise Waits("stochastic steps")
    times = times_of(case, process)
    return published.on_times(process, times, published.ddim_steps(len(times) - 1))


def _edm_samplers(case: Case, process: NoiseProcess) -> Schedule:
    solver, times = case["solver"], times_of(case, process)
    n, denoise = len(times) - 1, solver.get("denoise_to_zero", False)
    start = Start(kind=StartKind.UNIT_NOISE if solver.get("afs") else StartKind.NETWORK)
    match solver["name"]:
        case "euler":
            steps = published.euler_steps(n)
        case "heun":  # `_denoised` adds the step that makes the last of these a full one
            steps = published.heun_steps(n + denoise, ends_clean=denoise)[:n]
        case "edm_sampler" | "ablation_sampler":
            if solver.get("S_churn", 0) != 0:
                raise Waits("stochastic steps")
            if solver["name"] == "ablation_sampler":
                return golden_slopes.ablation(solver, process, times)
            steps = _nvlabs(solver, n)
        case "dpm_pp" | "unipc":
            if start.kind is not StartKind.NETWORK and solver["predict_x0"]:
                raise Waits("thresholding of an analytic start")
            steps = _diff_sampler_multistep(solver, n)
        case "dpm_2":
            return golden_slopes.dpm_2(solver, process, times)
        case name:
            raise ValueError(f"unknown solver {name!r}")
    if denoise:
        times, steps = _denoised(process, times, steps)
    return published.on_times(process, times, steps, start)


def _nvlabs(solver: Mapping[str, Any], n: int) -> tuple[Step, ...]:
    kind = solver.get("solver", "heun")
    if kind not in ("euler", "heun"):
        raise ValueError(f"unknown solver {kind!r}")
    return (
        published.euler_steps(n) if kind == "euler" else published.heun_steps(n, ends_clean=True)
    )


def _diff_sampler_multistep(solver: Mapping[str, Any], n: int) -> tuple[Step, ...]:
    prediction = "data" if solver["predict_x0"] else "noise"
    order, lowers = solver["max_order"], solver["lower_order_final"]
    if solver["name"] == "unipc":
        return published.unipc_steps(
            n,
            order=order,
            variant=solver["variant"],
            prediction=prediction,
            lower_order_final=lowers,
        )
    return published.dpm_multistep_steps(
        n, order=order, prediction=prediction, lower_order_final=lowers
    )


def _k_diffusion(case: Case, process: NoiseProcess) -> Schedule:
    solver = case["solver"]
    name = solver["name"].removeprefix("sample_")
    if solver.get("eta", 0.0) != 0.0 or solver.get("s_churn", 0.0) != 0.0:
        raise Waits("stochastic steps")
    if name == "dpm_fast":
        levels = edm(solver["sigma_min"], solver["sigma_max"])
        return published.dpm_singlestep(levels, nfe=solver["n"], order=3, prediction="noise")
    if name == "dpm_adaptive":
        raise NoSchedule(ADAPTIVE)
    times = times_of(case, process)
    if times[-1] != 0.0:
        raise ValueError(f"expected sigmas that end at 0, found {times[-1]}")
    n = len(times) - 1
    if name == "lms":
        return golden_slopes.lms(solver, process, times)
    if name in ("dpm_2", "dpm_2_ancestral"):
        return golden_slopes.k_dpm_2(process, times)
    if name in ("euler", "euler_ancestral"):
        steps = published.euler_steps(n)
    elif name == "heun":
        steps = published.heun_steps(n, ends_clean=True)
    elif name == "dpmpp_2m":
        steps = published.dpm_multistep_steps(n, order=2, lower_order_final=False)
    elif name == "dpmpp_2s_ancestral":
        inner, steps = published.singlestep_on(process, times[:-1], (2,) * (n - 1), "logsnr")
        times, steps = _denoised(process, inner, steps)
    else:
        raise ValueError(f"unknown solver {name!r}")
    return published.on_times(process, times, steps)


def _on_its_times(make: Callable[[Case, NoiseProcess, Sequence[float]], Schedule]) -> _Adaptor:
    return lambda case, process: make(case, process, times_of(case, process))


def _time_shift(case: Case, process: NoiseProcess) -> Schedule:
    """The solver on the grid; where the case shifts, `golden_misc.wrapped` does so."""
    return golden_slopes.pndm(case, process, times_of(case, process))


_NO_SOLVER = {
    "ays": "published grids",
    "dds": "conjugate gradients inside a step",
    "dm_nonuniform": "a search of grids",
    "gits": "a search of grids",
    "lml": "steps that are not linear in the network's answers",
    "oss": "a search of grids",
    "sdm": "steps chosen by a curvature",
}
"""Families of the second set that are no solver, or not a linear one."""

_FAMILIES: dict[str, _Adaptor] = {
    "bdia": _on_its_times(golden_slopes.bdia),
    "deis": _on_its_times(golden_slopes.deis),
    "ipndm": _on_its_times(golden_slopes.ipndm),
    "momentum": _on_its_times(golden_slopes.momentum),
    "time_shift": _time_shift,
    "usf": _usf,
    "dpm_solver": _dpm_solver,
    "unipc": _unipc,
    "ddim": _ddim,
    "edm_samplers": _edm_samplers,
    "k_diffusion": _k_diffusion,
    **golden_misc.FAMILIES,
    "dpm_solver_v3": _dpm_solver_v3,
}


# --- thresholding and the last call ---


def _with_threshold(case: Case, denoiser: Denoiser, schedule: Schedule) -> Denoiser:
    """``denoiser`` as the published code calls it.

    Thresholding acts on the data prediction: with the noise prediction on the call of
    ``denoise_to_zero`` alone, and in diff-sampler on all calls but that one.
    """
    threshold = _threshold(case)
    if threshold is None:
        return denoiser
    changed = thresholded(denoiser, *threshold)
    last = schedule.times[-2]
    if case["family"] == "edm_samplers":
        ends_clean = schedule.times[-1] == schedule.process.clean_time
        return _OtherAtTheEnd(changed, denoiser, last) if ends_clean else changed
    if not _extrapolates_noise(case["solver"].get("constructor", {})):
        return changed
    denoises = case["solver"].get("sample", {}).get("denoise_to_zero", False)
    return _OtherAtTheEnd(denoiser, changed, last) if denoises else denoiser


def _extrapolates_noise(constructor: Mapping[str, Any]) -> bool:
    algorithm = constructor.get("algorithm_type")
    return algorithm in ("dpmsolver", "noise_prediction") or not constructor.get(
        "predict_x0", True
    )


def _threshold(case: Case) -> tuple[float, float] | None:
    """(ratio, max_value) of the published code's dynamic thresholding, None without it;
    diff-sampler's multistep solvers always have it.
    """
    solver = case["solver"]
    if case["family"] == "edm_samplers":
        has_it = solver["name"] in ("dpm_pp", "unipc") and solver["predict_x0"]
        return (0.995, 1.0) if has_it else None
    constructor = solver.get("constructor", {})
    if constructor.get("thresholding"):  # DC-Solver
        return (0.995, constructor.get("max_val", 1.0))
    if constructor.get("correcting_x0_fn") is None:
        return None
    if constructor["correcting_x0_fn"] != "dynamic_thresholding":
        raise ValueError(f"unknown correcting_x0_fn {constructor['correcting_x0_fn']!r}")
    return (
        constructor.get("dynamic_thresholding_ratio", 0.995),
        constructor.get("thresholding_max_val", 1.0),
    )


class _OtherAtTheEnd:
    """One denoiser above ``last``, another there."""

    def __init__(self, before: Denoiser, there: Denoiser, last: float) -> None:
        self.process, self.sample_shape = before.process, before.sample_shape
        self._before, self._there, self._last = before, there, last

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        at_the_end = bool((t == self._last).all())
        return (self._there if at_the_end else self._before)(x, t, **condition)


def _denoised(
    process: NoiseProcess, times: Sequence[float], steps: Sequence[Step]
) -> tuple[list[float], list[Step]]:
    """With one more step, to the clean end: its call is the image."""
    last = Step(predictor=Taylor(prediction=Prediction.DATA, order=1))
    return [*times, process.clean_time], [*steps, last]


def _nothing_left(arguments: dict[str, Any], *about_the_grid: str) -> None:
    unknown = set(arguments) - set(about_the_grid)
    if unknown:
        raise ValueError(f"unknown arguments {sorted(unknown)}")
