"""Published solvers, written as schedules.

Each solver has two forms: ``..._steps`` gives its steps for n intervals (to put on any times with
`on_times`), and the plain name gives the whole schedule for a process, a number of network calls,
a spacing and an end:

>>> baseline = published.unipc(edm(), nfe=8, order=3, variant="bh2", spacing="logsnr")
"""

from s3search.rules import clock_of
from s3search.schedules.published.ada_sde import InnerPoint, ada_sde
from s3search.schedules.published.baselines import baselines
from s3search.schedules.published.churn import (
    Churn,
    churn_on,
    dpm_2_churn,
    euler_churn,
    heun_churn,
)
from s3search.schedules.published.common import on_times
from s3search.schedules.published.compensated import (
    dc_solver,
    dualfast,
    falling,
    with_ratios,
)
from s3search.schedules.published.deis import (
    deis,
    deis_steps,
    ipndm,
    ipndm_steps,
    lms,
    rho_ab,
    rho_ab_steps,
)
from s3search.schedules.published.dpm import (
    ddim,
    ddim_on,
    ddim_steps,
    dpm_multistep_steps,
    dpm_singlestep,
    dpmpp_2m,
    dpmpp_2s,
    dpmpp_3m,
    dpmpp_3s,
    singlestep_on,
    singlestep_orders,
)
from s3search.schedules.published.dpm_v3 import (
    corrected_by_half,
    dpm_solver_v3,
    dpm_solver_v3_steps,
)
from s3search.schedules.published.edm import euler, euler_steps, heun, heun_steps
from s3search.schedules.published.er_sde import er_sde, er_sde_steps
from s3search.schedules.published.flow import (
    flow_2m,
    flow_euler,
    flow_heun,
    flow_heun_steps,
    flow_steps,
)
from s3search.schedules.published.flow_noise import (
    Diffusion,
    flow_2s_ancestral,
    flow_2s_ancestral_on,
    flow_ancestral,
    flow_ancestral_steps,
    full_diffusion,
    interpolant_sde,
    sit_diffusion,
)
from s3search.schedules.published.guided import guided_in_interval, with_guidance
from s3search.schedules.published.jumps import with_jump
from s3search.schedules.published.momentum import (
    bdia,
    bdia_steps,
    momentum,
    momentum_steps,
    split_order,
)
from s3search.schedules.published.network_times import with_network_times
from s3search.schedules.published.raised import Method
from s3search.schedules.published.renoised import (
    distilled_times,
    lcm,
    lcm_on,
    renoised,
    renoised_steps,
    tcd,
    tcd_on,
)
from s3search.schedules.published.restart import RestartInterval, restart, restart_on
from s3search.schedules.published.runge_kutta import (
    dpm2,
    dpm2_on,
    f_pndm_steps,
    plms_steps,
    runge_kutta_on,
    runge_kutta_steps,
    s_pndm_steps,
)
from s3search.schedules.published.sa_solver import sa_solver, sa_solver_steps, sa_step
from s3search.schedules.published.sde import (
    SdeVariant,
    dpmpp_2m_sde,
    dpmpp_3m_sde,
    dpmpp_sde,
    dpmpp_sde_on,
    sde_dpm_solver,
    sde_noise,
    sde_step,
    sde_steps,
)
from s3search.schedules.published.seeds import seeds_2, seeds_3, seeds_on
from s3search.schedules.published.stochastic import (
    Variance,
    ancestral_on,
    ddpm,
    ddpm_steps,
    dpm_2_ancestral,
    dpmpp_2s_ancestral,
    euler_ancestral,
    euler_ancestral_steps,
    heun_ancestral,
)
from s3search.schedules.published.unipc import unipc, unipc_steps
from s3search.schedules.spacing import End, EndRule, Spacing

__all__ = [
    "Churn",
    "Diffusion",
    "End",
    "EndRule",
    "InnerPoint",
    "Method",
    "RestartInterval",
    "SdeVariant",
    "Spacing",
    "Variance",
    "ada_sde",
    "ancestral_on",
    "baselines",
    "bdia",
    "bdia_steps",
    "churn_on",
    "clock_of",
    "corrected_by_half",
    "dc_solver",
    "ddim",
    "ddim_on",
    "ddim_steps",
    "ddpm",
    "ddpm_steps",
    "deis",
    "deis_steps",
    "distilled_times",
    "dpm2",
    "dpm2_on",
    "dpm_2_ancestral",
    "dpm_2_churn",
    "dpm_multistep_steps",
    "dpm_singlestep",
    "dpm_solver_v3",
    "dpm_solver_v3_steps",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_2s_ancestral",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_3s",
    "dpmpp_sde",
    "dpmpp_sde_on",
    "dualfast",
    "er_sde",
    "er_sde_steps",
    "euler",
    "euler_ancestral",
    "euler_ancestral_steps",
    "euler_churn",
    "euler_steps",
    "f_pndm_steps",
    "falling",
    "flow_2m",
    "flow_2s_ancestral",
    "flow_2s_ancestral_on",
    "flow_ancestral",
    "flow_ancestral_steps",
    "flow_euler",
    "flow_heun",
    "flow_heun_steps",
    "flow_steps",
    "full_diffusion",
    "guided_in_interval",
    "heun",
    "heun_ancestral",
    "heun_churn",
    "heun_steps",
    "interpolant_sde",
    "ipndm",
    "ipndm_steps",
    "lcm",
    "lcm_on",
    "lms",
    "momentum",
    "momentum_steps",
    "on_times",
    "plms_steps",
    "renoised",
    "renoised_steps",
    "restart",
    "restart_on",
    "rho_ab",
    "rho_ab_steps",
    "runge_kutta_on",
    "runge_kutta_steps",
    "s_pndm_steps",
    "sa_solver",
    "sa_solver_steps",
    "sa_step",
    "sde_dpm_solver",
    "sde_noise",
    "sde_step",
    "sde_steps",
    "seeds_2",
    "seeds_3",
    "seeds_on",
    "singlestep_on",
    "singlestep_orders",
    "sit_diffusion",
    "split_order",
    "tcd",
    "tcd_on",
    "unipc",
    "unipc_steps",
    "with_guidance",
    "with_jump",
    "with_network_times",
    "with_ratios",
]
