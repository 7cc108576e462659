"""States that a pipeline packs: its noise in another order and shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenOrder:
    """Which number of the noise of one image stands where in its state."""

    noise_shape: tuple[int, ...]
    state_shape: tuple[int, ...]
    order: Tensor  # (n,), place in the flat noise of each number of the flat state

    @classmethod
    def of(cls, noise_shape: Sequence[int], numbered: Tensor) -> "TokenOrder | None":
        """The packing that made this state (...) of noise that was its own places; None where
        the state is no rearrangement of them.
        """
        order = numbered.detach().flatten().round().long().cpu()
        places = torch.arange(int(torch.Size(noise_shape).numel()))
        if order.shape != places.shape or not torch.equal(order.sort().values, places):
            return None
        return cls(tuple(noise_shape), tuple(numbered.shape), order)

    def packed(self, noise: Tensor) -> Tensor:
        """Numbers (B, ...) of the noise's shape as states have them."""
        return noise.flatten(1)[:, self.order].reshape(-1, *self.state_shape)

    def unpacked(self, state: Tensor) -> Tensor:
        """The inverse of `packed`."""
        return state.flatten(1)[:, self.order.argsort()].reshape(-1, *self.noise_shape)
