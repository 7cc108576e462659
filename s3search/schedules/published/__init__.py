"""Published solvers, written as schedules.

Each solver has two forms: ``..._steps`` gives its steps for n intervals (to put on any times with
`on_times`), and the plain name gives the whole schedule for a process, a number of network calls,
a spacing and an end:

>>> baseline = published.unipc(edm(), nfe=8, order=3, variant="bh2", spacing="logsnr")
"""

from s3search.schedules.published.baselines import baselines
from s3search.schedules.published.common import on_times
from s3search.schedules.published.dpm import (
    ddim,
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
from s3search.schedules.published.dpm_v3 import dpm_solver_v3, dpm_solver_v3_steps
from s3search.schedules.published.edm import euler, euler_steps, heun, heun_steps
from s3search.schedules.published.unipc import unipc, unipc_steps

__all__ = [
    "baselines",
    "ddim",
    "ddim_steps",
    "dpm_multistep_steps",
    "dpm_singlestep",
    "dpm_solver_v3",
    "dpm_solver_v3_steps",
    "dpmpp_2m",
    "dpmpp_2s",
    "dpmpp_3m",
    "dpmpp_3s",
    "euler",
    "euler_steps",
    "heun",
    "heun_steps",
    "on_times",
    "singlestep_on",
    "singlestep_orders",
    "unipc",
    "unipc_steps",
]
