"""What a pipeline does beside its scheduler's steps: how much noise it starts from, and which
times it tells its network.
"""

import math
from collections.abc import Sequence

from s3search.formats.importers.diffusers.config import SchedulerConfig
from s3search.processes import Edm, Flow, NoiseProcess

_OF_K_DIFFUSION = (
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
"""Those that start from the highest sigma, unless the spacing is `leading`."""


def noise_scale_of(name: str, config: SchedulerConfig, process: NoiseProcess, t: float) -> float:
    """The scale of the first state that ``init_noise_sigma`` makes, at the first level's time.

    Most schedulers start from unit noise whatever their first level is: a part in a thousand more
    than Stable Diffusion's noisiest level, and much more than its lower ones, which `leading`
    reaches in few steps.  EDM's start from sqrt(sigma_max^2 + 1).
    """
    sigma = process.sigma(t)
    if isinstance(process, Edm):
        return math.hypot(process.sigma_max, 1.0)
    takes_sigma = name in _OF_K_DIFFUSION and config.timestep_spacing != "leading"
    return sigma if takes_sigma and not isinstance(process, Flow) else 1.0


_AT_AN_INDEX = 1e-2  # timesteps

_TELLS_WHOLE_TIMES = (
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
)
"""Those whose timesteps are whole numbers wherever their levels lie."""


def network_times_off(
    name: str, config: SchedulerConfig, process: NoiseProcess, times: Sequence[float]
) -> float:
    """How far the whole timesteps that the scheduler tells the network lie from those of its
    levels, at most, in training timesteps.
    """
    if name not in _TELLS_WHOLE_TIMES:
        return 0.0
    if isinstance(process, Flow):
        own = [t * config.num_train_timesteps for t in times[:-1]]
        return max(t - math.floor(t) for t in own)
    own = [*times[:-1]]
    is_cut = config.use_exponential_sigmas or config.use_beta_sigmas
    if not is_cut:
        return max(abs(t - round(t)) for t in own)
    # a level at an index is looked up in float32 before the cut, and may come to the one below
    return max(1.0 if abs(t - round(t)) < _AT_AN_INDEX else t - math.floor(t) for t in own)
