"""From an entry and a pipeline of its class to what makes images."""

import inspect
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from s3search.models.diffusers.conditions import Given
from s3search.models.diffusers.denoiser import Pipeline
from s3search.models.diffusers.flows.encoding import encode, ragged
from s3search.models.diffusers.flows.entry import Entry, Packing, Time
from s3search.models.diffusers.flows.layout import packed, unpacked
from s3search.models.diffusers.flows.sizes import latents_shape
from s3search.models.diffusers.settings import Settings, prompt_source

_TIMES = 1000  # training steps of every one of these models


def flow_pipeline(entry: Entry, pipe: Any, settings: Settings) -> Pipeline:
    """The parts of a pipeline whose class the entry describes; raises `InvalidConfig`."""
    network = pipe.transformer
    shape = latents_shape(entry.sizes, pipe, settings)
    return Pipeline(
        network=network,
        answer=_FlowAnswer(entry, pipe, _embedded_scale(entry, pipe, settings)),
        source=prompt_source(
            pipe, settings, partial(encode, entry.encoding, pipe), doubled=entry.embedded is None
        ),
        sample_shape=shape,
        vae=pipe.vae,
        embeds_guidance=entry.embedded is not None,
        combine=entry.combine,
        n_tokens=math.prod(shape[1:]) // entry.sizes.tile**2,
        adds_frame=entry.adds_frame,
    )


def usual_scale(entry: Entry, pipe: Any) -> float:
    """What the pipeline guides with unless told otherwise; 1 for a network that takes none."""
    if entry.embedded is not None and not _takes_guidance(entry, pipe):
        return 1.0
    return float(inspect.signature(type(pipe).__call__).parameters[entry.scale_name].default)


def _takes_guidance(entry: Entry, pipe: Any) -> bool:
    own = entry.embedded
    return own is not None and bool(
        not own.is_optional or pipe.transformer.config.get("guidance_embeds", True)
    )


def _embedded_scale(entry: Entry, pipe: Any, settings: Settings) -> float | None:
    """The guidance that the network is told; None where it takes none."""
    if entry.embedded is None:
        return None
    if not _takes_guidance(entry, pipe):
        settings.refuse_guidance(pipe, "has a network that takes no guidance (schnell, klein)")
        return None
    return settings.guidance_scale * entry.embedded.factor


@dataclass(frozen=True, slots=True)
class _FlowAnswer:
    """The network's answer F, asked as the entry says."""

    entry: Entry
    pipe: Any
    scale: float | None  # that the network takes

    def __call__(self, network: Any, x: Tensor, t: Tensor, given: Given) -> Tensor:
        """F (B, C, ..., H, W) at timesteps ``t`` (B,)."""
        entry = self.entry
        arguments: dict[str, Any] = {
            name: own.to(x.dtype) if own.is_floating_point() else own
            for name, own in given.items()
        }
        if entry.places is not None:
            arguments |= entry.places(self.pipe, x, given)
        if entry.packing is Packing.LIST:
            arguments = ragged(arguments)
        if entry.embedded is not None:
            arguments[entry.embedded.name] = self._guidance(x)
        arguments[entry.x_name] = packed(entry.packing, x)
        arguments[entry.time_name] = _time(entry.time, network, t)
        answer = network(**arguments, return_dict=False)[0]
        return entry.sign * unpacked(entry.packing, answer, x)

    def _guidance(self, x: Tensor) -> Tensor | None:
        if self.scale is None:
            return None
        return x.new_full((len(x),), self.scale, dtype=torch.float32)


def _time(time: Time, network: Any, t: Tensor) -> Tensor:
    match time:
        case Time.INDEX:
            return t
        case Time.SCALED:
            scaled: Tensor = t * network.config.timestep_scale
            return scaled
        case Time.UNIT:
            return t / _TIMES
        case Time.RISING:
            return (_TIMES - t) / _TIMES
