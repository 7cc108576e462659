"""Golden cases of SEEDS: the authors' code, and ComfyUI's samplers."""

from collections.abc import Callable, Mapping
from typing import Any

from s3search.rules import Derivative, SdeTaylor
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Step
from tests.support.golden import cases
from tests.support.golden.ancestral import check_arguments, sampler_arguments

Case = Mapping[str, Any]

_VARIANTS = {"2a": "midpoint", "2b": "heun", "3a": "midpoint", "3b": "midpoint"}


def authors(case: Case) -> "cases.Problem":
    """nfsrules/SEEDS, whose noise has a minus and whose last step, to sigma 0, does nothing."""
    levels = (
        "num_steps",
        "sigma_min",
        "sigma_max",
        "rho",
        "schedule",
        "scaling",
        "discretization",
    )
    known = (*levels, "order", "noise_pred", "c2", "butcher_type")
    given = check_arguments(
        {key: value for key, value in case["solver"].items() if key != "name"}, *known
    )
    order, process = given["order"], cases.process_of(case)
    times = case["timesteps"][:-1]
    c2 = given.get("c2") or (0.5 if order == 2 else 1.0 / 3.0)
    parts = {1: (), 2: (c2,), 3: (c2, 2.0 / 3.0)}[order]
    variant = given.get("butcher_type") or ("3a" if order == 3 else "2a")
    if variant not in _VARIANTS:
        raise ValueError(f"unknown butcher_type {variant!r}; known: {sorted(_VARIANTS)}")
    prediction = "noise" if given.get("noise_pred", False) else "data"
    visited, steps = published.seeds_on(
        process, times, order, prediction=prediction, parts=parts, variant=_VARIANTS[variant]
    )
    if variant == "3b":
        steps = tuple(map(_with_second_derivative, steps))
    schedule = published.on_times(process, visited, steps)
    return cases.Problem(schedule=schedule, denoiser=cases.mixture(process), sign_of_draws=-1.0)


def _with_second_derivative(step: Step) -> Step:
    """The end of a step of variant 3b, which takes the parabola through all its points."""
    rule = step.predictor
    if not isinstance(rule, SdeTaylor) or rule.start != -3:
        return step
    both = (Derivative(points=(-2, -1)),) * 2
    return Step(predictor=rule.model_copy(update={"order": 3, "derivatives": both}))


def comfyui_times(case: Case) -> list[float]:
    """The times of a ComfyUI sampler that cannot begin at pure noise: a flow's first one is moved,
    its state is not.
    """
    times = list(case["timesteps"])
    if case["process"]["type"] == "flow" and times[0] == 1.0:
        times[0] = case["model_times"][0]
    return times


def seeds_2(case: Case) -> Schedule:
    """ComfyUI's sample_seeds_2."""
    given = sampler_arguments(case, "eta", "s_noise", "r", "solver_type")
    variants = {"phi_1": "midpoint", "phi_2": "heun"}
    kind = given.get("solver_type", "phi_1")
    if kind not in variants:
        raise ValueError(f"unknown solver_type {kind!r}; known: {sorted(variants)}")
    return _on(case, given, (given.get("r", 0.5),), variants[kind])


def seeds_3(case: Case) -> Schedule:
    """ComfyUI's sample_seeds_3."""
    given = sampler_arguments(case, "eta", "s_noise", "r_1", "r_2")
    return _on(case, given, (given.get("r_1", 1.0 / 3.0), given.get("r_2", 2.0 / 3.0)), "heun")


def _on(case: Case, given: Mapping[str, Any], parts: tuple[float, ...], variant: str) -> Schedule:
    process = cases.process_of(case)
    noise = published.sde_noise(given.get("eta", 1.0), given.get("s_noise", 1.0))
    times, steps = published.seeds_on(
        process, comfyui_times(case), len(parts) + 1, noise=noise, parts=parts, variant=variant
    )
    return published.on_times(process, times, steps)


SAMPLERS: dict[str, Callable[[Case], "Schedule | cases.Problem"]] = {
    "etd-serk": authors,
    "sample_seeds_2": seeds_2,
    "sample_seeds_3": seeds_3,
}
"""By their names."""
