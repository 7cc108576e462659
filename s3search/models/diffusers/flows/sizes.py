"""The shape of a flow's latents, from the sizes asked for or those that its pipeline has."""

import inspect
from typing import Any

from s3search.errors import InvalidConfig
from s3search.models.diffusers.flows.entry import LatentSizes
from s3search.models.diffusers.settings import Settings, check_channels

_OF_TILE = 4  # places of a tile
_PLACES = {"height": 0, "width": 1}


def latents_shape(sizes: LatentSizes, pipe: Any, settings: Settings) -> tuple[int, ...]:
    """(C, H, W), or (C, T, H, W) of films; raises `InvalidConfig` for sizes that do not fit."""
    config = pipe.transformer.config
    channels = config.in_channels // (_OF_TILE if sizes.of_tiles else 1)
    check_channels(pipe.vae, channels // sizes.fold**2)
    factor = getattr(pipe, sizes.factor) * sizes.fold
    sides = [_side(name, sizes, pipe, settings, factor) for name in _PLACES]
    if sizes.frames is None:
        settings.refuse(pipe, "n_frames")
        return channels, *sides
    return channels, _frames(pipe, settings, getattr(pipe, sizes.frames)), *sides


def _side(name: str, sizes: LatentSizes, pipe: Any, settings: Settings, factor: int) -> int:
    asked = getattr(settings, name)
    side = _usual(name, sizes, pipe) if asked is None else asked
    multiple = factor * sizes.tile
    if not isinstance(side, int) or side < 1 or side % multiple:
        raise InvalidConfig(
            f"{name}: {type(pipe).__name__} makes images of multiples of {multiple} pixels, "
            f"found {side}"
        )
    return side // factor


def _usual(name: str, sizes: LatentSizes, pipe: Any) -> Any:
    """Pixels of a side unless told otherwise."""
    default = inspect.signature(type(pipe).__call__).parameters[name].default
    if isinstance(default, int):
        return default
    places = getattr(pipe, "default_sample_size", None) or pipe.transformer.config.get(
        "sample_size"
    )
    if places is None:
        return sizes.usual
    one = places[_PLACES[name]] if isinstance(places, list | tuple) else places
    return one * getattr(pipe, sizes.factor)


def _frames(pipe: Any, settings: Settings, factor: int) -> int:
    """Places in time of so many frames: one of the first, then one of each ``factor``."""
    usual = inspect.signature(type(pipe).__call__).parameters["num_frames"].default
    n = usual if settings.n_frames is None else settings.n_frames
    if not isinstance(n, int) or n < 1 or (n - 1) % factor:
        raise InvalidConfig(
            f"n_frames: {type(pipe).__name__} makes films of a multiple of {factor} frames and "
            f"one more, found {n}"
        )
    return (n - 1) // factor + 1
