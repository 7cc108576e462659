"""Polishing where network or extractor carry no derivative: by differences, in rounds.

Every trainable number is moved a little in its turn, on the noises of the round, so that no
difference holds other noise than its own.  A number changes nothing before the first call that
sees it, and answers of the calls before are taken from the run without moves: a coefficient of the
last row costs no network call at all.  With the slopes of the features of every image

    features(moves) ~ features + sum_c moves_c (features_c - features) / step

the loss of that, which costs no call, is lowered within a box (Gauss-Newton's model of the
features, under any loss; Levenberg 1944), by L-BFGS-B.  Numbers are moved on few images, and eight
times as many are looked at as they are: what a distance of few images is off by hardly depends on
the moves, so most of its noise is gone for little.  The slopes of the others are what least
squares make of their features, which keeps the means of slopes and of their products with
features.

Then the loss is looked at as it is, on the same images, and a step that does not lower it is taken
back.  The box shrinks and the images grow from round to round, as what there is to gain comes near
to what so many images can tell.
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
from s3search.evaluation.noise import for_network
from s3search.evaluation.polish.adam import copied, put_back
from s3search.evaluation.polish.gradient import DrawnBatch, PlanGradient
from s3search.evaluation.polish.losses import Lowered
from s3search.solvers.sample import run_plan
from s3search.solvers.tensor_plan import TensorPlan

_ROUNDS = (1, 1, 2, 3, 3)  # images of each, relative to each other
_FEWEST = 20  # images of a round on which numbers are moved
_STILL = 8  # times as many images are looked at without
_RIDGE = 1e-3
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
        box, moved = _BOX, max(_FEWEST, round(runs / self.runs_of_round() / sum(_ROUNDS)))
        for i, share in enumerate(_ROUNDS):
            batches, loss_of = lowered(i, round(share * moved * _STILL))
            features, slopes, places = self._linear(batches, round(share * moved))
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
        """Runs of the whole schedule that a round costs for each image on which numbers are
        moved.
        """
        n = self.table.table.nfe
        return 2.0 * _STILL + sum((n - each.n_known) / n for each in self.moved_plans())

    def _linear(
        self, batches: Sequence[DrawnBatch], n_moved: int
    ) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Features (n, d), their slopes in each number (k, n, d), and where these numbers are;
        numbers are moved on the first ``n_moved`` images.
        """
        base, moved = self.table.plan(), list(self.moved_plans())
        features: list[Tensor] = []
        slopes: list[Tensor] = []
        for batch in batches:
            k, answers = max(0, n_moved - sum(map(len, features))), list[Tensor]()
            own = self._seen(batch, base, answers)
            features.append(own)
            few = batch.first(k)
            known = [answer[:k] for answer in answers]
            slopes.append(own.new_zeros((len(moved), *own[:k].shape)))
            for i, each in enumerate(moved if k else ()):
                there = self._seen(few, each.plan, known[: each.n_known])
                slopes[-1][i] = (there - own[:k]) / each.step
        places = [(each.leaf, each.place) for each in moved]
        seen, known_slopes = torch.cat(features), torch.cat(slopes, dim=1)
        return seen, _of_all(seen, known_slopes), places

    def _seen(self, batch: DrawnBatch, plan: TensorPlan, answers: list[Tensor]) -> Tensor:
        """The features of a plan's images (b, d), its first calls answered by ``answers``, to
        which the others' are added.
        """
        noise, condition, draws = batch
        asked = 0

        def network(x: Tensor, t: Tensor) -> Tensor:
            nonlocal asked
            asked += 1
            if asked > len(answers):
                answers.append(self.denoiser(x, t, **for_network(condition)))
            return answers[asked - 1]

        images = run_plan(network, plan, plan.first_state(noise), draws)
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


def _of_all(features: Tensor, slopes: Tensor) -> Tensor:
    """Slopes (k, n, d) for all features (n, d) from those of the first (k, m, d): the others have
    what least squares make of their features.
    """
    k, m, d = slopes.shape
    n = len(features)
    if m == n or not k:
        return slopes
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-12)
    inputs = torch.cat([torch.ones_like(features[:, :1]), (features - mean) / scale], dim=1)
    few = inputs[:m]
    ridge = _RIDGE * m * torch.eye(d + 1, dtype=few.dtype, device=few.device)
    ridge[0, 0] = 0.0
    targets = slopes.permute(1, 0, 2).reshape(m, k * d)
    weights = torch.linalg.solve(few.T @ few + ridge, few.T @ targets)
    others = (inputs[m:] @ weights).reshape(n - m, k, d).permute(1, 0, 2)
    return torch.cat([slopes, others], dim=1)


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
    if base.drawn is not None and moved.drawn is not None:
        rows |= (base.drawn.p != moved.drawn.p).any(1) | (base.drawn.noise != moved.drawn.noise)
    rows[:-1] |= base.network_times != moved.network_times
    changed = rows.nonzero()
    return int(changed[0]) if len(changed) else None


def _are_same(asked: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    return all(bool(((a - b).abs() <= _SAME).all()) for a, b in zip(asked, found, strict=True))
