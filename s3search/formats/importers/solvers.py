"""The solvers that a bare list of times can be run with, by name.

Names are those of k-diffusion and ComfyUI as well: ``sample_`` before them and ComfyUI's ``_gpu``
after them mean nothing.  On flows an ancestral name is that of ComfyUI's form for flows, and
solvers of the SDE begin a little below pure noise, as they do there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.formats.importers.request import Request
from s3search.processes import Flow, NoiseProcess
from s3search.schedules import published
from s3search.schedules.published.raised import Method
from s3search.schedules.published.sde import SdeVariant
from s3search.schedules.schedule import ModelPatch, Schedule, Start, Step

Times = Sequence[float]
_Stepping = Callable[[int, bool], tuple[Step, ...]]


class Amounts(NamedTuple):
    """How much noise a sampler adds: k-diffusion's eta and s_noise."""

    eta: float = 1.0
    s_noise: float = 1.0


_SOLVERS: Mapping[str, _Stepping] = {
    "ddim": lambda n, clean: published.ddim_steps(n),
    "euler": lambda n, clean: published.euler_steps(n),
    "heun": lambda n, clean: published.heun_steps(n, ends_clean=clean),
    "dpmpp_2m": lambda n, clean: published.dpm_multistep_steps(n, order=2),
    "dpmpp_3m": lambda n, clean: published.dpm_multistep_steps(n, order=3),
    "unipc": lambda n, clean: published.unipc_steps(n, order=3),
}
"""Solvers without noise: n steps, the last of which may reach the clean end."""


def _euler_ancestral(process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
    form = published.euler_ancestral_steps
    if isinstance(process, Flow):
        form = published.flow_ancestral_steps
    return published.on_times(process, times, form(len(times) - 1, *amounts))


def _dpmpp_2s_ancestral(process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
    eta, s_noise = amounts
    if isinstance(process, Flow):
        return published.flow_2s_ancestral_on(process, times, eta=eta, s_noise=s_noise)
    return published.ancestral_on(process, times, Method.DPMPP_2S, eta=eta, s_noise=s_noise)


def _dpm_2_ancestral(process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
    if isinstance(process, Flow):
        raise InvalidSchedule(
            "--solver: dpm_2_ancestral on a flow is not among the published solvers here; use "
            "euler_ancestral or dpmpp_2s_ancestral"
        )
    eta, s_noise = amounts
    return published.ancestral_on(process, times, Method.DPM_2, eta=eta, s_noise=s_noise)


def _multistep(
    order: int, variant: SdeVariant
) -> Callable[[NoiseProcess, Times, Amounts], Schedule]:
    def made(process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
        noise = published.sde_noise(*amounts)
        steps = published.sde_steps(len(times) - 1, order=order, noise=noise, variant=variant)
        return published.on_times(process, times, steps)

    return made


def _dpmpp_sde(process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
    return published.on_times(process, *published.dpmpp_sde_on(process, times, *amounts))


def _seeds(order: int) -> Callable[[NoiseProcess, Times, Amounts], Schedule]:
    def made(process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
        noise = published.sde_noise(*amounts)
        return published.on_times(process, *published.seeds_on(process, times, order, noise=noise))

    return made


def _er_sde(process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
    if amounts.eta != 1.0:
        raise InvalidConfig(
            "--eta: the noise of er_sde is a function of the level and has none; leave it out"
        )
    n = len(times) - 1
    steps = published.er_sde_steps(n, s_noise=amounts.s_noise, n_nodes=_NODES)
    return published.on_times(process, times, steps)


_NOISY: Mapping[str, Callable[[NoiseProcess, Times, Amounts], Schedule]] = {
    "euler_ancestral": _euler_ancestral,
    "dpm_2_ancestral": _dpm_2_ancestral,
    "dpmpp_2s_ancestral": _dpmpp_2s_ancestral,
    "dpmpp_sde": _dpmpp_sde,
    "dpmpp_2m_sde": _multistep(2, SdeVariant.MIDPOINT),
    "dpmpp_2m_sde_heun": _multistep(2, SdeVariant.HEUN),
    "dpmpp_3m_sde": _multistep(3, SdeVariant.HEUN),
    "seeds_2": _seeds(2),
    "seeds_3": _seeds(3),
    "er_sde": _er_sde,
}
"""Samplers with an amount of noise."""

_RENOISED: Mapping[str, Callable[[NoiseProcess, Times], Sequence[Step]]] = {
    "ddpm": published.ddpm_steps,
    "lcm": lambda process, times: published.renoised_steps(len(times) - 1),
}
"""Samplers whose noise is all that there can be, or all that DDPM's posterior has."""

_BELOW_PURE_NOISE = tuple(name for name in _NOISY if "ancestral" not in name)
_NODES = 200  # of ER-SDE's integrals in ComfyUI
_FIRST_OF_FLOWS = 0.9999  # the time at which ComfyUI begins them

SOLVERS = (*_SOLVERS, *_NOISY, *_RENOISED)
"""The names, without ``sample_`` and ``_gpu``."""


def solved(
    process: NoiseProcess,
    times: Sequence[float],
    solver: str,
    *,
    patch: ModelPatch | None = None,
    amounts: Mapping[str, float] | None = None,
    **provenance: Any,
) -> Schedule:
    """``solver`` on these times, from the noisy one down; provenance names the solver.

    ``amounts`` are the `Amounts` that were asked for; raises `InvalidConfig` for a solver that has
    none, or is not known.
    """
    name = solver.removeprefix("sample_").removesuffix("_gpu")
    if name not in SOLVERS:
        raise InvalidConfig(f"--solver: {solver!r} is not known; {nearest(name, SOLVERS)}")
    if len(times) < 2:
        raise InvalidSchedule(f"times: a schedule needs at least two, found {[*times]}")
    if amounts and name not in _NOISY:
        option = next(iter(amounts)).replace("_", "-")
        raise InvalidConfig(
            f"--{option}: solver {name!r} has no such amount of noise; it is for "
            f"{', '.join(_NOISY)}"
        )
    start = Start()
    if name in _BELOW_PURE_NOISE and process.alpha(times[0]) == 0.0:
        # the state is still that of pure noise
        times, start = (_FIRST_OF_FLOWS, *times[1:]), Start(noise_scale=process.sigma(times[0]))
    schedule = _made(name, process, times, Amounts(**(amounts or {})))
    return schedule.changed(
        start=start,
        model_patch=patch,
        provenance={"solver": name, **(amounts or {}), **provenance},
    )


def _made(name: str, process: NoiseProcess, times: Times, amounts: Amounts) -> Schedule:
    if name in _NOISY:
        return _NOISY[name](process, times, amounts)
    if name in _RENOISED:
        return published.on_times(process, times, _RENOISED[name](process, times))
    steps = _SOLVERS[name](len(times) - 1, times[-1] == process.clean_time)
    return published.on_times(process, times, steps)


def solver_of(request: Request, usual: str) -> str:
    """The solver asked for, else the format's usual one."""
    return usual if request.solver is None else request.solver


def amounts_of(request: Request) -> dict[str, float]:
    """The amounts of noise that were asked for."""
    named = {"eta": request.eta, "s_noise": request.s_noise}
    return {name: value for name, value in named.items() if value is not None}


def ended(request: Request, process: NoiseProcess, times: Sequence[float]) -> list[float]:
    """``times`` with the clean end after them, unless they reach it or ``--stop`` was given."""
    at_end = bool(request.stop) or not times or times[-1] == process.clean_time
    return [*times] if at_end else [*times, process.clean_time]
