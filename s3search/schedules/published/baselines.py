"""All published solvers at all spacings and ends: what a search must beat, and starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s3search.errors import InvalidSchedule
from s3search.processes import Edm, Flow, NoiseProcess, usual_end_time
from s3search.schedules.published.deis import deis, ipndm
from s3search.schedules.published.dpm import ddim, dpmpp_2m, dpmpp_2s, dpmpp_3m, dpmpp_3s
from s3search.schedules.published.edm import heun
from s3search.schedules.published.runge_kutta import dpm2
from s3search.schedules.published.unipc import unipc
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule, Spacing


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
    process: NoiseProcess, nfe: int, *, ends: Sequence[End] | None = None
) -> list[PublishedSchedule]:
    """Every published solver here, at every spacing and end, that makes exactly ``nfe`` calls.

    The default ends are those among which tuned samplers were found best; an end below the level
    that the network was trained down to is left out.
    """
    lowest = usual_end_time(process)
    lowest_ratio = process.sigma(lowest) / process.alpha(lowest)
    found: list[PublishedSchedule] = []
    for end in ENDS if ends is None else ends:
        if end.sigma is not None and end.sigma < lowest_ratio:
            continue
        rule = end.rule.value + ("" if end.sigma is None else f" {end.sigma:g}")
        for spacing in Spacing:
            for name, make in _FAMILIES.items():
                try:
                    schedule = make(process, nfe, spacing, end)
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
            return f"{Spacing.UNIFORM.value}, {EndRule.DENOISE.value}"
    return f"{Spacing.LOGSNR.value}, {EndRule.STOP.value}"


def baselines(
    process: NoiseProcess, nfe: int, *, ends: Sequence[End] | None = None
) -> dict[str, Schedule]:
    """The `published_solvers` by their names."""
    return {each.name: each.schedule for each in published_solvers(process, nfe, ends=ends)}


ENDS = (
    End(rule=EndRule.STOP),
    End(rule=EndRule.DENOISE),
    End(rule=EndRule.DENOISE, sigma=0.02),
    End(rule=EndRule.DENOISE, sigma=0.06),
    End(rule=EndRule.DENOISE, sigma=0.04),
    End(rule=EndRule.STOP, sigma=0.02),
    End(rule=EndRule.DENOISE, sigma=0.01),
)

_FAMILIES: dict[str, Callable[[NoiseProcess, int, Spacing, End], Schedule]] = {
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
