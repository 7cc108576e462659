"""Times of the golden cases of diffusers' schedulers whose state keeps the process's scale."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from s3search.processes import Flow, VpDiscrete
from tests.support.golden import cases
from tests.support.helpers import NoSchedule

Case = Mapping[str, Any]

_ROUNDING = 1e-6  # in log(alpha / sigma)

KARRAS_KEYS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""Of a config: what the levels say already, with those of `FLOW_KEYS`."""

FLOW_KEYS = (
    "use_flow_sigmas",
    "flow_shift",
    "use_lu_lambdas",
    "lambda_min_clipped",
    "rescale_betas_zero_snr",
)
THRESHOLDING_KEYS = ("thresholding", "dynamic_thresholding_ratio", "sample_max_value")


def level_times(case: Case) -> list[float]:
    """The times of all calls and of the end, from the levels: names of timesteps are rounded."""
    scaling = {"vp": VpDiscrete, "flow": Flow}.get(case["solver"]["state_scaling"])
    process = cases.process_of(case)
    if scaling is None or not isinstance(process, scaling):
        raise ValueError(f"a state scaled as {case['solver']['state_scaling']!r}")
    ends = (*zip(case["alphas"], case["stds"], strict=True),)[: case["nfe"]]
    levels = [*ends, (case["alpha_end"], case["std_end"])]
    if isinstance(process, Flow):
        return [std for _, std in levels]
    return [
        process.time_of_lam(math.log(alpha / std)) if std else process.clean_time
        for alpha, std in levels
    ]


def idle_steps(case: Case, times: Sequence[float]) -> int:
    """1 where the last step goes from a level to itself, 0 elsewhere; raises `NoSchedule` where
    rounding gives that step noise.
    """
    process = cases.process_of(case)
    s, t = times[-2:]
    if t == process.clean_time or abs(process.lam(t) - process.lam(s)) > _ROUNDING:
        return 0
    draws = case["noises"]
    if len(draws) == len(times) - 1 and draws[-1]["weight"]:
        raise NoSchedule("a last step of no length draws noise that is a rounding error")
    return 1
