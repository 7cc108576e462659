"""The normal numbers that a pipeline draws in its call, handed to it.

Classes that take no ``latents`` draw their noise somewhere inside, and image-to-image ones draw
for their image's latents too.  While `GivenDraws` is entered, every such draw is a function of the
images' noise and of how many draws were made before: what an image gets depends on neither its
batch nor torch's own generator.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_KNOWN_BY = 8  # numbers of an image's noise that its seed is made of


class GivenDraws(TorchFunctionMode):
    """What `torch.randn` and `torch.randn_like` return while this is entered.

    ``noise`` (B, ...) is that of the images.  The draw number ``place`` is it, unless that is
    None; others of as many images are drawn for each image, and all others alike in every call.
    """

    def __init__(self, noise: Tensor, place: int | None = None) -> None:
        super().__init__()
        self.made: list[Tensor] = []
        self._noise, self._place = noise, place
        self._seeds = [_seed_of(each) for each in noise]

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Answers the draws, and leaves all else to torch."""
        given: dict[str, Any] = dict(kwargs or {})
        if func is torch.randn:
            return self._given(_shape_of(args, given), given)
        if func is torch.randn_like:
            like = args[0]
            return self._given(like.shape, {"device": like.device, "dtype": like.dtype, **given})
        return func(*args, **given)

    def _given(self, shape: Sequence[int], asked: Mapping[str, Any]) -> Tensor:
        place, size = len(self.made), tuple(shape)
        if place == self._place and size == tuple(self._noise.shape):
            drawn = self._noise
        elif size and size[0] == len(self._seeds):
            each = (torch.randn(size[1:], generator=_generator(s, place)) for s in self._seeds)
            drawn = torch.stack([*each])
        else:
            drawn = torch.randn(size, generator=_generator(0, place))
        drawn = drawn.to(device=asked.get("device"), dtype=asked.get("dtype"))
        self.made.append(drawn)
        return drawn


def _shape_of(args: Sequence[Any], given: Mapping[str, Any]) -> Sequence[int]:
    size = given.get("size", args)
    return size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size


def _seed_of(noise: Tensor) -> int:
    """A seed that is the image's own."""
    known = noise.detach().flatten()[:_KNOWN_BY].double().cpu().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(known).digest()[:7], "big")


def _generator(seed: int, place: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed + place)
