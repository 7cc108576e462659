"""A schedule with another number of network calls, and one for another range of levels.

The levels of n steps are a curve of lam over the step fraction i / n; m steps take their levels
from it, linear in lam between the old ones, as Align Your Steps resamples its own
(arXiv:2404.14507, log-linear interpolation).  Each new step makes the choices of the old step
whose interval holds its middle.  What the history is too short for is done as the nearest earlier
old step did it: the old schedule's own rising orders.

The first and the last level, the start and a last step to the clean end are kept exactly; all else
is an approximation, and ``notes`` say which.  Numbers of a free step belong to its own levels, so
free steps are not moved.  Noise goes with its step: an amount is kept, a time from which it is
added stays as far below the level, in lam, as it was.  Levels that a restart raises are no curve.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, usual_end_time
from s3search.rules import Free, NoiseKind, StepNoise, level
from s3search.schedules.schedule import (
    CorrectorKind,
    ModelPatch,
    Schedule,
    Step,
    n_calls,
    needs_ems,
)
from s3search.schedules.spacing import noisy_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretched:
    """What became of a schedule, and a sentence for each approximation."""

    schedule: Schedule
    notes: tuple[str, ...]


def with_nfe(schedule: Schedule, nfe: int) -> Stretched:
    """``schedule`` with ``nfe`` network calls; itself, without notes, where it makes so many.

    Raises `InvalidSchedule` for free steps and where no number of steps makes so many calls.
    """
    if nfe == schedule.nfe:
        return Stretched(schedule=schedule, notes=())
    _refuse_free(schedule, f"for {nfe} calls")
    _refuse_rises(schedule, f"for {nfe} calls")
    for n in range(1, nfe + 2):
        made = _with_steps(schedule, n, nfe)
        if made is not None:
            return made
    raise InvalidSchedule(
        f"--nfe: no number of this schedule's steps makes {nfe} network calls (it makes "
        f"{schedule.nfe} in {schedule.n_steps} steps); ask for more"
    )


def levels_with(schedule: Schedule, n: int) -> tuple[float, ...]:
    """n + 1 times along the curve of the schedule's levels; raises `InvalidSchedule` where there
    is no curve.
    """
    process, body = schedule.process, _body(schedule)
    is_clean = len(body) < len(schedule.times)
    n_body = n - is_clean
    if n_body < 0 or (n_body == 0) != (len(body) == 1):
        raise InvalidSchedule(
            f"--nfe: {n} steps cannot lie on the levels of {schedule.n_steps}; "
            "ask for more calls, or take a published solver"
        )
    end = (process.clean_time,) if is_clean else ()
    inner = [_between(process, body, i / n_body) for i in range(1, n_body)]
    last = body[-1:] if n_body else ()
    return (body[0], *inner, *last, *end)


def fitted(schedule: Schedule, process: NoiseProcess) -> Stretched:
    """``schedule``, on its own process, with its first and last levels among those of ``process``,
    and the others moved linearly in lam between them.
    """
    body = _body(schedule)
    lams = [schedule.process.lam(t) for t in body]
    low = max(lams[0], process.lam(noisy_time(process)))
    high = lams[-1]
    if high < math.inf and process.check_time(process.time_of_lam(high)) is not None:
        high = process.lam(usual_end_time(process))
    if (low, high) == (lams[0], lams[-1]):
        return Stretched(schedule=schedule, notes=())
    _refuse_free(schedule, f"for the levels of {process.type!r}")
    _refuse_rises(schedule, f"for the levels of {process.type!r}")
    if not low < high or len(body) < 2:
        raise InvalidSchedule(
            f"--fit: the levels of this schedule and of {process.type!r} do not overlap; "
            "use a schedule made for this model"
        )
    first = lams[0] if math.isfinite(lams[0]) else min(low, lams[1])
    slope = (high - low) / (lams[-1] - first)
    moved = [low, *(low + slope * (lam - first) for lam in lams[1:-1]), high]
    times = tuple(schedule.process.time_of_lam(lam) for lam in moved)
    old, new = (tuple(math.exp(-lam) for lam in (own[0], own[-1])) for own in (lams, moved))
    notes = [
        f"approximated: sigma / alpha from {new[0]:.4g} to {new[1]:.4g} instead of {old[0]:.4g} "
        f"to {old[1]:.4g}, the levels between moved linearly in log SNR"
    ]
    inner = schedule.steps[: len(times) - 1]
    shifted = [_with_times(schedule, step, i, times[i]) for i, step in enumerate(inner, start=1)]
    start = schedule.start
    if start.optional_fields:
        start = start.model_copy(update=dict.fromkeys(start.optional_fields))
        notes.append("approximated: the first call's own time, noise and jump are left out")
    found = schedule.changed(
        times=(*times, *schedule.times[len(body) :]),
        start=start,
        steps=(*shifted, *schedule.steps[len(shifted) :]),
        provenance={},
    )
    return Stretched(schedule=found, notes=tuple(notes))


def _with_steps(schedule: Schedule, n: int, nfe: int) -> Stretched | None:
    """The schedule of n steps with ``nfe`` calls; None where it makes fewer, or has no levels."""
    try:
        times = levels_with(schedule, n)
    except InvalidSchedule:
        return None
    sources = _sources(schedule, n)
    steps: list[Step] = []
    lowered = 0
    for i, source in enumerate(sources):
        step, used = _possible(schedule, times, steps, source)
        lowered += used != source
        steps.append(_with_times(schedule, step, used + 1, times[i + 1]))
    if steps[-1].corrector is None:  # and so the network is not called at the end
        steps[-1] = steps[-1].model_copy(update={"network_time": None})
    given_up = _give_up_calls(schedule, steps, nfe)
    if given_up is None:
        return None
    patch, named = schedule.model_patch, schedule.statistics
    if patch is not None:
        patch = _patch(patch, sources, nfe)
    made = schedule.changed(
        times=times,
        steps=steps,
        model_patch=patch,
        statistics=named if needs_ems(steps) is not None else None,
        provenance={},
    )
    return Stretched(schedule=made, notes=tuple(_notes(schedule, made, lowered, given_up)))


def _sources(schedule: Schedule, n: int) -> list[int]:
    """The old step whose choices each new step makes; a step to the clean end stays the last."""
    is_clean = schedule.times[-1] == schedule.process.clean_time
    old, new = schedule.n_steps - is_clean, n - is_clean
    found = [int((j + 0.5) * old / new) for j in range(new)]
    return [*found, schedule.n_steps - 1] if is_clean else found


def _possible(
    schedule: Schedule, times: Sequence[float], before: Sequence[Step], source: int
) -> tuple[Step, int]:
    """The choices of old step ``source`` where the history allows them, else of the nearest
    earlier one, and which it was.
    """
    i = len(before)
    levels = [level(schedule.process, t) for t in times]
    past, to, is_last = levels[: i + 1], levels[i + 1], i == len(times) - 2
    for used in range(source, -1, -1):
        step = _with_times(schedule, schedule.steps[used], used + 1, times[i + 1])
        down = step.rule_target(schedule.process, past, to) if to.sigma > 0.0 else to
        problem = step.predictor.problem(past, down)
        if problem is None and step.compensation is not None:
            problem = step.compensation.problem(past)
        corrector = step.corrector
        if problem is None and corrector is not None:
            if to.sigma == 0.0:
                corrector = None
            elif corrector.rule.problem([*past, to], down) is not None:
                continue
            elif is_last and corrector.kind is CorrectorKind.IMPLICIT:
                corrector = corrector.model_copy(update={"kind": CorrectorKind.PSEUDO})
        if problem is None:
            own = schedule.steps[used]
            noise = own.noise if to.sigma > 0.0 else None
            return own.model_copy(update={"corrector": corrector, "noise": noise}), used
    raise InvalidSchedule(
        f"steps[{source}]: neither it nor a step before it can follow {i + 1} points; "
        "take a published solver on these levels (--solver)"
    )


def _with_times(schedule: Schedule, step: Step, point: int, t: float) -> Step:
    """``step`` to ``t``, its own times, of the network and of noise, as far from that, in lam, as
    from the old ``point``.
    """
    process, at = schedule.process, schedule.times[point]
    update: dict[str, float | StepNoise | None] = {}
    if step.network_time is not None:
        shifted = process.time_of_lam(
            process.lam(t) + process.lam(step.network_time) - process.lam(at)
        )
        possible = process.check_time(shifted) is None
        update["network_time"] = shifted if possible else None
    noise = step.noise
    if noise is not None and noise.kind is NoiseKind.TIME and process.sigma(t) > 0.0:
        update["noise"] = noise.model_copy(
            update={"amount": _as_far_below(process, noise.amount, at, t)}
        )
    return step.model_copy(update=update) if update else step


def _as_far_below(process: NoiseProcess, time: float, at: float, t: float) -> float:
    """The time below ``t`` that has the ratio of sigma / alpha to it that ``time`` has to ``at``;
    the cleanest that there is where there is none.
    """
    lam = process.lam(t) + process.lam(time) - process.lam(at)
    found = process.time_of_lam(lam) if math.isfinite(lam) else process.clean_time
    return found if process.check_time(found) is None else process.clean_time


def _give_up_calls(schedule: Schedule, steps: list[Step], nfe: int) -> int | None:
    """Makes implicit correctors pseudo, from the last on, until the calls are right, in place;
    how many, None where there are too few calls or no such correctors.
    """
    left, given_up = n_calls(steps, schedule.start), 0
    for i in range(len(steps) - 1, -1, -1):
        corrector = steps[i].corrector
        if left <= nfe or corrector is None or corrector.kind is not CorrectorKind.IMPLICIT:
            continue
        pseudo = corrector.model_copy(update={"kind": CorrectorKind.PSEUDO})
        steps[i] = steps[i].model_copy(update={"corrector": pseudo})
        left, given_up = left - 1, given_up + 1
    return given_up if left == nfe else None


def _patch(patch: ModelPatch, sources: Sequence[int], nfe: int) -> ModelPatch:
    """Layers as the step's own old one, guidance as the old call at the same fraction."""
    layers, scales = patch.skip_layers, patch.guidance_scale
    if layers is not None:
        layers = tuple(layers[source] for source in sources)
    if scales is not None:
        scales = tuple(scales[int((j + 0.5) * len(scales) / nfe)] for j in range(nfe))
    return patch.model_copy(update={"skip_layers": layers, "guidance_scale": scales})


def _notes(old: Schedule, new: Schedule, lowered: int, given_up: int) -> list[str]:
    notes = [
        f"approximated: the levels of {new.n_steps} steps are interpolated linearly in log SNR "
        f"along those of {old.n_steps}; the first and the last one are exact",
        "approximated: each step makes the choices of the old step at the same fraction",
    ]
    if lowered:
        notes.append(
            f"approximated: {lowered} of them have too short a history for that and make the "
            "choices of an earlier one"
        )
    if given_up:
        notes.append(
            f"approximated: {given_up} correctors keep their call instead of calling again, to "
            f"make exactly {new.nfe} calls"
        )
    if any(step.compensation is not None for step in new.steps):
        notes.append("approximated: compensations keep the numbers fitted to the old steps")
    if new.model_patch is not None:
        notes.append("approximated: the model patch is that of the old call at the same fraction")
    return notes


def _refuse_free(schedule: Schedule, why: str) -> None:
    for i, step in enumerate(schedule.steps):
        rules = (step.predictor, None if step.corrector is None else step.corrector.rule)
        if any(isinstance(rule, Free) for rule in rules):
            raise InvalidSchedule(
                f"steps[{i}]: a free step is a row of numbers made for its own levels, which "
                f"cannot be interpolated {why}; keep the levels and take a published solver on "
                "them (--solver unipc), or search again"
            )


def _refuse_rises(schedule: Schedule, why: str) -> None:
    for i, (before, t) in enumerate(pairwise(schedule.times)):
        if t > before:
            raise InvalidSchedule(
                f"times[{i + 1}]: a restart raises it from {before} to {t}, and levels that rise "
                f"cannot be interpolated {why}; take a published sampler with restarts"
            )


def _body(schedule: Schedule) -> tuple[float, ...]:
    """The distinct times but a clean end."""
    own = [t for t in schedule.times if t != schedule.process.clean_time]
    return tuple(t for i, t in enumerate(own) if i == 0 or t < own[i - 1])


def _between(process: NoiseProcess, body: Sequence[float], fraction: float) -> float:
    """The time at a step fraction: linear in lam, from pure noise on in the time itself."""
    place = fraction * (len(body) - 1)
    i = min(int(place), len(body) - 2)
    if math.isfinite(process.lam(body[i])):
        lams = [process.lam(t) for t in (body[i], body[i + 1])]
        return process.time_of_lam(float(np.interp(place - i, (0.0, 1.0), lams)))
    return float(np.interp(place - i, (0.0, 1.0), (body[i], body[i + 1])))
