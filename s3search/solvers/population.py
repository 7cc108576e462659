"""Several plans executed together: call j of all of them is one call of the network.

The states of the plans that still have a call to make lie one after another in one batch, each
with its own times, so that schedules too small to fill a device fill it together.  A plan with
fewer calls leaves the batch earlier; rows without a call cost what they cost alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from s3search.solvers.plan import Plan
from s3search.solvers.sample import Denoiser, Run, check_process, initial_state


def sample_population(
    denoiser: Denoiser, plans: Sequence[Plan], noise: Tensor, **condition: Tensor
) -> list[Tensor]:
    """What `sample` makes with each of the plans of the same ``noise`` (B, C, H, W), each
    (B, C, H, W), up to rounding: a matrix product of more rows may add numbers up in another
    order.

    ``condition`` holds what each of the B images is conditioned on, (B, ...) each.
    """
    for plan in plans:
        check_process(denoiser, plan)
    runs = [Run(plan, initial_state(plan, noise)) for plan in plans]
    while under_way := [run for run in runs if not run.is_over]:
        x = torch.cat([run.state for run in under_way])
        t = torch.cat([run.times for run in under_way])
        each = {key: torch.cat([value] * len(under_way)) for key, value in condition.items()}
        answers = denoiser(x, t, **each).chunk(len(under_way))
        for run, answer in zip(under_way, answers, strict=True):
            run.answered(answer)
    return [run.state for run in runs]
