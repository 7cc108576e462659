"""Golden cases whose times rise, from an image to the noise it is made of.

Schedules fall, and refuse such times; rules, plans and the sampling loop know of no direction.
The multistep cases compile the published steps at rising levels, past the schedule's validation.
DDIM's inverse asks the network at the level a step goes *to*, which no rule does: its rows, which
are linear too, are written out here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from s3search.processes import VpDiscrete
from s3search.rules import Level, level
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Start
from s3search.solvers.plan import Plan, compile_plan
from tests.support.helpers import NoSchedule

Case = Mapping[str, Any]

_SHORT_RUN = 15  # below this many steps diffusers lowers the order at the end
_KNOWN = {
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "clip_sample",
    "set_alpha_to_one",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "num_train_timesteps",
    "algorithm_type",
    "solver_order",
    "solver_type",
    "lower_order_final",
    "euler_at_final",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
}


def plan_of(case: Case, process: VpDiscrete) -> tuple[Plan, int]:
    """The plan of the case, and the calls of its last step if that has no length."""
    solver = case["solver"]
    if solver["config"].get("use_flow_sigmas"):
        raise NoSchedule("its flow sigmas fall, so that it denoises the image it is to invert")
    if solver["config"].get("algorithm_type", "").startswith("sde-"):
        raise NoSchedule("noise is added at every step; schedules are deterministic")
    if solver["config"].get("clip_sample"):
        raise NoSchedule("clip_sample: x0 is clipped and the noise beside it is not")
    unknown = set(solver["config"]) - _KNOWN
    if unknown:
        raise ValueError(f"unknown config keys {sorted(unknown)}")
    if solver["name"] == "DDIMInverseScheduler":
        return _ddim(case, process), 0
    if solver["name"] == "DPMSolverMultistepInverseScheduler":
        return _multistep(case, process)
    raise ValueError(f"unknown solver {solver['name']!r}")


def _multistep(case: Case, process: VpDiscrete) -> tuple[Plan, int]:
    config = {"algorithm_type": "dpmsolver++", "solver_order": 2, **case["solver"]["config"]}
    levels = list(zip(case["alphas"], case["stds"], strict=True))
    n = len(levels) - 1
    lowers = config.get("lower_order_final", True) and n < _SHORT_RUN
    steps = published.dpm_multistep_steps(
        n,
        order=config["solver_order"],
        prediction={"dpmsolver++": "data", "dpmsolver": "noise"}[config["algorithm_type"]],
        taylor=config.get("solver_type", "midpoint") == "heun",
        lower_order_final=lowers,
    )
    if config.get("euler_at_final"):
        steps = (*steps[:-1], published.ddim_steps(1)[0])
    stands = levels[-1] == levels[-2]
    times = [process.time_of_lam(float(np.log(a / s))) for a, s in levels[: n + 1 - stands]]
    rising = Schedule.model_construct(  # no schedule: `Schedule` itself refuses these times
        process=process, times=tuple(times), steps=tuple(steps[: n - stands]), start=Start()
    )
    return compile_plan(rising), int(stands)


def _ddim(case: Case, process: VpDiscrete) -> Plan:
    """A step from index t - n_train // n to t, with the network's answer at t.

    v-prediction: x_t = (a_t a_s + s_t s_s) x + (s_t a_s - a_t s_s) v, v = (a_t x - D) / s_t.
    eps-prediction: x_t = (a_t / a_s) x + (s_t - s_s a_t / a_s) eps, eps = (x - a_t D) / s_t.
    Of D itself: x_t = (s_t / s_s) x + (a_t - a_s s_t / s_s) D.
    """
    config, indices = case["solver"]["config"], case["timesteps"][:-1]
    stride, n = process.n // len(indices), len(indices)
    starts = [_source(process, t - stride, config) for t in indices]
    ends = [level(process, t) for t in indices]
    p, q = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n))
    for i, (at, to) in enumerate(zip(starts, ends, strict=True)):
        kept, changed = to.alpha / at.alpha, to.sigma - at.sigma * to.alpha / at.alpha
        answer = (1.0 / to.sigma, -to.alpha / to.sigma)  # eps in (x, D)
        if config["prediction_type"] == "v_prediction":
            kept = to.alpha * at.alpha + to.sigma * at.sigma
            changed = to.sigma * at.alpha - to.alpha * at.sigma
            answer = (to.alpha / to.sigma, -1.0 / to.sigma)
        elif config["prediction_type"] == "sample":
            kept, answer = to.sigma / at.sigma, (0.0, 1.0)
            changed = to.alpha - at.alpha * kept
        elif config["prediction_type"] != "epsilon":
            raise ValueError(f"unknown prediction_type {config['prediction_type']!r}")
        p[i + 1, i] = kept + changed * answer[0]
        q[i + 1, i] = changed * answer[1]
    return Plan(
        process=process,
        levels=(starts[0], *ends),
        noise_scale=starts[0].sigma,
        p=p,
        q=q,
        constant=np.zeros(n + 1),
        noise=np.zeros(n + 1),
        image=None,
        evaluated=tuple(range(n)),
        network_times=tuple(indices),
    )


def _source(process: VpDiscrete, t: float, config: Mapping[str, Any]) -> Level:
    if t >= 0:
        return level(process, t)
    return level(process, process.clean_time if config.get("set_alpha_to_one", True) else 0.0)
