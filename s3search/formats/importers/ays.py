"""Align Your Steps (arXiv:2404.14507): noise levels optimised per model, 10 steps each.

A source is a table's name.  For another number of steps the levels are interpolated linearly in
log sigma, as the authors advise.  The last level is where the network is called last but one; the
final step goes to the clean end, or with --stop to the table's own last level.
"""

import math

import numpy as np

from s3search.errors import InvalidConfig, nearest
from s3search.formats.importers.request import PROCESSES, Request, time_of_sigma
from s3search.formats.importers.solvers import amounts_of, solved, solver_of
from s3search.processes import edm
from s3search.schedules.schedule import Schedule

_TABLES: dict[str, tuple[float, ...]] = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
_PROCESSES = {"sd15": PROCESSES["sd"], "sdxl": PROCESSES["sd"], "svd": edm(0.002, 700.0)}


def read(request: Request) -> Schedule:
    """The table named by the source, at ``--steps`` steps."""
    if request.source not in _TABLES:
        raise InvalidConfig(
            f"{request.source}: no table of this name; {nearest(request.source, _TABLES)}"
        )
    process = _PROCESSES[request.source] if request.process is None else request.process
    levels = _TABLES[request.source]
    n = len(levels) - 1 if request.steps is None else request.steps
    sigmas = levels if n == len(levels) - 1 else _interpolated(levels, n)
    # the tables are rounded: the first level of SD's may lie a hair above the model's noisiest
    low, high = process.time_range
    times = [min(time_of_sigma(process, sigma), high) for sigma in sigmas]
    if not request.stop:
        times[-1] = low
    return solved(
        process,
        times,
        solver_of(request, "dpmpp_2m"),
        amounts=amounts_of(request),
        table=request.source,
    )


def _interpolated(levels: tuple[float, ...], n: int) -> list[float]:
    logs = [math.log(level) for level in levels]
    places = np.linspace(0.0, len(levels) - 1.0, n + 1)
    inner = np.exp(np.interp(places, np.arange(len(levels)), logs))
    return [levels[0], *inner[1:-1].tolist(), levels[-1]]
