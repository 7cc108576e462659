"""Numbers for what an export approximates, in closed form or on Gaussian images.

The images are N(0, diag(v)) with variances v from 1e-3 to 1, whose denoiser and flow are exact
(models/gaussian.py); distances are root mean squares over 64 of them, relative to the exact
images.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from s3search.models.gaussian import GaussianDenoiser
from s3search.processes import VpDiscrete
from s3search.schedules.schedule import Schedule
from s3search.schedules.start_noise import with_one_draw
from s3search.solvers.image_to_image import ImageToImageStart
from s3search.solvers.plan import Plan, compile_plan
from s3search.solvers.sample import advance, run_plan
from s3search.solvers.step_noise import of_seed

_SIDE = 8
_N_IMAGES = 64


def start_change(plan: Plan, factor: float) -> float:
    """By what part the images change if the first state is ``factor`` times what it should be."""
    denoiser = _gaussian(plan)
    x, draws = _noise(denoiser) * plan.noise_scale, of_seed(0)
    right, other = (run_plan(denoiser, plan, scale * x, draws) for scale in (1.0, factor))
    return _relative(other - right, right)


class InnerStartLoss(NamedTuple):
    """By how much the images of a run that begins inside change for want of the calls before, and
    the distances to the exact images without those calls and with them.

    The change is the loss: a first-order step may err to the other side than the steps after it,
    and the distance fall.  Where steps draw noise both runs draw the same, and neither distance
    says anything: the images are others than those of the flow.
    """

    change: float
    without: float
    with_them: float


def inner_start_loss(schedule: Schedule, inner: ImageToImageStart) -> InnerStartLoss:
    """A run that begins at ``inner`` beside one that was given the exact states and calls before
    it, as if the whole schedule had been run.
    """
    whole, plan = compile_plan(with_one_draw(schedule)), compile_plan(inner.schedule)
    denoiser, process = _gaussian(whole), whole.process
    begin, end = inner.schedule.times[0], inner.schedule.times[-1]
    spread = denoiser.eigenvalues.sqrt().reshape(denoiser.sample_shape)
    images = spread * _noise(denoiser, seed=1)
    x = process.alpha(begin) * images + process.sigma(begin) * _noise(denoiser)
    exact = denoiser.exact_flow(x, begin, end)
    draws, later = of_seed(0), whole.n_rows - plan.n_rows  # the rows that are left draw the same
    short = run_plan(denoiser, plan, x, lambda row, like: draws(row + later, like))
    last_exact = max(r for r, at in enumerate(whole.levels) if at.t == begin)
    states = [denoiser.exact_flow(x, begin, at.t) for at in whole.levels[: last_exact + 1]]
    predictions: list[Tensor] = []
    for call, row in enumerate(whole.evaluated):
        advance(whole, states, predictions, draws)
        predictions.append(denoiser(states[row], whole.call_times(call, x)))
    advance(whole, states, predictions, draws)
    return InnerStartLoss(
        change=_relative(short - states[-1], exact),
        without=_relative(short - exact, exact),
        with_them=_relative(states[-1] - exact, exact),
    )


def rounded_times(times: tuple[float, ...]) -> float:
    """How far, in training steps, the times of the calls lie from whole ones."""
    return max(abs(t - round(t)) for t in times)


def interpolated_times(process: VpDiscrete, times: tuple[float, ...]) -> float:
    """How far, in training steps, a time read off log(sigma / alpha), linear between whole steps,
    lies from the time at which our log alpha, linear there, has that level.
    """
    return max(abs(t - _read_off(process, t)) for t in times)


def _read_off(process: VpDiscrete, t: float) -> float:
    low = min(max(math.floor(t), 0), process.n - 2)
    a, b = process.lam(float(low)), process.lam(float(low + 1))
    return low + (process.lam(t) - a) / (b - a)


def _gaussian(plan: Plan) -> GaussianDenoiser:
    shape = (1, _SIDE, _SIDE) if plan.image is None else plan.image.shape
    variances = torch.logspace(-3, 0, math.prod(shape), dtype=torch.float64)
    return GaussianDenoiser(plan.process, torch.zeros(shape, dtype=torch.float64), variances)


def _noise(denoiser: GaussianDenoiser, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (_N_IMAGES, *denoiser.sample_shape)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _relative(error: Tensor, size: Tensor) -> float:
    return float(error.square().mean().sqrt() / size.square().mean().sqrt())
