"""Times and steps of the schedulers whose steps add noise.

Each is a published sampler on the grid of its scheduler; a step to the clean end adds none.
"""

from collections.abc import Sequence

from s3search.errors import InvalidSchedule, nearest
from s3search.formats.importers.diffusers import grids
from s3search.formats.importers.diffusers.config import SchedulerConfig
from s3search.formats.importers.diffusers.run import (
    INEXACT,
    Made,
    SolverRun,
    check_flow,
    clean_sampler_times,
    discrete,
)
from s3search.processes import NoiseProcess
from s3search.rules import NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.published.raised import Method
from s3search.schedules.published.renoised import distilled_times, lcm_on, tcd_on
from s3search.schedules.published.stochastic import Variance, ancestral_on
from s3search.schedules.schedule import Step

_USUAL_TCD_ETA = 0.3  # of TCDScheduler.step
_LCM_SIGMA_DATA = 0.5  # in LCM's boundary conditions
_LEAST_SKIP = 1e-4  # what a state may count in LCM's last image and be left out
_FIRST_ORDER = published.ddim_steps(1)[0]
_RENOISED = _FIRST_ORDER.model_copy(update={"noise": StepNoise(kind=NoiseKind.GAMMA, amount=1.0)})
"""To the clean end and back up by fresh noise."""


def quiet_at_the_end(
    process: NoiseProcess, times: Sequence[float], steps: Sequence[Step]
) -> list[Step]:
    """The steps, of which one to the clean end adds no noise."""
    if times[-1] != process.clean_time:
        return [*steps]
    return [*steps[:-1], steps[-1].model_copy(update={"noise": None})]


def ddpm(run: SolverRun) -> Made:
    """DDPM's posterior steps from each of its indices to the next, the last to the clean end."""
    kind = run.config.variance_type or Variance.FIXED_SMALL.value
    if kind.startswith("learned") or kind == "fixed_large_log":
        why = "is an answer of the network" if kind[0] == "l" else "gives NaN in diffusers"
        raise InvalidSchedule(
            f"variance_type: {kind!r} {why}, which no schedule holds; use 'fixed_small' or "
            "'fixed_large'"
        )
    known = (Variance.FIXED_SMALL, Variance.FIXED_LARGE)
    if kind.removesuffix("_log") not in known:
        hint = nearest(kind, [own.value for own in known])
        raise InvalidSchedule(f"variance_type: {kind!r} is not known; {hint}")
    variance = Variance(kind.removesuffix("_log"))
    process = discrete(run)
    indices = grids.ddim_indices(run.config, run.n) if run.indices is None else [*run.indices]
    if variance is Variance.FIXED_LARGE and indices[-1] > 0:
        raise InvalidSchedule(
            f"variance_type: 'fixed_large' adds noise to the image after the last timestep, "
            f"{indices[-1]}; use 'fixed_small', or timesteps that end at 0"
        )
    times = [*map(float, indices), process.clean_time]
    return times, quiet_at_the_end(process, times, published.ddpm_steps(process, times, variance))


def euler_ancestral(run: SolverRun) -> Made:
    """Euler's ancestral steps in sigma / alpha."""
    times = clean_sampler_times(run)
    steps = published.euler_ancestral_steps(len(times) - 1)
    return times, quiet_at_the_end(run.process, times, steps)


def kdpm2_ancestral(run: SolverRun) -> Made:
    """DPM-Solver-2's ancestral steps: two calls each but for the last."""
    made = ancestral_on(run.process, clean_sampler_times(run), Method.DPM_2)
    return made.times, made.steps


def dpm_sde(run: SolverRun) -> Made:
    """DPM-Solver++ (SDE) with its inner call in the middle of each step but the last."""
    times = clean_sampler_times(run)
    return published.dpmpp_sde_on(run.process, times, 1.0, run.config.s_noise)


def lcm(run: SolverRun) -> Made:
    """To the clean end and back, on the timesteps of the distillation; with the boundary condition
    where it counts.
    """
    process, indices = discrete(run), _distilled(run)
    times = [*indices, process.clean_time]
    scaled = indices[-1] * run.config.timestep_scaling
    skip = _LCM_SIGMA_DATA**2 / (scaled**2 + _LCM_SIGMA_DATA**2)
    if skip > _LEAST_SKIP:
        exact = lcm_on(process, times, run.config.timestep_scaling)
        return exact.times, exact.steps
    return times, renoised_to_the_end(len(indices))


def tcd(run: SolverRun) -> Made:
    """Below each timestep, by as much as eta says, and back up; the last step ends at index 0."""
    eta = _USUAL_TCD_ETA if run.config.eta is None else run.config.eta
    made = tcd_on(discrete(run), [*_distilled(run), 0.0], eta)
    return made.times, made.steps


def _distilled(run: SolverRun) -> list[float]:
    """The timesteps of a distilled network."""
    if run.indices is not None:
        return [*map(float, run.indices)]
    return distilled_times(discrete(run), run.n, run.config.original_inference_steps)


def renoised_to_the_end(n: int) -> list[Step]:
    """n steps to the clean end of which all but the last are noised again."""
    return [*[_RENOISED] * (n - 1), _FIRST_ORDER]


def flow_lcm(run: SolverRun) -> Made:
    """To the clean end and back, on the levels of `flow_euler`."""
    check_flow(run)
    if run.config.scale_factors:
        raise InvalidSchedule(
            "scale_factors: a multi-scale sampler enlarges its states, which no schedule does"
        )
    times = grids.flow_euler_times(run.config, run.n, run.sigmas)
    return times, renoised_to_the_end(len(times) - 1)


def flow_ancestral(run: SolverRun) -> Made:
    """Euler's ancestral steps in a flow's time (LTX), on the levels of `flow_euler`, or between
    levels that are handed to it, the last one included.
    """
    check_flow(run)
    config = run.config
    eta = 1.0 if config.eta is None else config.eta
    if eta > 0.0 and config.s_noise == 0.0:
        raise InvalidSchedule(
            "s_noise: 0 leaves a state between two levels in diffusers; set eta to 0"
        )
    noise = None
    if eta > 0.0:
        noise = StepNoise(kind=NoiseKind.FLOW_ETA, amount=eta, scale=config.s_noise)
    times = [*run.sigmas] if run.sigmas else grids.flow_euler_times(config, run.n)
    step = _FIRST_ORDER.model_copy(update={"noise": noise})
    return times, quiet_at_the_end(run.process, times, [step] * (len(times) - 1))


def check_order(config: SchedulerConfig) -> str | None:
    """A note on the third-order steps of ``sde-`` types, None where they are not asked for; raises
    `InvalidSchedule` for the type that has none.
    """
    if not config.is_sde or config.solver_order < 3:
        return None
    if config.algorithm_type == "sde-dpmsolver":
        raise InvalidSchedule("solver_order: 'sde-dpmsolver' has orders 1 and 2, found 3")
    return (
        f"{INEXACT}: diffusers' third-order steps of 'sde-dpmsolver++' have one constant with the "
        "wrong sign; this schedule has the right one"
    )
