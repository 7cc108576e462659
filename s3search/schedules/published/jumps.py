"""Gaussian teleportation (arXiv:2412.09726) before any solver."""

from s3search.schedules.jump import GaussianJump
from s3search.schedules.schedule import Schedule


def with_jump(schedule: Schedule, jump: GaussianJump) -> Schedule:
    """``schedule``, which starts below the noisy end, entered by ``jump`` instead of by noise.

    >>> times = grid(process, 10, "logsnr")
    >>> late = on_times(process, times[3:], dpm_multistep_steps(7, order=2))
    >>> schedule = with_jump(late, statistics.jump(times[0], n_modes=64))
    """
    start = schedule.start.model_copy(update={"jump": jump})
    return schedule.changed(start=start, provenance={})
