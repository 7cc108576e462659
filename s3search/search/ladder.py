"""The rungs below a whole measurement, cheapest first."""

from enum import StrEnum


class LadderRung(StrEnum):
    """What `s3` may use beside whole measurements; each can be switched off for comparison."""

    GAUSSIAN = "gaussian"  # the closed form, no network call
    MIXTURE = "mixture"  # a Gaussian mixture's exact denoiser, no network call
    RACE = "race"  # fewer images on the search's noise, the poor leave early
    PREDICTOR = "predictor"  # what the others say, learned from what was measured
    POLISH = "polish"  # gradient descent on the distance itself
