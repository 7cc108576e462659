"""What differs between pipelines of flow transformers, as data.

    F = sign network(packed x, time(t), what the prompt became, places, guidance)

All of them draw noise of the latents' shape, ask a transformer for the velocity from data to
noise, and guide it.  An `Entry` says under which names and in which units.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor

from s3search.models.diffusers.conditions import Given
from s3search.models.diffusers.guidance import Combine, from_null


class Packing(StrEnum):
    """How a network takes latents (B, C, ..., H, W)."""

    PLAIN = "as they are"
    TILES = "(B, H/2 W/2, 4 C): a token is a tile of 2 x 2 places"
    TOKENS = "(B, T H W, C): a token is a place"
    LIST = "a list of (C, 1, H, W), and texts as a list of (length, width)"


class Time(StrEnum):
    """How a network takes the time t in [0, 1], which grows towards noise."""

    INDEX = "1000 t"
    SCALED = "1000 t times `timestep_scale` of its config"
    UNIT = "t"
    RISING = "1 - t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a pipeline's `encode_prompt` is called, and what the network calls what it returns."""

    returns: Mapping[int, str]  # place in the answer -> argument of the network
    arguments: Mapping[str, Any] = field(default_factory=dict)
    of_prompts: tuple[str, ...] = ()  # those of __call__ handed on at its defaults, not negatives
    empty: str = ""  # the negative prompt where a user gives none


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A guidance scale that the network takes, so that nothing is doubled."""

    name: str = "guidance"
    factor: float = 1.0
    is_optional: bool = True  # networks whose config denies `guidance_embeds` are told none


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSizes:
    """How latents' sizes follow from those asked for; names are attributes of the pipeline."""

    factor: str = "vae_scale_factor"  # pixels a place of the latents
    frames: str | None = None  # frames a place, but for the first one; None: images
    fold: int = 1  # places a side that are one before noise is drawn
    tile: int = 1  # places a side that are one token; their number decides a dynamic shift
    of_tiles: bool = False  # the network's channels are those of a token
    usual: int | None = None  # pixels a side where neither pipeline nor network says any


Places = Callable[[Any, Tensor, Given], dict[str, Any]]
"""(pipeline, x (B, C, ..., H, W), arguments) -> further arguments of the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One pipeline class."""

    encoding: Encoding
    sizes: LatentSizes
    packing: Packing = Packing.PLAIN
    time: Time = Time.INDEX
    sign: float = 1.0
    x_name: str = "hidden_states"
    time_name: str = "timestep"
    places: Places | None = None
    embedded: Embedded | None = None
    combine: Combine = from_null
    scale_name: str = "guidance_scale"  # of the pipeline's call
    guides_calls: bool = False  # its callback may change the scale of the next call
    adds_frame: bool = False  # the VAE takes a picture as a film of one frame
