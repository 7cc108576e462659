"""How much noise a scheduler's pipeline starts from."""

import math

from s3search.formats.importers.diffusers.config import SchedulerConfig
from s3search.processes import Edm, Flow, NoiseProcess

_OF_K_DIFFUSION = (
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
)
"""Those that start from the highest sigma, unless the spacing is `leading`."""


def start_scale(name: str, config: SchedulerConfig, process: NoiseProcess, t: float) -> float:
    """The scale of the first state that ``init_noise_sigma`` makes, over the schedule's own, which
    is noise of scale sigma(t).

    Most schedulers start from unit noise whatever their first level is: a part in a thousand more
    than Stable Diffusion's noisiest level, and much more than its lower ones, which `leading`
    reaches in few steps.  EDM's start from sqrt(sigma^2 + 1).
    """
    sigma = process.sigma(t)
    if isinstance(process, Edm):
        return math.hypot(sigma, 1.0) / sigma
    takes_sigma = name in _OF_K_DIFFUSION and config.timestep_spacing != "leading"
    if isinstance(process, Flow) or not takes_sigma:
        return 1.0 / sigma
    return 1.0
