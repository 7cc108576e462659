"""The published samplers that draw noise in their steps, by the names that users know.

Those whose steps are the same map are listed once: Euler ancestral, DDPM and DDIM with eta 1.
"""

from collections.abc import Callable, Mapping

from s3search.processes import NoiseProcess
from s3search.schedules.published.churn import dpm_2_churn, euler_churn, heun_churn
from s3search.schedules.published.dpm import ddim
from s3search.schedules.published.er_sde import er_sde
from s3search.schedules.published.flow_noise import (
    flow_ancestral,
    interpolant_sde,
    sit_diffusion,
)
from s3search.schedules.published.renoised import renoised, tcd_on
from s3search.schedules.published.restart import restart
from s3search.schedules.published.sa_solver import sa_solver
from s3search.schedules.published.sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from s3search.schedules.published.seeds import seeds_2, seeds_3
from s3search.schedules.published.stochastic import (
    Variance,
    ddpm,
    dpm_2_ancestral,
    dpmpp_2s_ancestral,
    euler_ancestral,
    heun_ancestral,
)
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, Spacing, grid

Families = Mapping[str, Callable[[NoiseProcess, int, Spacing, End], Schedule]]
"""Samplers by their names: a process, calls, spacing and end make a schedule, or raise
`InvalidSchedule` where there is none."""

NOISY_FAMILIES: Families = {
    "Euler ancestral (DDPM)": lambda p, n, s, e: euler_ancestral(p, nfe=n, spacing=s, end=e),
    "DDPM, large variance": lambda p, n, s, e: ddpm(
        p, nfe=n, variance=Variance.FIXED_LARGE, spacing=s, end=e
    ),
    "SDE-DPM-Solver++(2M)": lambda p, n, s, e: dpmpp_2m_sde(p, nfe=n, spacing=s, end=e),
    "SDE-DPM-Solver++(3M)": lambda p, n, s, e: dpmpp_3m_sde(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(SDE)": lambda p, n, s, e: dpmpp_sde(p, nfe=n, spacing=s, end=e),
    "SA-Solver": lambda p, n, s, e: sa_solver(p, nfe=n, spacing=s, end=e),
    "ER-SDE-3": lambda p, n, s, e: er_sde(p, nfe=n, spacing=s, end=e),
    "SEEDS-2": lambda p, n, s, e: seeds_2(p, nfe=n, spacing=s, end=e),
    "SEEDS-3": lambda p, n, s, e: seeds_3(p, nfe=n, spacing=s, end=e),
    "DDIM eta 0.5": lambda p, n, s, e: ddim(p, nfe=n, eta=0.5, spacing=s, end=e),
    "Heun ancestral": lambda p, n, s, e: heun_ancestral(p, nfe=n, spacing=s, end=e),
    "DPM-Solver-2 ancestral": lambda p, n, s, e: dpm_2_ancestral(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(2S) ancestral": lambda p, n, s, e: dpmpp_2s_ancestral(
        p, nfe=n, spacing=s, end=e
    ),
    "Euler churn": lambda p, n, s, e: euler_churn(p, nfe=n, spacing=s, end=e),
    "EDM Heun churn": lambda p, n, s, e: heun_churn(p, nfe=n, spacing=s, end=e),
    "DPM-Solver-2 churn": lambda p, n, s, e: dpm_2_churn(p, nfe=n, spacing=s, end=e),
    "Restart": lambda p, n, s, e: restart(p, nfe=n, spacing=s, end=e),
    "LCM (re-noising)": lambda p, n, s, e: renoised(p, nfe=n, spacing=s, end=e),
    "TCD eta 0.3": lambda p, n, s, e: tcd_on(p, grid(p, n, s, e), 0.3),
    "Flow ancestral": lambda p, n, s, e: flow_ancestral(p, nfe=n, spacing=s, end=e),
    "SiT SDE": lambda p, n, s, e: interpolant_sde(
        p, nfe=n, epsilon=sit_diffusion, spacing=s, end=e
    ),
}
