"""How much of the state after each step is fresh noise."""

from s3search.rules import level
from s3search.schedules.schedule import Schedule, Step
from s3search.solvers.plan import compile_plan


def noise_shares(schedule: Schedule) -> tuple[float, ...]:  # (n_steps,)
    """For each step the variance of what it draws, in units of its level's variance: 0 without
    noise, 1 where all of the level's noise is fresh, the square of a noise's scale included.

    Rules of their own noise are compiled, which takes a millisecond; a schedule that needs
    statistics counts the noise that is added to steps alone.
    """
    if not schedule.is_stochastic:
        return (0.0,) * schedule.n_steps
    if schedule.statistics is not None:
        return _added(schedule)
    plan = compile_plan(schedule)
    shares, row = [], int(schedule.start.noise is not None)
    for step in schedule.steps:
        row += 1
        sigma = plan.levels[row].sigma
        shares.append(float(plan.noise[row] / sigma) ** 2 if sigma > 0.0 else 0.0)
        row += step.corrector is not None
    return tuple(shares)


def _added(schedule: Schedule) -> tuple[float, ...]:
    levels = [level(schedule.process, t) for t in schedule.times]

    def share(i: int, step: Step) -> float:
        if step.noise is None:
            return 0.0
        start = step.starting_level(levels[: i + 1])
        return step.noise.share(schedule.process, start, levels[i + 1])

    return tuple(share(i, step) for i, step in enumerate(schedule.steps))
