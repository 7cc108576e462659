"""The noise levels that diffusers' schedulers visit, as times of our processes.

Indices of the training table are chosen by ``timestep_spacing`` (arXiv:2305.08891, table 2), in
one of two ways: solvers with a history divide the table by n + 1 and leave the noisiest index out
of `leading`; k-diffusion's samplers divide it by n and do not round `linspace`.  Or levels are
chosen between two sigmas: `karras` and the like.

Everything here is float64; diffusers keeps its tables in float32.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from s3search.errors import InvalidSchedule
from s3search.formats.importers.diffusers.config import SchedulerConfig
from s3search.formats.importers.request import time_of_sigma
from s3search.processes import VpDiscrete

_WHOLE = 1e-9  # times this near an index are that index: they came through a logarithm
_FLOW_START_GAP = 1e-6  # UniPC starts a flow this much below pure noise, where lam is infinite

Floats = npt.NDArray[np.float64]


def multistep_times(
    config: SchedulerConfig, process: VpDiscrete, n: int, indices: Sequence[int] | None = None
) -> list[float]:
    """n + 1 times of DPM-Solver, UniPC and DEIS; ``indices`` are a user's own timesteps."""
    ratios = _table(process)
    last = process.n - sum(-math.log(r) < config.lambda_min_clipped for r in ratios)
    levels = _between(config, ratios[0], ratios[-1], n)
    if levels is not None:
        times = [_time(process, sigma) for sigma in levels]
    elif indices is not None:
        times = [float(index) for index in indices]
    else:
        times = _spaced(config, n, last, process.n)
    return [*times, process.clean_time if config.ends_clean else 0.0]


def _spaced(config: SchedulerConfig, n: int, last: int, n_train: int) -> list[float]:
    match config.timestep_spacing:
        case "linspace":
            return [float(i) for i in np.linspace(0, last - 1, n + 1).round()[:0:-1]]
        case "leading":
            stride = last // (n + 1)
            return [float(i * stride + config.steps_offset) for i in range(n, 0, -1)]
        case "trailing":
            return _trailing(last, n_train / n)


def sampler_times(config: SchedulerConfig, process: VpDiscrete, n: int) -> list[float]:
    """n + 1 times of the samplers from k-diffusion: Euler, Heun, LMS, DPM2."""
    if config.interpolation_type != "linear":
        raise InvalidSchedule(
            f"interpolation_type: {config.interpolation_type!r} is not supported, only 'linear'"
        )
    n_train = process.n
    match config.timestep_spacing:
        case "linspace":
            indices = np.linspace(0, n_train - 1, n)[::-1].tolist()
        case "leading":
            indices = [float(i * (n_train // n) + config.steps_offset) for i in reversed(range(n))]
        case "trailing":
            indices = _trailing(n_train, n_train / n)
    # between indices diffusers interpolates sigma, not log alpha
    ratios = np.interp(indices, np.arange(n_train), _table(process))
    levels = _between(config, float(ratios[-1]), float(ratios[0]), n)
    times = [_time(process, float(sigma)) for sigma in (ratios if levels is None else levels)]
    return [*times, process.clean_time if config.ends_clean else 0.0]


def ddim_indices(config: SchedulerConfig, n: int) -> list[int]:
    """The n training indices at which DDIM calls the network."""
    n_train = config.num_train_timesteps
    match config.timestep_spacing:
        case "linspace":
            return [int(i) for i in np.linspace(0, n_train - 1, n).round()[::-1]]
        case "leading":
            return [i * (n_train // n) + config.steps_offset for i in reversed(range(n))]
        case "trailing":
            return [int(i) for i in _trailing(n_train, n_train / n)]


def edm_times(config: SchedulerConfig, n: int) -> list[float]:
    """n + 1 sigmas of the EDM schedulers; the one step of geometric levels is at the lowest."""
    low, high = config.sigma_min or 0.002, config.sigma_max or 80.0
    levels = (
        _karras(low, high, n, config.rho)
        if config.sigma_schedule == "karras"
        else _exponential(low, high, n)
    )
    if n > 1:
        levels[0], levels[-1] = high, low
    else:
        levels[0] = high if config.sigma_schedule == "karras" else low
    return [*levels.tolist(), 0.0 if config.ends_clean else low]


def flow_euler_times(
    config: SchedulerConfig, n: int, sigmas: Sequence[float] | None = None
) -> list[float]:
    """n + 1 times of FlowMatchEuler and FlowMatchHeun, on the ``sigmas`` that a pipeline passes or
    on its own, of which the last but one is shifted twice, as there, unless the shift is dynamic.
    """
    shift, lowest = _shift(config, config.shift), 1.0 / config.num_train_timesteps
    if not config.use_dynamic_shifting:
        lowest = shifted(lowest, shift)
    places = np.linspace(1.0, lowest, n).tolist() if sigmas is None else sigmas
    levels = np.array([shifted(t, shift) for t in places])
    levels = _stretched(config, levels)
    between = _between(config, float(levels[-1]), float(levels[0]), n)
    return [*(levels if between is None else between).tolist(), 0.0]


def flow_multistep_times(
    config: SchedulerConfig, n: int, *, is_unipc: bool, sigmas: Sequence[float] | None = None
) -> list[float]:
    """n + 1 times of DPM-Solver's and UniPC's flow levels; UniPC takes a pipeline's ``sigmas``."""
    if sigmas is not None and not is_unipc:
        raise InvalidSchedule("DPM-Solver takes no sigmas, and this pipeline passes some")
    shift = _shift(config, config.flow_shift)
    if config.use_dynamic_shifting and not is_unipc and config.time_shift_type != "exponential":
        raise InvalidSchedule("time_shift_type: DPM-Solver knows 'exponential' alone")
    if config.chooses_levels:
        raise InvalidSchedule("use_flow_sigmas beside another choice of sigmas is not supported")
    if not config.ends_clean and not is_unipc:
        raise InvalidSchedule("final_sigmas_type: 'sigma_min' is not supported for flows")
    n_train = config.num_train_timesteps
    if sigmas is not None:
        places = np.asarray(sigmas)
    elif is_unipc:
        places = np.linspace(1.0, 1.0 / n_train, n + 1)[:-1]
    else:
        places = (1.0 - np.linspace(1.0, 1.0 / n_train, n + 1))[:0:-1]
    levels = np.array([shifted(t, shift) for t in places.tolist()])
    if is_unipc:
        levels = _stretched(config, levels)
        levels[0] -= _FLOW_START_GAP * (abs(levels[0] - 1.0) < _FLOW_START_GAP)
    return [*levels.tolist(), 0.0 if config.ends_clean else float(levels[-1])]


def shifted(t: float, shift: float) -> float:
    """The time s t / (1 + (s - 1) t): more of the steps in the noise for s > 1."""
    return shift * t / (1.0 + (shift - 1.0) * t)


def _between(config: SchedulerConfig, low: float, high: float, n: int) -> Floats | None:
    """n levels from high to low where the config asks for them, None where indices decide."""
    if not config.chooses_levels:
        return None
    low = low if config.sigma_min is None else config.sigma_min
    high = high if config.sigma_max is None else config.sigma_max
    if config.use_karras_sigmas:
        return _karras(low, high, n, 7.0)
    if config.use_exponential_sigmas or config.use_lu_lambdas:  # the same levels
        return _exponential(low, high, n)
    from scipy.stats import beta  # noqa: PLC0415  half a second, for these levels alone

    quantiles = beta.ppf(1.0 - np.linspace(0.0, 1.0, n), 0.6, 0.6)  # arXiv:2407.12173
    return np.asarray(low + quantiles * (high - low), dtype=np.float64)


def _karras(low: float, high: float, n: int, rho: float) -> Floats:
    first, last = high ** (1 / rho), low ** (1 / rho)
    return np.asarray((first + np.linspace(0.0, 1.0, n) * (last - first)) ** rho)


def _exponential(low: float, high: float, n: int) -> Floats:
    return np.asarray(np.exp(np.linspace(math.log(high), math.log(low), n)))


def _trailing(last: int, stride: float) -> list[float]:
    return (np.arange(last, 0, -stride).round() - 1).tolist()


def _stretched(config: SchedulerConfig, levels: Floats) -> Floats:
    if not config.shift_terminal:
        return levels
    scale = (1.0 - levels[-1]) / (1.0 - config.shift_terminal)
    return np.asarray(1.0 - (1.0 - levels) / scale)


def _shift(config: SchedulerConfig, own: float) -> float:
    """The shift of a flow's levels: the config's ``own``, or the one that ``mu`` tells."""
    if not config.use_dynamic_shifting:
        return own
    if config.mu is None:
        raise InvalidSchedule(
            "use_dynamic_shifting: the shift depends on the image's size; add the `mu` of your "
            "images to the config, or set it to false and `shift` to exp(mu)"
        )
    shift = config.mu if config.time_shift_type == "linear" else math.exp(config.mu)
    if not shift > 0.0:
        raise InvalidSchedule(f"mu: a linear shift is above 0, found {config.mu}")
    return shift


@lru_cache(maxsize=16)  # every scheduler at every number of calls asks for it
def _table(process: VpDiscrete) -> tuple[float, ...]:
    """sigma / alpha of every training index."""
    return tuple(process.sigma(float(i)) / process.alpha(float(i)) for i in range(process.n))


def _time(process: VpDiscrete, sigma: float) -> float:
    t = time_of_sigma(process, sigma)
    return float(round(t)) if abs(t - round(t)) < _WHOLE else t
