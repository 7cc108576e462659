"""Polishing where network or extractor carry no derivative: by differences, in rounds.

Every trainable number is moved a little in its turn, on the noises of the round, so that no
difference holds other noise than its own.  A number changes nothing before the first call that
sees it, and answers of the calls before are taken from the run without moves: a coefficient of the
last row costs no network call at all.  With the slopes of the features of every image

    features(moves) ~ features + sum_c moves_c (features_c - features) / step

the loss of that, which costs no call, is lowered within a box (Gauss-Newton's model of the
features, under any loss; Levenberg 1944), by L-BFGS-B; then the loss is looked at as it is, on the
same images, and a step that does not lower it is taken back.  The box shrinks and the images grow
from round to round, as what there is to gain comes near to what so many images can tell.
`python -m tests.benchmarks.bench_polish` has it beside the gradient, CMA-ES and SPSA.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.evaluation.noise import Drawn, for_network
from s3search.evaluation.polish.adam import copied, put_back
from s3search.evaluation.polish.gradient import PlanGradient
from s3search.evaluation.polish.losses import Lowered
from s3search.solvers.sample import run_plan
from s3search.solvers.tensor_plan import TensorPlan

_ROUNDS = (1, 1, 2, 3, 3)  # images of each, relative to each other
_FEWEST = 20  # images of a round
_BOX, _SHRINKS = 0.1, 0.6  # half a side of the first round's box, and by what it shrinks
_STEP = 0.01  # of a difference; moves are of the size of the data
_SAME = 1e-12
_MOST_STEPS = 60  # of L-BFGS-B


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """The plan with one number moved."""

    leaf: int
    place: int
    step: float
    plan: TensorPlan
    n_known: int  # calls whose answers stay what they were


@dataclass(slots=True, kw_only=True)
class PlanDifferences(PlanGradient):
    """A table between network and extractor, neither of which needs a derivative."""

    @torch.no_grad()
    def run(self, lowered: Lowered, runs: float) -> list[float]:
        """The losses at the beginning of each round, nan where one was not finite; raises
        `EvaluationFailed` where the first is not.  ``runs`` of the whole schedule by an image are
        shared among the rounds.
        """
        losses: list[float] = []
        box, images = _BOX, runs / self.runs_of_round() / sum(_ROUNDS)
        for i, share in enumerate(_ROUNDS):
            batches, loss_of = lowered(i, max(_FEWEST, round(share * images)))
            features, slopes, places = self._linear(batches)
            if not (torch.isfinite(features).all() and torch.isfinite(slopes).all()):
                if not losses:
                    raise EvaluationFailed(
                        "polish: the schedule has features that are not finite; only one with "
                        "finite images can be polished"
                    )
                losses.append(math.nan)
                break
            began, step = _lowest(features, slopes, loss_of, box)
            before = copied(self.table.moves)
            for (leaf, place), own in zip(places, step.tolist(), strict=True):
                self.table.moves[leaf].view(-1)[place] += own
            self.table.project()
            if not self.value(batches, loss_of) < began:
                put_back(self.table.moves, before)
            losses.append(began)
            box *= _SHRINKS
        return losses

    @torch.no_grad()
    def runs_of_round(self) -> float:
        """Runs of the whole schedule that a round costs for each image."""
        n = self.table.table.nfe
        return 2.0 + sum((n - each.n_known) / n for each in self.moved_plans())

    def _linear(self, batches: Sequence[Drawn]) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Features (n, d), their slopes in each number (k, n, d), and where these numbers are."""
        base, moved = self.table.plan(), list(self.moved_plans())
        features: list[Tensor] = []
        slopes: list[Tensor] = []
        for batch in batches:
            answers: list[Tensor] = []
            own = self._seen(batch, base, answers)
            there = [self._seen(batch, each.plan, answers[: each.n_known]) for each in moved]
            features.append(own)
            pairs = zip(there, moved, strict=True)
            slopes.append(own.new_zeros((0, *own.shape)))
            if moved:
                slopes[-1] = torch.stack([(other - own) / each.step for other, each in pairs])
        places = [(each.leaf, each.place) for each in moved]
        return torch.cat(features), torch.cat(slopes, dim=1), places

    def _seen(self, batch: Drawn, plan: TensorPlan, answers: list[Tensor]) -> Tensor:
        """The features of a plan's images (b, d), its first calls answered by ``answers``, to
        which the others' are added.
        """
        noise, condition = batch
        asked = 0

        def network(x: Tensor, t: Tensor) -> Tensor:
            nonlocal asked
            asked += 1
            if asked > len(answers):
                answers.append(self.denoiser(x, t, **for_network(condition)))
            return answers[asked - 1]

        images = run_plan(network, plan, plan.first_state(noise))
        return self.seen(images, condition).to(torch.float64)

    def moved_plans(self) -> Iterator[Moved]:
        """One for each number that changes the plan, within its range."""
        base, moves = self.table.plan(), self.table.moves
        before = copied(moves)
        for i, leaf in enumerate(moves):
            for place in range(leaf.numel()):
                for step in (_STEP, -_STEP):
                    leaf.view(-1)[place] += step
                    asked = copied(moves)
                    self.table.project()
                    plan = self.table.plan() if _are_same(asked, moves) else None
                    put_back(moves, before)
                    if plan is None:
                        continue
                    known = _n_known(base, plan)
                    if known is not None:
                        yield Moved(i, place, step, plan, known)
                    break


def _lowest(
    features: Tensor, slopes: Tensor, loss_of: Callable[[Tensor], Tensor], box: float
) -> tuple[float, np.ndarray]:
    """The loss of the features, and the moves (k,) in the box that lower that of the linear
    features most.
    """

    @torch.enable_grad()
    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        moves = torch.tensor(x, dtype=torch.float64, device=features.device, requires_grad=True)
        loss = loss_of(features + torch.tensordot(moves, slopes, dims=1))
        (slope,) = torch.autograd.grad(loss, moves)
        return loss.item(), slope.cpu().numpy()

    start = np.zeros(len(slopes))
    began, _ = value(start)
    bounds = [(-box, box)] * len(slopes)
    found = minimize(
        cast("Any", value),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MOST_STEPS},
    )
    return began, found.x


def _n_known(base: TensorPlan, moved: TensorPlan) -> int | None:
    """How many calls see the same in both plans; None where the plans are the same."""
    if not torch.equal(torch.as_tensor(base.noise_scale), torch.as_tensor(moved.noise_scale)):
        return 0
    rows = (base.p0 != moved.p0) | (base.q != moved.q).any(1) | (base.constant != moved.constant)
    rows[:-1] |= base.network_times != moved.network_times
    changed = rows.nonzero()
    return int(changed[0]) if len(changed) else None


def _are_same(asked: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    return all(bool(((a - b).abs() <= _SAME).all()) for a, b in zip(asked, found, strict=True))
