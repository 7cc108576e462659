"""Plain lists of noise levels or times, and those of searches that find nothing else.

    sigmas      sigma / alpha of each level (k-diffusion, ComfyUI); for a flow its time t
    timesteps   times in the process's unit; of a discrete model the training index
    gits        the sigmas GITS (arXiv:2405.18361) prints, both ends included
    oss         step indices of Optimal Stepsize (arXiv:2503.21774) among --steps teacher steps

The last level of a list of sigmas or timesteps is where the network is called last, and one more
step reaches the clean end; a list that ends there already (or --stop) is taken as it is.
"""

from s3search.errors import InvalidConfig
from s3search.formats.importers.request import (
    Request,
    chosen,
    read_lists,
    read_numbers,
    required,
    time_of_sigma,
)
from s3search.formats.importers.solvers import ended, solved, solver_of
from s3search.processes import Flow, edm
from s3search.schedules.schedule import Schedule

_MULTISTEP = "dpmpp_2m"


def read_sigmas(request: Request) -> Schedule:
    """A list of noise levels."""
    process = required(request, "process")
    times = [time_of_sigma(process, sigma) for sigma in _some(request)]
    return solved(process, ended(request, process, times), solver_of(request, _MULTISTEP))


def read_timesteps(request: Request) -> Schedule:
    """A list of times."""
    process = required(request, "process")
    times = ended(request, process, _some(request))
    return solved(process, times, solver_of(request, _MULTISTEP))


def read_gits(request: Request) -> Schedule:
    """The sigmas of one dynamic programme; the search prints one list per budget."""
    process = edm() if request.process is None else request.process
    sigmas = chosen(request, read_lists(request.source))
    times = [time_of_sigma(process, sigma) for sigma in sigmas]
    return solved(process, times, solver_of(request, _MULTISTEP))


def read_oss(request: Request) -> Schedule:
    """Step indices 1 .. N of a teacher with N steps (or flow times), of one image or of several.

    Of several images each position takes its median, as the authors do. The teacher's times are
    uniform before the shift, t = s u / (1 + (s - 1) u) with u = i / N.
    """
    process = Flow() if request.process is None else request.process
    if not isinstance(process, Flow):
        raise InvalidConfig(
            f"--process: OSS takes Euler steps of flow models, asked for {process.type!r}"
        )
    found = read_lists(request.source)
    picked = [chosen(request, found)] if request.index is not None else found
    if len({len(one) for one in picked}) != 1:
        raise InvalidConfig(
            f"{request.source}: lists of {sorted({len(one) for one in picked})} steps; "
            "name one with --index"
        )
    steps = [_median(column) for column in zip(*picked, strict=True)]
    fractions = sorted({u for u in _fractions(request, steps) if u > 0.0}, reverse=True)
    shift = 1.0 if request.shift is None else request.shift
    if not shift > 0.0:
        raise InvalidConfig(f"--shift: must be above 0, found {shift}")
    times = [shift * u / (1.0 + (shift - 1.0) * u) for u in fractions]
    return solved(process, [*times, 0.0], solver_of(request, "euler"))


def _fractions(request: Request, steps: list[float]) -> list[float]:
    if request.steps is not None:
        return [step / request.steps for step in steps]
    if max(steps) > 1.0:
        raise InvalidConfig(
            f"{request.source}: {steps} are indices of teacher steps; "
            "--steps N says how many the teacher had"
        )
    return steps


def _median(column: tuple[float, ...]) -> float:
    ordered, half = sorted(column), len(column) // 2
    if len(column) % 2:
        return ordered[half]
    return (ordered[half] + ordered[half - 1]) / 2


def _some(request: Request) -> list[float]:
    numbers = read_numbers(request.source)
    if not numbers:
        raise InvalidConfig(f"{request.source}: holds no numbers")
    return numbers
