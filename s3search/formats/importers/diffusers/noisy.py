"""Times and steps of the schedulers whose steps add noise.

Each is a published sampler on the grid of its scheduler; a step to the clean end adds none.
"""

import math
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
from s3search.processes import Flow, NoiseProcess
from s3search.rules import NoiseKind, Prediction, StepNoise
from s3search.schedules import published
from s3search.schedules.published.raised import Method
from s3search.schedules.published.renoised import distilled_times, lcm_on, tcd_on
from s3search.schedules.published.sa_solver import HIGHEST_ORDER
from s3search.schedules.published.stochastic import Variance, ancestral_on
from s3search.schedules.schedule import Step

_USUAL_TCD_ETA = 0.3  # of TCDScheduler.step
_LCM_SIGMA_DATA = 0.5  # in LCM's boundary conditions
_LOW_TAU, _HIGH_TAU = 200, 800  # timesteps between which SASolverScheduler adds noise
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


def sa_solver(run: SolverRun) -> Made:
    """SA-Solver with tau 1 between the timesteps 200 and 800, else 0, unless ``tau_func`` is a
    number; it ends at the lowest level of training, as there.
    """
    config = run.config
    known = {"data_prediction": Prediction.DATA, "noise_prediction": Prediction.NOISE}
    if config.algorithm_type not in known:
        raise InvalidSchedule(
            f"algorithm_type: {config.algorithm_type!r} is not known; "
            f"{nearest(config.algorithm_type, known)}"
        )
    highest = max(config.predictor_order, config.corrector_order)
    if highest > HIGHEST_ORDER:
        raise InvalidSchedule(f"predictor_order, corrector_order: 1 to 4, found {highest}")
    times = _sa_times(run)
    n, lowers = len(times) - 1, config.lower_order_final
    steps = []
    for i, t in enumerate(times[:-1]):
        tau = _tau(run, t)
        predictor = min(config.predictor_order, i + 1, n - i if lowers else i + 1)
        corrector = min(config.corrector_order, i + 2, n - i + 1 if lowers else i + 2)
        orders = (predictor, corrector if i < n - 1 else 0)
        steps.append(published.sa_step(orders, tau, prediction=known[config.algorithm_type]))
    return times, steps


def _tau(run: SolverRun, t: float) -> float:
    """How much noise SA-Solver adds in a step that begins at time ``t``."""
    constant = run.config.tau_func
    if constant is None:
        return float(_LOW_TAU <= _whole_time(run, t) <= _HIGH_TAU)
    if type(constant) not in (int, float) or not 0.0 <= constant < math.inf:
        raise InvalidSchedule(
            f"tau_func: a config holds no function, found {constant!r}; give the number of a "
            "constant one, or leave it out"
        )
    return float(constant)


def _sa_times(run: SolverRun) -> list[float]:
    """n + 1 times, of which the last two are one where levels are chosen, or of a flow."""
    if isinstance(run.process, Flow):
        times = grids.flow_multistep_times(run.config, run.n, is_unipc=False, sigmas=run.sigmas)
        return [*times[:-1], times[-2]]
    config = run.config.model_copy(update={"final_sigmas_type": "sigma_min"})
    return grids.multistep_times(config, discrete(run), run.n, run.indices)


def _whole_time(run: SolverRun, t: float) -> int:
    """The whole timestep by which the scheduler knows a level."""
    config = run.config
    if isinstance(run.process, Flow):
        return int(t * config.num_train_timesteps)
    is_cut = config.use_exponential_sigmas or config.use_beta_sigmas
    return int(t) if is_cut else round(t)


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
