"""Golden cases of ER-SDE: the authors' code and ComfyUI's sampler."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from s3search.processes import NoiseProcess, VpLinear
from s3search.rules import ErSde, NoiseFunction
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step
from tests.support.golden import cases
from tests.support.golden.ancestral import check_arguments, sampler_arguments
from tests.support.golden.seeds import comfyui_times

Case = Mapping[str, Any]

_FUNCTIONS = dict(enumerate(NoiseFunction, start=1))
_NAME = re.compile("v[ep](?:_xstart|_start)?_([123])_order(?:_taylor)?")
_CLIPPED = 1e-6


def authors(case: Case) -> Schedule:
    """The samplers of QinpengCui/ER-SDE-Solver, which leave out noise of a small variance."""
    solver = case["solver"]
    given = check_arguments(solver, "name", "func_type", "eta", "quadrature_points")
    match, kind = _NAME.fullmatch(given["name"]), given.get("func_type", 7)
    if match is None:
        raise ValueError(f"unknown sampler {given['name']!r}")
    if kind not in _FUNCTIONS or (kind == 3 and given.get("eta", 0) != 0):
        raise ValueError(f"unknown func_type {kind!r} with eta {given.get('eta', 0)!r}")
    process, times = _levels(case)
    steps = published.er_sde_steps(
        len(times) - 1,
        order=int(match[1]),
        function=_FUNCTIONS[kind],
        n_nodes=given.get("quadrature_points", 100),
    )
    rhos = [math.exp(-process.lam(t)) if t != process.clean_time else 0.0 for t in times]
    pairs = zip(steps, rhos, rhos[1:], strict=False)
    return published.on_times(process, times, [_clipped(*each) for each in pairs])


def _clipped(step: Step, rho_s: float, rho_t: float) -> Step:
    rule = step.predictor
    assert isinstance(rule, ErSde)
    if rho_t and abs(rho_t**2 - (rho_s * rule.function.ratio(rho_t, rho_s)) ** 2) < _CLIPPED:
        rule = rule.model_copy(update={"s_noise": 0.0})
    return Step(predictor=rule)


def _levels(case: Case) -> tuple[NoiseProcess, list[float]]:
    """The process and the times; listed levels are those of some variance preserving process."""
    if case["process"]["type"] != "vp_list":
        process = cases.process_of(case)
        return process, cases.times_of(case, process)
    vp = VpLinear()
    levels = zip(case["alphas"], case["stds"], strict=True)
    return vp, [
        vp.time_of_lam(math.log(alpha / std)) if std else vp.clean_time for alpha, std in levels
    ]


def comfyui(case: Case) -> Schedule:
    """ComfyUI's sample_er_sde."""
    given = sampler_arguments(case, "s_noise", "max_stage")
    times = comfyui_times(case)
    steps = published.er_sde_steps(
        len(times) - 1,
        order=given.get("max_stage", 3),
        s_noise=given.get("s_noise", 1.0),
        n_nodes=200,
    )
    return published.on_times(cases.process_of(case), times, steps)


NAMES = tuple(
    f"{kind}{middle}_{order}_order{end}"
    for kind, middle in (("ve", ""), ("vp", ""), ("ve", "_xstart"), ("ve", "_start"))
    for order in (1, 2, 3)
    for end in ("", "_taylor")
)

SAMPLERS: dict[str, Callable[[Case], "Schedule | cases.Problem"]] = {
    **dict.fromkeys(NAMES, authors),
    "sample_er_sde": comfyui,
}
"""By their names."""
