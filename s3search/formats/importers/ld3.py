"""Times learned by LD3 (arXiv:2405.15506): `t_steps.pt`, or `best_v1.pt` / `best_v2.pt`.

A file holds 2 (n + 1) numbers: the n + 1 times the solver steps on, then the n + 1 times the
network is told.  They agree after LD3's first stage; a schedule here tells the network the time
of its step, so a file of the second stage, where they differ, is refused.
"""

import torch

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers.request import Request, required, time_of_fraction
from s3search.formats.importers.solvers import solved, solver_of
from s3search.formats.importers.tensors import load_tensors
from s3search.schedules.schedule import Schedule

_SAME = 1e-5  # relative; the files hold float32


def read(request: Request) -> Schedule:
    """The learned times under ``--solver``; they end where the solver stops."""
    process = required(request, "process")
    found = load_tensors(request.source)
    if isinstance(found, dict) and "best_t_steps" in found:
        found = found["best_t_steps"]
    if not isinstance(found, torch.Tensor) or found.ndim != 1 or len(found) < 4 or len(found) % 2:
        raise InvalidConfig(
            f"{request.source}: expected LD3's 2 (n + 1) times, alone or as 'best_t_steps'"
        )
    half = len(found) // 2
    solver_times, network_times = found.double()[:half], found.double()[half:]
    if not torch.allclose(solver_times, network_times, rtol=_SAME, atol=0.0):
        raise InvalidSchedule(
            f"{request.source}: the network is told other times than the solver's "
            f"(up to {float((solver_times - network_times).abs().max()):.3g} apart); "
            "steps with a network time of their own are needed, which this release lacks: "
            "import the file of LD3's first stage, best_v1.pt"
        )
    times = [time_of_fraction(process, t) for t in solver_times.tolist()]
    return solved(process, times, solver_of(request, "unipc"))
