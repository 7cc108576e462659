"""Common random numbers: the noise of image i depends on the seed and i alone.

Noise is drawn in blocks of `BLOCK` images, each from its own generator, always on the CPU: the
first n images of a larger evaluation are those of a smaller one, whatever the batch size or
device.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 100


def block_generator(seed: int, block: int) -> torch.Generator:
    """The generator of one block of images; distinct for every (seed, block)."""
    state = np.random.SeedSequence([seed, block]).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


class NoiseBank:
    """Noise and conditions for one denoiser; the latest are kept, up to ``max_bytes``."""

    def __init__(self, denoiser: Any, device: torch.device, max_bytes: int = 2**28) -> None:
        self._denoiser = denoiser
        self._device = device
        self._max_bytes = max_bytes
        self._kept: dict[tuple[int, int], tuple[Tensor, dict[str, Tensor]]] = {}
        self._kept_bytes = 0

    def batches(
        self, seed: int, n_images: int, batch_size: int
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Noise (b, C, H, W) and condition, in batches of about ``batch_size``, ``n_images`` in
        all.
        """
        blocks_per_batch = max(1, batch_size // BLOCK)
        n_blocks = -(-n_images // BLOCK)
        for first in range(0, n_blocks, blocks_per_batch):
            last = min(first + blocks_per_batch, n_blocks)
            drawn = [self._block(seed, block) for block in range(first, last)]
            noise = torch.cat([noise for noise, _ in drawn])
            condition = {key: torch.cat([c[key] for _, c in drawn]) for key in drawn[0][1]}
            left = n_images - first * BLOCK
            for start in range(0, min(left, len(noise)), batch_size):
                stop = min(start + batch_size, left, len(noise))
                yield noise[start:stop], {key: c[start:stop] for key, c in condition.items()}

    def _block(self, seed: int, block: int) -> tuple[Tensor, dict[str, Tensor]]:
        found = self._kept.get((seed, block))
        if found is not None:
            return found
        generator = block_generator(seed, block)
        noise = torch.randn((BLOCK, *self._denoiser.sample_shape), generator=generator)
        condition: dict[str, Tensor] = {}
        if hasattr(self._denoiser, "condition"):
            condition = self._denoiser.condition(BLOCK, generator)
        drawn = (
            noise.to(self._device),
            {key: value.to(self._device) for key, value in condition.items()},
        )
        size = noise.numel() * noise.element_size()
        if self._kept_bytes + size > self._max_bytes:
            self._kept.clear()
            self._kept_bytes = 0
        self._kept[(seed, block)] = drawn
        self._kept_bytes += size
        return drawn
