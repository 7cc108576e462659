"""Which schedules are nothing but a sampler of k-diffusion on a list of sigmas.

All of k-diffusion's samplers compute on y and s (sigma_table.py) as if alpha were 1, for flows
too.  So a schedule is one of them if its table is that of the sampler written as a schedule on the
same numbers with alpha = 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from s3search.errors import InvalidSchedule
from s3search.formats.exporters.sigma_table import SigmaTable, Weights, sigma_of, sigma_table
from s3search.processes import Flow, edm
from s3search.rules import Level
from s3search.schedules.published.k_diffusion import K_SAMPLERS, NOISY_K_SAMPLERS
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan

_TOLERANCE = 1e-9  # relative; another sampler differs in the first digits

_NAMES = ("euler", "heun", "dpmpp_2m", "dpm_2", "lms")  # that need no further argument


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSampler:
    """A sampler, by the name after ``sample_``, and the sigmas to give it."""

    name: str
    sigmas: tuple[float, ...]


def plain_sampler(schedule: Schedule, table: SigmaTable) -> PlainSampler | None:
    """The sampler that ``schedule``, whose table is ``table``, amounts to; None if there is none.

    A flow that ends before its clean end is none: ComfyUI divides what its samplers return by
    1 - s.  Nor is one with noise: its samplers have other forms for flows.
    """
    plan = compile_plan(schedule)
    ends_clean = schedule.times[-1] == schedule.process.clean_time
    if table.begin != 1.0:
        return None
    if table.guidance is not None or (isinstance(schedule.process, Flow) and not ends_clean):
        return None
    every = [sigma_of(plan, level_) for level_ in _levels(plan.levels)]
    known = {name: K_SAMPLERS[name] for name in _NAMES}
    if schedule.is_stochastic:
        known = {} if isinstance(schedule.process, Flow) else dict(NOISY_K_SAMPLERS)
    for name, sampler in known.items():
        sigmas = _thinned(every, ends_clean=ends_clean) if sampler.has_inner else every
        try:
            own = sigma_table(compile_plan(sampler.make(edm(), sigmas)))
        except InvalidSchedule:  # no such steps on these levels
            continue
        if _same(own, table):
            return PlainSampler(name=name, sigmas=tuple(sigmas))
    return None


def _levels(levels: Sequence[Level]) -> list[Level]:
    return [at for i, at in enumerate(levels) if not i or at != levels[i - 1]]


def _thinned(sigmas: Sequence[float], *, ends_clean: bool) -> list[float]:
    """Every second sigma of steps with an inner level, the clean end apart."""
    return [*sigmas[:-1:2], sigmas[-1]] if ends_clean else [*sigmas[::2]]


def _same(own: SigmaTable, table: SigmaTable) -> bool:
    if len(own.rows) != len(table.rows):
        return False
    for mine, other in zip(own.rows, table.rows, strict=True):
        if (mine.call is None) != (other.call is None) or other.constant:
            return False
        if (mine.noise is None) != (other.noise is None):
            return False
        if mine.noise and other.noise and not _near(mine.noise, other.noise):
            return False
        if mine.call and other.call and not _near(mine.call, other.call):
            return False
        if not (_same_weights(mine.p, other.p) and _same_weights(mine.q, other.q)):
            return False
    return True


def _same_weights(own: Weights, other: Weights) -> bool:
    size = max((abs(w) for _, w in (*own, *other)), default=0.0)
    mine, theirs = dict(own), dict(other)
    return all(
        abs(mine.get(k, 0.0) - theirs.get(k, 0.0)) <= _TOLERANCE * size for k in {*mine, *theirs}
    )


def _near(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(math.isclose(x, y, rel_tol=_TOLERANCE) for x, y in zip(a, b, strict=True))
