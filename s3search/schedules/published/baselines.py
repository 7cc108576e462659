"""All published solvers at all spacings and ends: what a search must beat, and starts from.

One network has the same ones whatever process it is seen under.  They begin at sigma / alpha = 80,
EDM's noisiest level, or at the process's own where that is lower.  A flow begins at pure noise,
where few rules have a value; its schedules are EDM's at the times of equal sigma / alpha, uniform
and quadratic VP time among them, and beside them those that can begin at pure noise, in its own
time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from s3search.errors import InvalidSchedule
from s3search.processes import Edm, Flow, NoiseProcess, usual_end_time
from s3search.schedules.published.deis import deis, ipndm
from s3search.schedules.published.dpm import ddim, dpmpp_2m, dpmpp_2s, dpmpp_3m, dpmpp_3s
from s3search.schedules.published.edm import heun
from s3search.schedules.published.noisy_families import NOISY_FAMILIES, Families
from s3search.schedules.published.runge_kutta import dpm2
from s3search.schedules.published.unipc import unipc
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import BEGIN, End, EndRule, Spacing, begin_time, noisy_time


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSchedule:
    """A published solver at one spacing and end."""

    solver: str
    variant: str  # spacing and end
    schedule: Schedule

    @property
    def name(self) -> str:
        """Solver and variant."""
        return f"{self.solver}, {self.variant}"


def published_solvers(
    process: NoiseProcess, nfe: int, *, ends: Sequence[End] | None = None, noise: bool = False
) -> list[PublishedSchedule]:
    """Every published solver here, at every spacing and end, that makes exactly ``nfe`` calls;
    those that draw noise in their steps follow if ``noise`` asks for them.

    The default ends are those among which tuned samplers were found best; an end below the level
    that the network was trained down to is left out.  Samplers with noise end clean, or at the
    usual end.
    """
    wanted = ENDS if ends is None else tuple(ends)
    found = [*_published(process, nfe, wanted)]
    return [*found, *_published_with_noise(process, nfe, wanted)] if noise else found


@lru_cache(maxsize=64)
def _published(
    process: NoiseProcess, nfe: int, each_end: tuple[End, ...]
) -> tuple[PublishedSchedule, ...]:
    """All of them, made once: a process that searches again finds them, with their ids."""
    usual = [end for end in each_end if end.sigma is None]
    found: list[PublishedSchedule] = []
    for frame in _frames(process):
        found += _built(frame, nfe, TUNED_SPACINGS, usual if frame.is_own else each_end)
        if not frame.is_own or isinstance(process, Flow):
            found += _built(frame, nfe, _FURTHER, usual)
    return tuple(found)


@lru_cache(maxsize=64)
def _published_with_noise(
    process: NoiseProcess, nfe: int, each_end: tuple[End, ...]
) -> tuple[PublishedSchedule, ...]:
    """All that draw noise, made once, on the spacings of tuned samplers; in one call none does."""
    wanted = [end for end in each_end if end.rule is EndRule.DENOISE or end.sigma is None]
    found: list[PublishedSchedule] = []
    for frame in _frames(process):
        ends = [end for end in wanted if end.sigma is None] if frame.is_own else wanted
        found += _built(frame, nfe, TUNED_SPACINGS, ends, NOISY_FAMILIES)
    return tuple(each for each in found if each.schedule.is_stochastic)


def published_solvers_of_before(process: NoiseProcess, nfe: int) -> list[PublishedSchedule]:
    """Those of the releases that built all of them on the process's own range: studies begun with
    these are to find them again.
    """
    return _built(_Frame(process, process), nfe, TUNED_SPACINGS, ENDS)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where schedules are built: on a process, whence they are retimed to the model's."""

    process: NoiseProcess
    target: NoiseProcess
    begin: float | None = None  # sigma / alpha of the first level; None: the process's own
    is_own: bool = False  # from the model's own noisy end, where others begin lower
    suffix: str = ""


def _frames(process: NoiseProcess) -> list[_Frame]:
    """From the noise of `BEGIN` first, so that one network has the same baselines under every
    process, then from the process's own noisy end.
    """
    if isinstance(process, Edm) or begin_time(process) is None:
        return [_Frame(process, process)]
    if process.alpha(noisy_time(process)) == 0.0:
        common = _Frame(Edm(sigma_max=BEGIN), process)
    else:
        common = _Frame(process, process, begin=BEGIN)
    own = _Frame(process, process, is_own=True, suffix=f", {FROM_NOISY_END}")
    return [common, own]


def _built(
    frame: _Frame,
    nfe: int,
    spacings: Sequence[Spacing],
    ends: Sequence[End],
    families: Families | None = None,
) -> list[PublishedSchedule]:
    process = frame.process
    families = _FAMILIES if families is None else families
    lowest = usual_end_time(process)
    lowest_ratio = process.sigma(lowest) / process.alpha(lowest)
    found: list[PublishedSchedule] = []
    for end in ends:
        if end.sigma is not None and end.sigma < lowest_ratio * (1.0 - _CLOSE):
            continue
        rule = end.rule.value + ("" if end.sigma is None else f" {end.sigma:g}") + frame.suffix
        is_lowest = end.sigma is None or end.sigma < lowest_ratio
        sigma = None if is_lowest else end.sigma
        own = end.model_copy(update={"begin": frame.begin, "sigma": sigma})
        for spacing in spacings:
            for name, make in families.items():
                try:
                    schedule = retime(make(process, nfe, spacing, own), frame.target)
                except InvalidSchedule:
                    continue  # this solver has no such number of calls, or no such end
                variant = f"{spacing.value}, {rule}"
                found.append(PublishedSchedule(solver=name, variant=variant, schedule=schedule))
    return found


def usual_variant(process: NoiseProcess) -> str:
    """The spacing and end at which solvers run on such a process unless something is known."""
    match process:
        case Edm():
            return f"{Spacing.KARRAS.value}, {EndRule.DENOISE.value}"
        case Flow():
            return f"{Spacing.FLOW.value}, {EndRule.DENOISE.value}, {FROM_NOISY_END}"
    return f"{Spacing.LOGSNR.value}, {EndRule.STOP.value}"


def baselines(
    process: NoiseProcess, nfe: int, *, ends: Sequence[End] | None = None
) -> dict[str, Schedule]:
    """The `published_solvers` without noise by their names."""
    return {each.name: each.schedule for each in published_solvers(process, nfe, ends=ends)}


FROM_NOISY_END = "from the noisy end"
"""The last part of a variant that begins at a process's own noisy end, beyond `BEGIN`."""

_CLOSE = 1e-3  # of the lowest level: an end so little below it is that level
TUNED_SPACINGS = (Spacing.LOGSNR, Spacing.UNIFORM, Spacing.QUADRATIC, Spacing.KARRAS)
"""Those on which solvers are built at all of `ENDS`; on the others at the usual two."""

_FURTHER = tuple(
    spacing for spacing in Spacing if spacing not in TUNED_SPACINGS
)  # at the usual ones

ENDS = (
    End(rule=EndRule.STOP),
    End(rule=EndRule.DENOISE),
    End(rule=EndRule.DENOISE, sigma=0.02),
    End(rule=EndRule.DENOISE, sigma=0.06),
    End(rule=EndRule.DENOISE, sigma=0.04),
    End(rule=EndRule.STOP, sigma=0.02),
    End(rule=EndRule.DENOISE, sigma=0.01),
)

_FAMILIES: Families = {
    "DDIM": lambda p, n, s, e: ddim(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(2M)": lambda p, n, s, e: dpmpp_2m(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(3M)": lambda p, n, s, e: dpmpp_3m(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(2S)": lambda p, n, s, e: dpmpp_2s(p, nfe=n, spacing=s, end=e),
    "DPM-Solver++(3S)": lambda p, n, s, e: dpmpp_3s(p, nfe=n, spacing=s, end=e),
    "UniPC-2 bh1": lambda p, n, s, e: unipc(p, nfe=n, order=2, variant="bh1", spacing=s, end=e),
    "UniPC-2 bh2": lambda p, n, s, e: unipc(p, nfe=n, order=2, variant="bh2", spacing=s, end=e),
    "UniPC-3 bh1": lambda p, n, s, e: unipc(p, nfe=n, order=3, variant="bh1", spacing=s, end=e),
    "UniPC-3 bh2": lambda p, n, s, e: unipc(p, nfe=n, order=3, variant="bh2", spacing=s, end=e),
    "DEIS tAB-3": lambda p, n, s, e: deis(p, nfe=n, order=3, spacing=s, end=e),
    "iPNDM-3": lambda p, n, s, e: ipndm(p, nfe=n, order=3, spacing=s, end=e),
    "DPM-Solver-2": lambda p, n, s, e: dpm2(p, nfe=n, spacing=s, end=e),
    "Heun": lambda p, n, s, e: heun(p, nfe=n, spacing=s, end=e),
}
