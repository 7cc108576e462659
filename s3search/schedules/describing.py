"""Schedules in words that a sampler's user knows: solvers by their names, levels by their sigmas.

A sigma is sigma / alpha, as k-diffusion and ComfyUI name levels; for a flow it is the time.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from s3search.processes import Edm, Flow, NoiseProcess
from s3search.rules import AnyRule, NoiseKind, clock_of
from s3search.schedules import published
from s3search.schedules.noisy_names import is_made_of, noisy_solver_name, noisy_step_name
from s3search.schedules.schedule import Corrector, Schedule, StartKind, Step

_SOLVERS: dict[str, Callable[[int], Sequence[Step]]] = {
    "DDIM (Euler)": published.ddim_steps,
    "Euler": published.euler_steps,
    "flow Euler": lambda n: published.flow_steps(n, 1),
    "DPM-Solver++(2M)": lambda n: published.dpm_multistep_steps(n, order=2),
    "DPM-Solver++(2M), order kept": lambda n: published.dpm_multistep_steps(
        n, order=2, lower_order_final=False
    ),
    "DPM-Solver++(3M)": lambda n: published.dpm_multistep_steps(n, order=3),
    "UniPC-2 bh1": lambda n: published.unipc_steps(n, order=2, variant="bh1"),
    "UniPC-2 bh2": lambda n: published.unipc_steps(n, order=2),
    "UniPC-3 bh1": lambda n: published.unipc_steps(n, order=3, variant="bh1"),
    "UniPC-3 bh2": lambda n: published.unipc_steps(n, order=3),
    "iPNDM-3": lambda n: published.ipndm_steps(n, 3),
    "iPNDM": lambda n: published.ipndm_steps(n, 4),
    "flow AB-2": lambda n: published.flow_steps(n, 2),
    "Heun": lambda n: published.heun_steps(n, ends_clean=True),
    "flow Heun": published.flow_heun_steps,
}

_N_STEPS = 8  # enough for a step of every solver's own order

_STARTS = {
    StartKind.ZERO_X0: "the first prediction is 0, without a call",
    StartKind.UNIT_NOISE: "the first prediction takes the data for unit noise, without a call",
    StartKind.AVERAGE_X0: "the first prediction is the mean image of the data, without a call",
}


def described(schedule: Schedule) -> str:
    """Solver and levels, then whatever is unusual, step by step where the steps differ."""
    name, levels = solver_name(schedule), _levels(schedule)
    calls = f"{schedule.nfe} network call{'s' * (schedule.nfe != 1)}"
    lines = [f"{name or 'Mixed steps'} at sigmas {', '.join(levels)}: {calls}, {_end(schedule)}."]
    if schedule.start.kind in _STARTS:
        lines.append(f"Start: {_STARTS[schedule.start.kind]}.")
    if schedule.start.jump is not None:
        lines.append("Start: a jump in closed form, as if the data were Gaussian, without a call.")
    if schedule.start.noise_scale is not None:
        lines.append(
            f"Start: noise times {schedule.start.noise_scale:.5g}, not its level's sigma."
        )
    if schedule.start.noise is not None:
        lines.append(f"Start: noise {schedule.start.noise.in_words} is added to the first state.")
    if name is None:
        pairs = zip(levels, [*levels[1:], "0"], schedule.steps, strict=False)
        lines += [f"  {s} to {t}: {step_sentence(step)}" for s, t, step in pairs]
    patch = schedule.model_patch
    if patch is not None and patch.guidance_scale is not None:
        scales = ", ".join(f"{scale:.3g}" for scale in patch.guidance_scale)
        lines.append(f"Guidance, call by call: {scales}.")
    if patch is not None and (patch.skip_layers is not None or patch.skip_scale is not None):
        lines.append("The network itself is changed (model_patch).")
    lines += [f"Tied to {each}." for each in schedule.tied_to]
    return "\n".join(lines)


def solver_name(schedule: Schedule) -> str | None:
    """The published solver whose steps these are, None if they are no single one's."""
    if any(step.network_time is not None for step in schedule.steps):
        return None
    for name, steps in _SOLVERS.items():
        if is_made_of(schedule, steps(schedule.n_steps)):
            return name
    return _name_with_noise(schedule) if schedule.is_stochastic else None


def _name_with_noise(schedule: Schedule) -> str | None:
    """The name of a solver that draws noise: of one that has its own, or of a deterministic one
    with as much noise in every step that has room for it.
    """
    added = {step.noise for step in schedule.steps[:-1]}
    (noise,) = added if len(added) == 1 else (None,)
    last = schedule.steps[-1]
    is_everywhere = noise is not None and last.noise in (None, noise)
    if noise is None or not is_everywhere or noise.kind is NoiseKind.TIME:
        return noisy_solver_name(schedule)
    steps = tuple(step.model_copy(update={"noise": None}) for step in schedule.steps)
    name = solver_name(schedule.changed(steps=steps))
    return None if name is None else f"{name} + noise {noise.in_words}"


def step_sentence(step: Step) -> str:
    """The choices of one step."""
    return _choices(step) + _around(step)


def step_words(step: Step, process: NoiseProcess) -> str:
    """One step by the published solver whose step it is, by its choices where it is none's."""
    names = _step_names(process)
    name = names.get((step.predictor, step.corrector))
    if name is None and (step.predictor, None) in names and step.corrector is not None:
        name = names[step.predictor, None] + _corrected(step)
    own = noisy_step_name(step.predictor) if name is None else None
    if own is not None:
        name = own + _corrected(step)
    return (name or _choices(step)) + _around(step)


@lru_cache(maxsize=16)
def _step_names(process: NoiseProcess) -> dict[tuple[AnyRule, Corrector | None], str]:
    """Published solvers by single steps of theirs: by those of their own order first, then by
    those with which they begin and end.
    """
    solvers: dict[str, Sequence[Step]] = {
        "DDIM": published.ddim_steps(_N_STEPS),
        **{name: steps(_N_STEPS) for name, steps in _SOLVERS.items() if "," not in name},
        "DPM-Solver(2M)": published.dpm_multistep_steps(_N_STEPS, order=2, prediction="noise"),
        "DPM-Solver(3M)": published.dpm_multistep_steps(_N_STEPS, order=3, prediction="noise"),
        "DPM-Solver++(2S)": published.dpmpp_2s(Edm(), nfe=_N_STEPS).steps,
        "DPM-Solver++(3S)": published.dpmpp_3s(Edm(), nfe=_N_STEPS).steps,
        "DEIS rhoAB-2": published.rho_ab_steps(_N_STEPS, 2),
        "DEIS rhoAB-3": published.rho_ab_steps(_N_STEPS, 3),
    }
    if not isinstance(process, Flow):
        clock = clock_of(process)
        for order in (2, 3):
            solvers[f"DEIS tAB-{order}"] = published.deis_steps(_N_STEPS, order, clock)
    names: dict[tuple[AnyRule, Corrector | None], str] = {}
    for name, steps in solvers.items():
        own = steps[len(steps) // 2]
        names.setdefault((own.predictor, own.corrector), name)
    for name, steps in solvers.items():
        for step in steps:
            words = f"{name}, {step.predictor.extent}"
            names.setdefault((step.predictor, step.corrector), words)
    return names


def _choices(step: Step) -> str:
    rule = step.predictor
    title, extrapolated, _ = describe_rule(rule)
    text = f"{title}, {extrapolated}, {rule.extent}"
    if rule.details:
        text += f" ({rule.details})"
    return text + _corrected(step)


def _corrected(step: Step) -> str:
    return "" if step.corrector is None else f", then {step.corrector.kind.value} corrector"


def _around(step: Step) -> str:
    """What is done before a step, what is added to it, and what the network is told."""
    text = ""
    if step.compensation is not None:
        text += f", after {step.compensation.sentence}"
    if step.noise is not None:
        text += f" + noise {step.noise.in_words}"
    if step.network_time is not None:
        text += f"; network told {step.network_time:.5g}"
    return text


def describe_rule(rule: AnyRule) -> tuple[str, str, int]:
    """Name, what it extrapolates (`data`, `noise`, `v3` or `slope`) and order of a rule.

    A free step has no order of its own: it is counted by its predictions.
    """
    return rule.title, rule.extrapolated or "slope", rule.n_points


def _levels(schedule: Schedule) -> list[str]:
    """The sigmas, without the clean end."""
    process = schedule.process
    times = [t for t in schedule.times if t != process.clean_time]
    sigmas = times if isinstance(process, Flow) else [math.exp(-process.lam(t)) for t in times]
    return [f"{sigma:.3g}" for sigma in sigmas]


def _end(schedule: Schedule) -> str:
    if schedule.times[-1] != schedule.process.clean_time:
        return "the image is the state at the last"
    return "the last of which makes the clean image"
