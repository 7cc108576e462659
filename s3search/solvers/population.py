"""Several plans executed together: the calls that they have to make are one call of the network.

The states of the plans that still have a call to make lie one after another in one batch, each
with its own times, so that schedules too small to fill a device fill it together.  A plan with
fewer calls leaves the batch earlier; rows without a call cost what they cost alone.  Plans that
are alike so far share their rows of the batch, and answers that somebody kept are not asked for
again.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from s3search.solvers.plan import Plan
from s3search.solvers.prefix import call_keys
from s3search.solvers.sample import Denoiser, Run, check_process, initial_state


class Answers(Protocol):
    """What the network answered to these images before, by `call_keys`."""

    def get(self, key: str) -> Tensor | None:
        """The answer (B, C, H, W), if it is still there; nobody may change it."""

    def keep(self, key: str, call: int, answer: Tensor) -> None:
        """Takes the answer to the ``call``-th call of a plan."""


def sample_population(
    denoiser: Denoiser,
    plans: Sequence[Plan],
    noise: Tensor,
    answers: Answers | None = None,
    /,
    **condition: Tensor,
) -> list[Tensor]:
    """What `sample` makes with each of the plans of the same ``noise`` (B, C, H, W), each
    (B, C, H, W), up to rounding: a matrix product of more rows may add numbers up in another
    order.

    ``condition`` holds what each of the B images is conditioned on, (B, ...) each.
    """
    for plan in plans:
        check_process(denoiser, plan)
    runs = [_Keyed(plan, initial_state(plan, noise)) for plan in plans]
    while True:
        if answers is not None:
            for run in runs:
                run.take(answers)
        groups: dict[object, list[_Keyed]] = {}
        for run in runs:
            if not run.is_over:
                groups.setdefault(run.key or run, []).append(run)
        if not groups:
            return [run.state for run in runs]
        first = [group[0] for group in groups.values()]
        n = len(first)
        x = joined([run.state for run in first])
        t = joined([run.times for run in first])
        each = {key: joined([value] * n) for key, value in condition.items()}
        found = denoiser(x, t, **each).chunk(n)
        for group, answer in zip(groups.values(), found, strict=True):
            if answers is not None and group[0].key is not None:
                kept = answer.clone() if n > 1 else answer  # a part would keep the whole
                answers.keep(group[0].key, group[0].n_calls, kept)
            for run in group:
                run.answered(answer)


class _Keyed(Run):
    """A run that knows who else would be told the same."""

    def __init__(self, plan: Plan, x: Tensor) -> None:
        super().__init__(plan, x)
        self._keys = call_keys(plan)

    @property
    def key(self) -> str | None:
        """Of the next call."""
        return self._keys[self.n_calls]

    def take(self, answers: Answers) -> None:
        """Goes on as far as answers are known."""
        while not self.is_over and self.key is not None:
            known = answers.get(self.key)
            if known is None:
                return
            self.answered(known)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """All of them in one batch, one after another."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
