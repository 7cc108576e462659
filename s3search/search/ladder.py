"""The rungs below a whole measurement, cheapest first."""

from enum import StrEnum


class LadderRung(StrEnum):
    """What `s3` may use beside whole measurements; each can be switched off for comparison."""

    GAUSSIAN = "gaussian"  # the closed form, no network call
    MIXTURE = "mixture"  # a Gaussian mixture's exact denoiser, no network call
    TRAJECTORY = "trajectory"  # the distance to a fine solve of a few noises
    RACE = "race"  # fewer images on the search's noise, the poor leave early
    PREDICTOR = "predictor"  # what the others say, learned from what was measured
    POLISH = "polish"  # gradient descent on the metric itself


DEFAULT_LADDER = tuple(rung for rung in LadderRung if rung is not LadderRung.TRAJECTORY)
"""All but the trajectory, which a study switches on where few images say little of the metric."""

PROXIES = (LadderRung.GAUSSIAN, LadderRung.MIXTURE, LadderRung.TRAJECTORY)
"""Those that score schedules on a scale of their own."""
