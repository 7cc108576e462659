"""A pasted list at work: diffusers' own schedulers in the loop that every pipeline has, and the
functions of k-diffusion and ComfyUI, written from their published formulas.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.processes import Edm, Flow, VpDiscrete


def in_diffusers(file: Path, names: dict[str, Any], denoiser: Any, noise: Tensor) -> Tensor:
    """The images that the scheduler of the file's two lines makes of ``noise``."""
    diffusers: Any = pytest.importorskip("diffusers")
    text, process = file.read_text(), denoiser.process
    name = text.partition("pipe.scheduler = ")[2].partition(".from_config")[0]
    if isinstance(process, Flow):
        own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    else:
        own = diffusers.DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler = getattr(diffusers, name).from_config(own.config, **names["config"])
    takes = text.partition("pipe(..., ")[2].partition(").images")[0]
    key, _, value = takes.partition("=")
    scheduler.set_timesteps(**{key: eval(value, dict(names))})
    x = noise if isinstance(process, Flow) else noise * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        seen = x if isinstance(process, Flow) else scheduler.scale_model_input(x, t)
        answer = _network(denoiser, seen, float(t), float(scheduler.sigmas[i]))
        x = scheduler.step(answer, t, x).prev_sample
    return x


def _network(denoiser: Any, x: Tensor, t: float, sigma: float) -> Tensor:
    """The denoiser as the network that the scheduler expects: of noise, or of velocity."""

    def d(state: Tensor, time: float) -> Tensor:
        answer: Tensor = denoiser(state, state.new_full((len(state),), time))
        return answer

    match denoiser.process:
        case Flow():
            return (x - d(x, t / 1000)) / (t / 1000)
        case VpDiscrete() as vp:
            return (x - vp.alpha(t) * d(x, t)) / vp.sigma(t)
        case Edm():  # its input is scaled to unit variance
            state = x * (sigma * sigma + 1) ** 0.5
            return (state - d(state, sigma)) / sigma
    raise AssertionError(denoiser.process)


def _euler(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    for s, t in pairwise(sigmas):
        x = x + (t - s) * (x - model(x, s.expand(len(x)))) / s
    return x


def dpmpp_2m(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """arXiv:2211.01095, alg. 2, with its last step of first order."""
    old = None
    for i, (s, t) in enumerate(pairwise(sigmas)):
        denoised = model(x, s.expand(len(x)))
        mixed = denoised
        if old is not None and t > 0:
            r = (sigmas[i - 1] / s).log() / (s / t).log()
            mixed = denoised + (denoised - old) / (2 * r)
        x, old = (t / s) * x + (1 - t / s) * mixed, denoised
    return x


def _ipndm(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """arXiv:2204.13902, app. B: Adams-Bashforth with the weights of equal steps."""
    weights = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12))
    weights = (*weights, (55 / 24, -59 / 24, 37 / 24, -9 / 24))
    slopes: list[Tensor] = []
    for s, t in pairwise(sigmas):
        denoised = model(x, s.expand(len(x)))
        slopes.insert(0, (x - denoised) / s)
        used = weights[min(len(slopes), 4) - 1]
        mean = sum(w * slope for w, slope in zip(used, slopes, strict=False))
        x = denoised if t == 0 else x + (t - s) * mean
    return x


def _unipc(by: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """arXiv:2302.04867, alg. 5 to 8 for predictions of the image, of y = x / alpha; ``by`` is
    B(h).  The list ends at 0.001; B(h) rho solves the moments of the exponential.
    """

    def solved(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        n = len(sigmas) - 1
        points: list[tuple[Tensor, Tensor]] = []  # lambda and prediction, the newest first
        y, base = x, x
        for i in range(n):
            s, t = sigmas[i], sigmas[i + 1]
            points.insert(0, (-s.log(), model(y, s.expand(len(y)))))
            if i:  # the newest call corrects the step that led to it
                order = min(3, n - 1, i, n + 1 - i)
                y = base - _mixed(points[1 : order + 1], points[0], -sigmas[i].log(), by)
            order = min(3, n - 1, i + 1, n - i)
            h = s.log() - t.log()
            base = (t / s) * y - torch.expm1(-h) * points[0][1]
            y = base - _mixed(points[:order], None, -t.log(), by)
        return y

    return solved


def _mixed(
    points: list[tuple[Tensor, Tensor]],
    ahead: tuple[Tensor, Tensor] | None,
    to: Tensor,
    by: Callable[[Tensor], Tensor],
) -> Tensor:
    """B(h) sum_m rho_m D_m / r_m, over the earlier points and the one ``ahead``."""
    (at, newest), *others = points
    others += [] if ahead is None else [ahead]
    z, n = at - to, len(others)
    if not n:
        return torch.zeros_like(newest)
    r = torch.stack([(lam - at) / (to - at) for lam, _ in others])
    phi, moments = torch.expm1(z) / z - 1, []
    for k in range(1, n + 1):
        moments.append(phi * math.factorial(k) / by(z))
        phi = phi / z - 1 / math.factorial(k + 1)
    rho = torch.linalg.solve(torch.stack([r**k for k in range(n)]), torch.stack(moments))
    rho = torch.full_like(rho, 0.5) if n == 1 else rho  # as published
    total = sum(w * (d - newest) / at for w, (_, d), at in zip(rho, others, r, strict=True))
    return by(z) * torch.as_tensor(total)


K_SAMPLERS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "euler": _euler,
    "dpmpp_2m": dpmpp_2m,
    "ipndm": _ipndm,
    "uni_pc": _unipc(lambda z: z),
    "uni_pc_bh2": _unipc(torch.expm1),
}
"""By the name after ``sample_``: f(model, x, sigmas), with model(x, sigma) -> denoised."""


def in_k_diffusion(
    solver: str, names: dict[str, Any], model: Callable[[Tensor, Tensor], Tensor], noise: Tensor
) -> Tensor:
    """The images that the named function makes of ``noise`` on the file's list."""
    sigmas = torch.tensor(names["sigmas"], dtype=noise.dtype)
    return K_SAMPLERS[solver](model, noise * sigmas[0], sigmas)
