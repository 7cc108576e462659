"""A descent finds its way back from numbers that are not finite."""

import numpy as np
import torch
from torch import Tensor

from s3search.evaluation.polish.adam import RecoveringAdam


def test_a_descent_that_meets_nan_goes_on_from_the_last_good_values_more_slowly() -> None:
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    seen = []

    def objective(i: int) -> tuple[float, list[Tensor]]:
        seen.append(leaf.item())
        loss = (leaf - 3.0) ** 2
        value = float("nan") if i == 6 else loss.item()
        return value, list(torch.autograd.grad(loss.sum(), [leaf]))

    losses = RecoveringAdam([leaf], lambda: None, 0.1).run(objective, 12)
    assert [i for i, loss in enumerate(losses) if np.isnan(loss)] == [6]
    assert seen[7] == seen[5]
    assert 0.0 < seen[8] - seen[7] < 0.75 * (seen[6] - seen[5])


def test_a_descent_without_a_way_out_stops_at_the_last_good_values() -> None:
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def objective(i: int) -> tuple[float, list[Tensor]]:
        return (1.0 if i == 0 else float("nan")), [torch.ones_like(leaf)]

    losses = RecoveringAdam([leaf], lambda: None, 0.1).run(objective, 50)
    assert len(losses) == 6
    assert leaf.item() == 0.0
