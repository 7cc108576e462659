"""Plain lists of noise levels or times, and those of searches that find nothing else.

    sigmas      sigma / alpha of each level (k-diffusion, ComfyUI); for a flow its time t
    timesteps   times in the process's unit; of a discrete model the training index
    gits        the sigmas GITS (arXiv:2405.18361) prints, both ends included
    oss         step indices of Optimal Stepsize (arXiv:2503.21774) among --steps teacher steps

The last level of a list of sigmas or timesteps is where the network is called last, and one more
step reaches the clean end; a list that ends there already (or --stop) is taken as it is.
"""

from itertools import pairwise

from s3search.errors import InvalidConfig
from s3search.formats.importers.request import Request, chosen, required, time_of_sigma
from s3search.formats.importers.solvers import amounts_of, ended, solved, solver_of
from s3search.formats.importers.text_lists import read_lists, read_numbers
from s3search.processes import Flow, NoiseProcess, VpDiscrete, edm
from s3search.schedules.schedule import Schedule

_MULTISTEP = "dpmpp_2m"
_THOUSAND = 1000  # timesteps of a flow, as diffusers and the models count them
_ROUNDED = 0.5  # of an index


def read_sigmas(request: Request) -> Schedule:
    """A list of noise levels."""
    process = required(request, "process")
    levels, unit = _in_unit(request, process, _some(request, "sigmas"), "sigma / alpha")
    times = [time_of_sigma(process, sigma) for sigma in levels]
    times = _below_the_end(process, times)
    times = ended(request, process, times)
    return solved(
        process, times, solver_of(request, _MULTISTEP), amounts=amounts_of(request), notes=(unit,)
    )


def read_timesteps(request: Request) -> Schedule:
    """A list of times."""
    process = required(request, "process")
    usual = "training indices" if isinstance(process, VpDiscrete) else "the process's times"
    found, unit = _in_unit(request, process, _some(request, "timesteps"), usual)
    times = ended(request, process, found)
    return solved(
        process, times, solver_of(request, _MULTISTEP), amounts=amounts_of(request), notes=(unit,)
    )


def read_gits(request: Request) -> Schedule:
    """The sigmas of one dynamic programme; the search prints one list per budget, and before it
    the indices of its levels, which rise from 0 and are passed over.
    """
    process = edm() if request.process is None else request.process
    found = [own for own in read_lists(request.source) if not _are_indices(own)]
    if not found:
        raise InvalidConfig(f"{request.source}: holds lists of indices, and none of noise levels")
    times = [time_of_sigma(process, sigma) for sigma in chosen(request, found)]
    times = _below_the_end(process, times)
    unit = "unit: sigma / alpha, as GITS prints it"
    return solved(
        process, times, solver_of(request, _MULTISTEP), amounts=amounts_of(request), notes=(unit,)
    )


def _are_indices(found: list[float]) -> bool:
    rises = all(a < b for a, b in pairwise(found))
    return rises and found[0] == 0.0 and all(own.is_integer() for own in found)


def _below_the_end(process: NoiseProcess, times: list[float]) -> list[float]:
    """Times whose first may lie a hair above the noisiest: levels are printed in few digits."""
    if not isinstance(process, VpDiscrete) or not times:
        return times
    last = process.time_range[1]
    is_near = last < times[0] < last + _ROUNDED
    return [last, *times[1:]] if is_near else times


def _in_unit(
    request: Request, process: NoiseProcess, found: list[float], usual: str
) -> tuple[list[float], str]:
    """The numbers in the process's own unit, and a note that says which unit they were taken in;
    raises `InvalidConfig` for numbers that are likely in another.
    """
    top = max(found)
    if isinstance(process, Flow):
        if top <= 1.0:
            return found, "unit: times from noise 1 to image 0"
        if top > _THOUSAND:
            raise InvalidConfig(
                f"{request.source}: a flow's times are at most 1, or {_THOUSAND} in thousandths; "
                f"found {top:g}"
            )
        return [own / _THOUSAND for own in found], "unit: thousandths of a flow's time"
    is_fraction = top <= 1.0 and not all(own.is_integer() for own in found)
    if usual == "training indices" and is_fraction:
        raise InvalidConfig(
            f"{request.source}: indices of {process.type!r} run to {process.time_range[1]:g}, and "
            f"the list's highest is {top:g}; fractions of the training times are not indices: "
            "multiply them, or import sigmas"
        )
    return found, f"unit: {usual}"


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


def _some(request: Request, name: str) -> list[float]:
    numbers = read_numbers(request.source, name)
    if not numbers:
        raise InvalidConfig(f"{request.source}: holds no numbers")
    return numbers
