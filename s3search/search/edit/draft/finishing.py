"""From a draft back to a schedule."""

from dataclasses import replace

import numpy as np

from s3search.schedules.schedule import Schedule, Start, StartKind, StatisticsReference, needs_ems
from s3search.search.edit.draft.form import Draft, pick
from s3search.search.edit.draft.settling import settle, settle_end, settle_first
from s3search.search.space import Problem


def finished(problem: Problem, draft: Draft, nfe: int, rng: np.random.Generator) -> Schedule:
    """The schedule of ``nfe`` calls nearest to the draft that lies in the space.

    Uses up the draft.  Steps are removed or inserted at random places until the calls are right.
    """
    process = draft.process
    settle_first(problem, draft)
    settle_end(problem, draft)
    starts = problem.starts_at(draft.times[0])
    if draft.start not in starts:
        draft.start = starts[0]
    settle(problem, draft)
    while draft.n_calls > nfe:
        if len(draft.choices) == 1:
            draft.choices[0] = replace(draft.choices[0], corrector=None)
        else:
            draft.remove_step(rng)
        settle(problem, draft)
    while draft.n_calls < nfe:
        draft.insert_step(problem, rng)
        settle(problem, draft)
    if problem.listed:
        return _listed(problem, draft, rng)
    clean = (process.clean_time,) if draft.denoises else ()
    image = problem.mean_image if draft.start is StartKind.AVERAGE_X0 else None
    first = draft.first_shift
    network_time = None if first is None else first.time(process, draft.times[0])
    steps = draft.steps()
    named, scale = None, draft.noise_scale
    if problem.ems is not None and needs_ems(steps) is not None:
        named = StatisticsReference(digest=problem.ems.digest)
    return Schedule(
        process=process,
        times=(*draft.times, *clean),
        start=Start(
            kind=draft.start,
            image=image,
            network_time=network_time,
            jump=problem.jump if draft.jumps else None,
            noise_scale=scale if problem.runtime.begins_with(scale) else None,
        ),
        steps=steps,
        statistics=named,
    )


def _listed(problem: Problem, draft: Draft, rng: np.random.Generator) -> Schedule:
    """The levels of the draft with the steps of its own listed solver, or of one drawn."""
    possible = [own for own in problem.listed if own.fewest <= len(draft.times)]
    solver = draft.listed
    if solver not in possible:
        solver = pick(possible, rng)
    return solver.on(draft.process, draft.times)
