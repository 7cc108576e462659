"""Measuring from outside: diffusers' own schedulers in the loop of its pipelines, and the Fréchet
distance by numpy alone.

Nothing of s3search makes or measures an image here, so that what it claims can be checked.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]
"""What a pipeline calls: a state (B, C, H, W) and a timestep -> the network's answer."""

Features = NDArray[np.float64]
"""(n, d)."""

DISCRETE = (
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
)
ON_FLOWS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
)
ON_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")

_SPACINGS: tuple[dict[str, Any], ...] = (
    {},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"skip_prk_steps": True},  # of PNDM, as Stable Diffusion's pipelines have it
)
_SHIFTS: tuple[dict[str, Any], ...] = ({}, {"shift": 3.0, "flow_shift": 3.0})
_OF_EDM: tuple[dict[str, Any], ...] = ({}, {"sigma_schedule": "exponential"})
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_PORTION = 250  # images in one call of a network
_RESAMPLED, _DRAWN = 200, 20  # sets of images behind an interval, and behind a mean


def stock(config: Mapping[str, Any]) -> dict[str, Any]:
    """Stock schedulers by name for a pipeline whose scheduler has ``config``: as they come, and
    with each of their other spacings.
    """
    return dict(_made(config, DISCRETE, _SPACINGS))


def stock_on_flows() -> dict[str, Any]:
    """Stock schedulers by name for a rectified flow without a pipeline: as they come, and shifted
    by 3.
    """
    return dict(_made(_FLOW, ON_FLOWS, _SHIFTS))


def stock_on_edm(config: Mapping[str, Any]) -> dict[str, Any]:
    """Stock schedulers by name for an EDM network with ``config``."""
    return dict(_made(config, ON_EDM, _OF_EDM))


def _made(
    config: Mapping[str, Any], classes: tuple[str, ...], variants: tuple[dict[str, Any], ...]
) -> Iterator[tuple[str, Any]]:
    import diffusers  # noqa: PLC0415  # seconds

    for name in classes:
        own = getattr(diffusers, name)
        known = inspect.signature(own.__init__).parameters
        given = {key: config[key] for key in config if key in known or key[0] == "_"}
        for variant in variants:
            other = {key: variant[key] for key in variant if key in known}
            if not variant or any(given.get(key) != other[key] for key in other):
                words = " ".join(f"{key}={value}" for key, value in other.items())
                yield f"{name} {words}".strip(), own.from_config(given, **other)


@torch.inference_mode()
def run_stock(scheduler: Any, nfe: int, network: Network, noise: Tensor) -> Tensor | None:
    """The images that ``scheduler`` makes of ``noise`` in exactly ``nfe`` network calls, as a
    pipeline's loop has it; None where it cannot make as many.
    """
    if not any(_set(scheduler, n, nfe) for n in range(nfe, 0, -1)):
        return None
    scaled = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        x = scheduler.step(network(scaled(x, t), t), t, x, return_dict=False)[0]
    return x if bool(x.isfinite().all()) else None


def _set(scheduler: Any, n_steps: int, nfe: int) -> bool:
    """Whether ``n_steps`` steps make ``nfe`` calls; the scheduler is then ready for them."""
    try:
        scheduler.set_timesteps(n_steps)
    except (ValueError, IndexError):  # not with so few steps, or not with this spacing
        return False
    return len(scheduler.timesteps) == nfe


def in_portions(network: Callable[[Tensor, Tensor], Tensor]) -> Network:
    """``network`` of (x, one timestep for each image), called with few images at once."""

    def called(x: Tensor, t: Tensor) -> Tensor:
        parts = torch.split(x, _PORTION)
        return torch.cat([network(part, t.expand(len(part))) for part in parts])

    return called


# --- the distance ---


def frechet(features: Features, reference: Features) -> float:
    """The squared Fréchet distance of two sets of features, each as a Gaussian (arXiv:1706.08500):
    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)).
    """
    m, n = features.mean(axis=0), reference.mean(axis=0)
    c, d = np.cov(features.T), np.cov(reference.T)
    root = np.sqrt(np.linalg.eigvals(c @ d).real.clip(0)).sum()
    return float(((m - n) ** 2).sum() + np.trace(c) + np.trace(d) - 2 * root)


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """A number with its 95 % interval over other images."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Against:
    """A found schedule against the best of the stock schedulers, on the same noise.

    A ratio above 1 says how many times as far the stock scheduler is.
    """

    name: str  # of the stock scheduler
    n_stock: int
    found: float
    stock: float
    real: float  # as many real images, drawn again
    ratio: Estimated
    less_real: Estimated | None  # the ratio of what both have more than real images; or too near


def against_best(found: Features, others: Mapping[str, Features], reference: Features) -> Against:
    """``found`` against the best of ``others``: features (n, d) of the images of one noise."""
    draw = np.random.default_rng(0)
    distances = {name: frechet(own, reference) for name, own in others.items()}
    best = min(distances, key=distances.__getitem__)
    n = len(found)
    real = np.mean([frechet(_drawn(reference, n, draw), reference) for _ in range(_DRAWN)])
    pairs = np.array(
        [
            (frechet(others[best][chosen], reference), frechet(found[chosen], reference))
            for chosen in draw.integers(n, size=(_RESAMPLED, n))
        ]
    )
    values = np.array([distances[best], frechet(found, reference)])
    pairs += values - pairs.mean(axis=0)  # drawn again, images have the bias twice
    above = pairs - real
    return Against(
        name=best,
        n_stock=len(distances),
        found=float(values[1]),
        stock=float(values[0]),
        real=float(real),
        ratio=_estimated(values, pairs),
        less_real=_estimated(values - real, above) if above.min() > 0 else None,
    )


def _drawn(features: Features, n: int, draw: np.random.Generator) -> Features:
    return features[draw.integers(len(features), size=n)]


def _estimated(values: Features, pairs: Features) -> Estimated:
    low, high = np.quantile(pairs[:, 0] / pairs[:, 1], (0.025, 0.975))
    return Estimated(value=float(values[0] / values[1]), interval=(float(low), float(high)))
