"""Times and steps of each scheduler; `reader.py` says what they have in common."""

import math
from collections.abc import Sequence
from itertools import pairwise

from s3search.errors import InvalidSchedule, nearest
from s3search.formats.importers.diffusers import grids
from s3search.formats.importers.diffusers.config import SDE, SchedulerConfig
from s3search.formats.importers.diffusers.noisy import (
    check_order,
    quiet_at_the_end,
    renoised_to_the_end,
)
from s3search.formats.importers.diffusers.run import (
    INEXACT,
    Made,
    SolverRun,
    check_flow,
    clean_sampler_times,
    discrete,
)
from s3search.processes import Flow
from s3search.rules import (
    Adams,
    AnyRule,
    Derivative,
    Prediction,
    Relaxation,
    RelaxationKind,
    SdeTaylor,
    Taylor,
)
from s3search.schedules import published
from s3search.schedules.published.sde import SdeVariant
from s3search.schedules.schedule import Step
from s3search.schedules.spacing import time_of_ratio

_TAKES_NO_SIGMAS = (
    "the pipeline passes sigmas, which this scheduler's set_timesteps does not take: diffusers "
    "cannot run them together"
)
_PRK_STEPS = 3  # that PNDM makes by Runge-Kutta
_SHORT_RUN = 15  # below this many steps diffusers lowers the order at the end
_HALF = Relaxation(kind=RelaxationKind.DPMSOLVER_2)


def ddim(run: SolverRun) -> Made:
    """First order on its own indices; a note where its steps do not lead from one to the next."""
    config = run.config
    indices = grids.ddim_indices(config, run.n) if run.indices is None else [*run.indices]
    stride = config.num_train_timesteps // len(indices)
    times = [*map(float, indices), _end_of_strides(run, indices, stride)]
    steps = published.ddim_steps(len(indices), config.eta or 0.0)
    return times, quiet_at_the_end(run.process, times, steps)


def _end_of_strides(run: SolverRun, indices: Sequence[int], stride: int) -> float:
    """Where the last step ends if every step aims at t - stride; a note where they miss the next
    timestep.
    """
    targets = [index - stride for index in indices]
    miss = max((abs(a - b) for a, b in zip(targets, indices[1:], strict=False)), default=0)
    if miss:
        run.notes.append(
            f"{INEXACT}: the scheduler aims each step at t - {stride}, up to {miss} from its next "
            "timestep; this schedule goes to that timestep"
        )
    if targets[-1] >= 0:
        return float(targets[-1])
    return discrete(run).clean_time if run.config.set_alpha_to_one else 0.0


def dpm_multistep(run: SolverRun) -> Made:
    """DPM-Solver(++) from the history."""
    times = _multistep_times(run, is_unipc=False)
    return times, _multistep_steps(run, len(times) - 1)


def edm_dpm(run: SolverRun) -> Made:
    """DPM-Solver++ from the history, on EDM's sigmas."""
    times = grids.edm_times(run.config, run.n)
    return times, _multistep_steps(run, len(times) - 1)


def _multistep_steps(run: SolverRun, n: int) -> list[Step]:
    config = run.config
    if config.solver_order > 3:
        raise InvalidSchedule(f"solver_order: 1 to 3, found {config.solver_order}")
    _note_order(run)
    lowers = config.lower_order_final and n < _SHORT_RUN
    orders = [_multistep_order(config, i, n, lowers=lowers) for i in range(n)]
    if config.euler_at_final or config.ends_clean:
        orders[-1] = 1
    steps = [_multistep_step(config, order) for order in orders]
    return [*steps[:-1], *published.ddim_steps(1)] if config.ends_clean else steps


def _note_order(run: SolverRun) -> None:
    note = check_order(run.config)
    if note is not None:
        run.notes.append(note)


def _multistep_step(config: SchedulerConfig, order: int) -> Step:
    """The step after so many points."""
    prediction, halved = _prediction(config), _halves(config)
    if config.is_sde:
        variant = SdeVariant.MIDPOINT if halved else SdeVariant.HEUN
        made = published.sde_steps(order, order=order, prediction=prediction, variant=variant)
    else:
        made = published.dpm_multistep_steps(
            order,
            order=order,
            prediction=prediction,
            taylor=not halved,
            lower_order_final=False,
        )
    return made[-1]


def _multistep_order(config: SchedulerConfig, i: int, n: int, *, lowers: bool) -> int:
    """Of step i of n: limited by the history and, where the config lowers it, by what is left."""
    return min(config.solver_order, i + 1, n - i if lowers else i + 1)


def dpm_singlestep(run: SolverRun) -> Made:
    """DPM-Solver(++) in updates of rising order from one start."""
    config = run.config
    if config.timestep_spacing != "linspace":  # it knows no other
        config = config.model_copy(update={"timestep_spacing": "linspace"})
    prediction, halved = _prediction(config), _halves(config)
    if config.algorithm_type == "sde-dpmsolver":
        raise InvalidSchedule("algorithm_type: 'sde-dpmsolver' has no singlestep form")
    _note_order(run)
    times = _multistep_times(
        SolverRun(config=config, process=run.process, n=run.n, indices=run.indices), is_unipc=False
    )
    orders = _singlestep_orders(config, len(times) - 1)
    steps = [_singlestep(prediction, order, halved=halved) for order in orders]
    if config.is_sde:
        noisy = [Step(predictor=_with_noise(step.predictor)) for step in steps]
        steps = [*noisy[:-1], steps[-1]] if config.ends_clean else noisy
    return times, steps


def _with_noise(rule: AnyRule) -> SdeTaylor:
    """The step of the reverse SDE with the estimates of a Taylor step."""
    assert isinstance(rule, Taylor)
    return SdeTaylor(
        prediction=rule.prediction,
        order=rule.order,
        start=rule.start,
        derivatives=rule.derivatives,
    )


def _singlestep_orders(config: SchedulerConfig, n: int) -> list[int]:
    """Orders 1, 2, ... to the highest, in turn; the last run of them is cut to end the image."""
    order = config.solver_order
    if order > 3:
        raise InvalidSchedule(f"solver_order: 1 to 3, found {order}")
    # diffusers switches lower_order_final on where it cannot do without
    lowers = config.lower_order_final or n % order != 0 or config.ends_clean
    orders = [i % order + 1 for i in range(n)]
    if (lowers and n % order == 0) or config.ends_clean:
        orders[-1] = 1
    return orders


def _singlestep(prediction: Prediction, order: int, *, halved: bool) -> Step:
    """The step that ends a singlestep update of this order; it starts where the update began."""
    if order == 1:
        return Step(predictor=Taylor(prediction=prediction, order=1))
    if order == 3 and not halved:
        both = Derivative(points=(-2, -1))
        return Step(
            predictor=Taylor(prediction=prediction, order=3, start=-3, derivatives=(both, both))
        )
    relaxation = _HALF if order == 2 and halved else None
    newest = Derivative(points=(-1,), relaxation=relaxation)
    rule = Taylor(prediction=prediction, order=2, start=-order, derivatives=(newest,))
    return Step(predictor=rule)


def unipc(run: SolverRun) -> Made:
    """UniPC, corrected wherever the config leaves it on."""
    config = run.config
    _halves(config)  # the types of other solvers count as bh2
    if config.solver_p is not None:
        raise InvalidSchedule("solver_p: UniPC with another solver as predictor is not supported")
    if config.ends_clean and config.solver_type == "bh1":
        raise InvalidSchedule(
            "solver_type: 'bh1' with a final sigma of 0 gives NaN in diffusers; "
            "use 'bh2', or final_sigmas_type 'sigma_min'"
        )
    times = _multistep_times(run, is_unipc=True)
    n = len(times) - 1
    if config.ends_clean and not config.lower_order_final and config.solver_order > 1 and n > 1:
        raise InvalidSchedule(
            "lower_order_final: false with a final sigma of 0 has no last step above order 1"
        )
    steps = published.unipc_steps(
        n,
        order=config.solver_order,
        variant=config.solver_type if config.solver_type in ("bh1", "bh2") else "bh2",
        prediction=Prediction.DATA if config.predict_x0 else Prediction.NOISE,
        lower_order_final=config.lower_order_final,
    )
    disabled = set(config.disable_corrector)
    return times, [
        Step(predictor=step.predictor) if i in disabled else step for i, step in enumerate(steps)
    ]


def deis(run: SolverRun) -> Made:
    """DEIS with polynomials in log(sigma / alpha) = -lam.

    Integrated over sigma / alpha they are the Taylor steps of the noise prediction whose
    derivatives are all taken through the same points.
    """
    config = run.config.model_copy(update={"final_sigmas_type": "sigma_min"})
    if config.solver_order > 3:
        raise InvalidSchedule(f"solver_order: 1 to 3, found {config.solver_order}")
    times = grids.multistep_times(config, discrete(run), run.n, run.indices)
    n = len(times) - 1
    lowers = config.lower_order_final and n < _SHORT_RUN
    return times, [_log_rho(_multistep_order(config, i, n, lowers=lowers)) for i in range(n)]


def _log_rho(order: int) -> Step:
    through = Derivative(points=tuple(range(-order, -1))) if order > 1 else None
    derivatives = () if through is None else (through,) * (order - 1)
    rule = Taylor(prediction=Prediction.NOISE, order=order, derivatives=derivatives)
    return Step(predictor=rule)


def pndm(run: SolverRun) -> Made:
    """PLMS, or Runge-Kutta first with an inner time in each of the first three steps."""
    config = run.config
    if config.prediction_type != "epsilon":
        raise InvalidSchedule(
            f"prediction_type: PNDM extrapolates the network's {config.prediction_type!r}; "
            "only 'epsilon' is supported"
        )
    if run.indices is not None:
        raise InvalidSchedule("PNDMScheduler: it takes no timesteps of the user's")
    indices = grids.ddim_indices(config, run.n)
    stride = config.num_train_timesteps // run.n
    times = [*map(float, indices), _end_of_strides(run, indices, stride)]
    n_moving = run.n - (times[-1] == times[-2])
    still = published.euler_steps(run.n - n_moving)
    if config.skip_prk_steps and run.n == 1:
        return times, published.euler_steps(1)
    if config.skip_prk_steps:
        return times, [*published.plms_steps(n_moving), *still]
    if run.n < _PRK_STEPS + 1:
        raise InvalidSchedule(
            f"skip_prk_steps: false needs at least {_PRK_STEPS + 1} steps, found {run.n}"
        )
    half = stride // 2
    if 2 * half != stride:
        run.notes.append(
            f"{INEXACT}: the Runge-Kutta steps of PNDM have halves of {half}, which miss the "
            f"stride {stride} by 1; this schedule goes to the next timestep"
        )
    inner = [t - half for t in times[:_PRK_STEPS]]
    times = sorted({*times, *inner}, reverse=True) + times[-1:] * (run.n - n_moving)
    return times, [*published.f_pndm_steps(n_moving), *still]


def euler(run: SolverRun) -> Made:
    """Euler in sigma / alpha."""
    times = grids.sampler_times(run.config, discrete(run), run.n)
    return times, published.euler_steps(len(times) - 1)


def heun(run: SolverRun) -> Made:
    """Heun in sigma / alpha; two calls a step but the last."""
    times = clean_sampler_times(run)
    return times, published.heun_steps(len(times) - 1, ends_clean=True)


def kdpm2(run: SolverRun) -> Made:
    """Euler to the geometric mean of two sigmas, then its slope over the whole step."""
    process, times = run.process, clean_sampler_times(run)
    visited, steps = [times[0]], []
    for s, t in pairwise(times[:-1]):
        lam = 0.5 * (process.lam(s) + process.lam(t))
        visited += [time_of_ratio(process, math.exp(-lam)), t]
        steps += [Step(predictor=Adams()), Step(predictor=Adams(start=-2, points=(-1,)))]
    return [*visited, times[-1]], [*steps, Step(predictor=Adams())]


def lms(run: SolverRun) -> Made:
    """Adams' steps of rising order, the last one to the clean end included."""
    times = clean_sampler_times(run)
    orders = [min(i + 1, run.config.lms_order) for i in range(len(times) - 1)]
    return times, [Step(predictor=Adams(points=tuple(range(-own, 0)))) for own in orders]


def flow_euler(run: SolverRun) -> Made:
    """Euler in a flow's time, which is DDIM; or noised again from the clean end at every step."""
    check_flow(run)
    times = grids.flow_euler_times(run.config, run.n, run.sigmas)
    n = len(times) - 1
    return times, renoised_to_the_end(
        n
    ) if run.config.stochastic_sampling else published.ddim_steps(n)


def flow_heun(run: SolverRun) -> Made:
    """Heun in a flow's time, on the levels of `flow_euler`; two calls a step but the last."""
    check_flow(run)
    if run.sigmas is not None:
        raise InvalidSchedule(_TAKES_NO_SIGMAS)
    config = run.config  # of which it knows these two keys alone
    known = SchedulerConfig(num_train_timesteps=config.num_train_timesteps, shift=config.shift)
    times = grids.flow_euler_times(known, run.n)
    return times, published.flow_heun_steps(len(times) - 1)


def edm_euler(run: SolverRun) -> Made:
    """Euler on EDM's sigmas."""
    times = grids.edm_times(run.config, run.n)
    return times, published.euler_steps(len(times) - 1)


# --- what they share ---


def _multistep_times(run: SolverRun, *, is_unipc: bool) -> list[float]:
    if isinstance(run.process, Flow):
        return grids.flow_multistep_times(run.config, run.n, is_unipc=is_unipc, sigmas=run.sigmas)
    return grids.multistep_times(run.config, discrete(run), run.n, run.indices)


def _prediction(config: SchedulerConfig) -> Prediction:
    known = {"dpmsolver++": Prediction.DATA, "dpmsolver": Prediction.NOISE}
    kind = config.algorithm_type.removeprefix(SDE)
    if config.algorithm_type == "deis":  # diffusers reads it as dpmsolver++
        return Prediction.DATA
    if kind not in known:
        raise InvalidSchedule(
            f"algorithm_type: {config.algorithm_type!r} is not known; "
            f"{nearest(config.algorithm_type, [*known, *(SDE + name for name in known)])}"
        )
    if known[kind] is Prediction.NOISE and config.ends_clean:
        raise InvalidSchedule(
            "final_sigmas_type: 'zero' has no value for algorithm_type "
            f"{config.algorithm_type!r}; use 'sigma_min'"
        )
    return known[kind]


def _halves(config: SchedulerConfig) -> bool:
    """midpoint halves the derivative; the types of DEIS and UniPC count as it, as in diffusers."""
    known = ("midpoint", "heun", "logrho", "bh1", "bh2")
    if config.solver_type not in known:
        raise InvalidSchedule(
            f"solver_type: {config.solver_type!r} is not known; "
            f"{nearest(config.solver_type, known)}"
        )
    return config.solver_type != "heun"
