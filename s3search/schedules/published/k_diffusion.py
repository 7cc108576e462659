"""k-diffusion's samplers on a list of falling sigmas, and the lists that it makes.

They compute as if alpha were 1, on ``edm``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from s3search.processes import Edm
from s3search.schedules.published.common import on_times
from s3search.schedules.published.deis import rho_ab_steps
from s3search.schedules.published.dpm import ddim_steps, dpm_multistep_steps, singlestep_on
from s3search.schedules.published.edm import euler_steps, heun_steps
from s3search.schedules.published.raised import Method
from s3search.schedules.published.runge_kutta import dpm2_on
from s3search.schedules.published.sde import SdeVariant, dpmpp_sde_on, sde_steps
from s3search.schedules.published.stochastic import ancestral_on, euler_ancestral_steps
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import Spacing

Sigmas = Sequence[float]
_Made = tuple[Sequence[float], Sequence[Step]]

_RHO = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KSampler:
    """One sampler; ``has_inner``: it makes a level of its own between two sigmas."""

    make: Callable[[Edm, Sigmas], Schedule]
    has_inner: bool = False


def _euler(process: Edm, sigmas: Sigmas) -> Schedule:
    return on_times(process, sigmas, euler_steps(len(sigmas) - 1))


def _heun(process: Edm, sigmas: Sigmas) -> Schedule:
    steps = heun_steps(len(sigmas) - 1, ends_clean=sigmas[-1] == 0.0)
    return on_times(process, sigmas, steps)


def _dpmpp_2m(process: Edm, sigmas: Sigmas) -> Schedule:
    steps = dpm_multistep_steps(len(sigmas) - 1, order=2, lower_order_final=False)
    return on_times(process, sigmas, steps)


def _lms(process: Edm, sigmas: Sigmas) -> Schedule:
    return Schedule(process=process, times=sigmas, steps=rho_ab_steps(len(sigmas) - 1, 4))


def _dpm_2(process: Edm, sigmas: Sigmas) -> Schedule:
    return _ended(process, sigmas, lambda inner: dpm2_on(process, inner))


def _dpmpp_2s(process: Edm, sigmas: Sigmas) -> Schedule:
    return _ended(
        process,
        sigmas,
        lambda inner: singlestep_on(process, inner, [2] * (len(inner) - 1), Spacing.LOGSNR),
    )


def _ancestral(method: Method) -> Callable[[Edm, Sigmas], Schedule]:
    return lambda process, sigmas: ancestral_on(process, sigmas, method)


def _euler_ancestral(process: Edm, sigmas: Sigmas) -> Schedule:
    return on_times(process, sigmas, euler_ancestral_steps(len(sigmas) - 1))


def _dpmpp_sde(process: Edm, sigmas: Sigmas) -> Schedule:
    return on_times(process, *dpmpp_sde_on(process, sigmas))


def _multistep_sde(order: int, variant: SdeVariant) -> Callable[[Edm, Sigmas], Schedule]:
    def made(process: Edm, sigmas: Sigmas) -> Schedule:
        steps = sde_steps(len(sigmas) - 1, order=order, variant=variant)
        return on_times(process, sigmas, steps)

    return made


def _ended(process: Edm, sigmas: Sigmas, make: Callable[[Sigmas], _Made]) -> Schedule:
    """Steps with inner levels down to the last sigma above 0, then one of Euler to 0."""
    clean = sigmas[-1] == 0.0
    times, steps = make(sigmas[:-1] if clean else sigmas)
    if clean:
        times, steps = (*times, 0.0), (*steps, *ddim_steps(1))
    return Schedule(process=process, times=times, steps=steps)


K_SAMPLERS: Mapping[str, KSampler] = {
    "euler": KSampler(make=_euler),
    "heun": KSampler(make=_heun),
    "dpmpp_2m": KSampler(make=_dpmpp_2m),
    "dpm_2": KSampler(make=_dpm_2, has_inner=True),
    "lms": KSampler(make=_lms),
    "dpmpp_2s": KSampler(make=_dpmpp_2s, has_inner=True),
}
"""The samplers by what follows ``sample_`` in their names; ``dpmpp_2s`` is that of
``sample_dpmpp_2s_ancestral`` with ``eta=0``.
"""


NOISY_K_SAMPLERS: Mapping[str, KSampler] = {
    "euler_ancestral": KSampler(make=_euler_ancestral),
    "dpmpp_2m_sde": KSampler(make=_multistep_sde(2, SdeVariant.MIDPOINT)),
    "dpmpp_3m_sde": KSampler(make=_multistep_sde(3, SdeVariant.HEUN)),
    "dpm_2_ancestral": KSampler(make=_ancestral(Method.DPM_2)),
    "dpmpp_2s_ancestral": KSampler(make=_ancestral(Method.DPMPP_2S)),
    "dpmpp_sde": KSampler(make=_dpmpp_sde, has_inner=True),
}
"""The samplers that draw noise, at their usual eta and s_noise of 1: the inner level of the two
ancestral ones, halfway in log sigma to below the target, is then the target's own.
"""


def karras_sigmas(n: int, process: Edm) -> list[float]:
    """``get_sigmas_karras``: n sigmas from the process's highest to its lowest, then 0."""
    first, last = process.sigma_max ** (1 / _RHO), process.sigma_min ** (1 / _RHO)
    inner = [(first + (last - first) * place) ** _RHO for place in _places(n)[1:]]
    return [process.sigma_max, *inner, 0.0]


def exponential_sigmas(n: int, process: Edm) -> list[float]:
    """``get_sigmas_exponential``, and ``get_sigmas_polyexponential`` with its usual ``rho``."""
    fall = math.log(process.sigma_min / process.sigma_max)
    return [*(process.sigma_max * math.exp(fall * place) for place in _places(n)), 0.0]


K_SIGMAS: Mapping[str, Callable[[int, Edm], list[float]]] = {
    "karras": karras_sigmas,
    "exponential": exponential_sigmas,
}
"""The lists of sigmas by what follows ``get_sigmas_`` in their names."""


def _places(n: int) -> list[float]:
    return [i / max(n - 1, 1) for i in range(n)]
