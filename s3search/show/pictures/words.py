"""Schedules in words: what happens at each time, and with which rule the step goes on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from s3search.rules import Level, level
from s3search.schedules.describing import solver_name, step_words
from s3search.schedules.layers import skipped_by_call
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLine:
    """A time of a schedule in words: its noise, the network's calls and the step that follows."""

    index: int
    t: float  # in the process's unit
    lam: float  # log(alpha / sigma), infinite for pure noise and at the clean end
    ratio: float  # sigma / alpha, inf for pure noise
    n_calls: int  # two with an implicit corrector
    network: str  # how these calls differ from plain ones: guidance, blocks left out
    step: str  # empty at the last time


def time_lines(schedule: Schedule) -> list[TimeLine]:
    """One line for each of the n_steps + 1 times."""
    lines, scales, blocks = [], guidance(schedule), skipped(schedule)
    for i, t in enumerate(schedule.times):
        at = level(schedule.process, t)
        lines.append(
            TimeLine(
                index=i,
                t=t,
                lam=at.lam,
                ratio=ratio(at),
                n_calls=n_calls(schedule, i),
                network=_network(scales[i], blocks[i]),
                step=step_words(schedule.steps[i], schedule.process)
                if i < schedule.n_steps
                else "",
            )
        )
    return lines


def headline(schedule: Schedule) -> str:
    """What holds for the whole schedule."""
    start, patch = schedule.start, schedule.model_patch
    solver = solver_name(schedule)
    named = "" if solver is None else f"{solver}, "
    parts = [
        f"{schedule.process.type} schedule {schedule.id[:8]}: {named}{schedule.n_steps} steps",
        f"NFE {schedule.nfe}",
        f"start {start.kind.value}" + ("" if start.jump is None else " after a Gaussian jump"),
    ]
    if start.noise_scale is not None:
        parts.append(f"begun with noise times {start.noise_scale:.5g}")
    if start.noise is not None:
        parts.append(f"noise {start.noise.in_words} added to the first state")
    if start.network_time is not None:
        parts.append(f"network told {start.network_time:.5g} at first")
    if patch is not None and patch.skip_scale is not None:
        scales = " ".join(f"{scale:.3g}" for scale in patch.skip_scale)
        parts.append(f"skip connections scaled by {scales}")
    if schedule.statistics is not None:
        parts.append(f"EMS statistics {schedule.statistics.digest[:8]}")
    if schedule.tied_to:
        parts.append("tied to " + " and ".join(schedule.tied_to))
    return ", ".join(parts)


def n_calls(schedule: Schedule, i: int) -> int:
    """How many calls of the network time i has: none, one, or two with an implicit corrector."""
    if i == 0:
        return int(schedule.start.kind is StartKind.NETWORK)
    corrector = schedule.steps[i - 1].corrector
    if i == schedule.n_steps and corrector is None:
        return 0
    return 2 if corrector is not None and corrector.kind is CorrectorKind.IMPLICIT else 1


def guidance(schedule: Schedule) -> list[tuple[float, ...]]:
    """Guidance scales of the calls at each time; none where the model's own holds."""
    patch = schedule.model_patch
    scales = None if patch is None else patch.guidance_scale
    return _at_times(schedule, scales or ())


def skipped(schedule: Schedule) -> list[tuple[tuple[int, ...], ...]]:
    """Blocks that each call at each time leaves out."""
    return _at_times(schedule, skipped_by_call(schedule))


def ratio(at: Level) -> float:
    """sigma / alpha, inf for pure noise."""
    return at.sigma / at.alpha if at.alpha else math.inf


def _at_times(schedule: Schedule, of_calls: Sequence[_T]) -> list[tuple[_T, ...]]:
    """What belongs to the calls, by the times at which they are made."""
    left, found = iter(of_calls), []
    for i in range(len(schedule.times)):
        found.append(tuple(islice(left, n_calls(schedule, i))))
    return found


def _network(scales: tuple[float, ...], skipped: tuple[tuple[int, ...], ...]) -> str:
    """Of the calls at one time, usually a single one."""
    parts = []
    if scales:
        parts.append(f"guidance {', '.join(f'{scale:.4g}' for scale in scales)}")
    parts += [f"without {_numbers(blocks)}" for blocks in skipped if blocks]
    return ", ".join(parts)


def _numbers(blocks: tuple[int, ...]) -> str:
    """1 2 5-9."""
    runs: list[list[int]] = []
    for block in sorted(blocks):
        if runs and block == runs[-1][-1] + 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return " ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else " ".join(map(str, run)) for run in runs
    )
