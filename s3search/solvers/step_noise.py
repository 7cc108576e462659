"""The noise that steps draw: unit normals, one tensor for each noisy row of a plan.

Unless somebody hands it over, it is a function of seed, image and row, drawn in blocks of `BLOCK`
images on the CPU: the first n images of a larger run are those of a smaller one, whatever the
batch size, device or company, and two schedules that draw in the same row draw the same.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule

BLOCK = 100
"""Images drawn by one generator."""

Draws = Callable[[int, Tensor], Tensor]
"""A row and a state (B, ...) -> unit normals of the state's shape, dtype and device."""


def nothing(row: int, like: Tensor) -> Tensor:
    """The draws of plans that have none."""
    raise InvalidSchedule(f"row {row} of the plan draws noise, and none was given")


def block_generator(seed: int, block: int, row: int | None = None) -> torch.Generator:
    """The generator of one block of images; distinct for every (seed, block) and for every noisy
    row of their runs.
    """
    key = () if row is None else (row,)
    sequence = np.random.SeedSequence([seed, block], spawn_key=key)
    state = sequence.generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def block_noise(seed: int, block: int, row: int, shape: Sequence[int]) -> Tensor:
    """What a row draws for one block of images of such a ``shape``, (BLOCK, *shape)."""
    return torch.randn((BLOCK, *shape), generator=block_generator(seed, block, row))


def of_seed(seed: int, first: int = 0) -> Draws:
    """What the images from the ``first`` on draw of such a seed."""

    def draw(row: int, like: Tensor) -> Tensor:
        stop, shape = first + len(like), like.shape[1:]
        blocks = range(first // BLOCK, -(-stop // BLOCK))
        drawn = torch.cat([block_noise(seed, block, row, shape) for block in blocks])
        return drawn[first - blocks.start * BLOCK :][: len(like)].to(like)

    return draw


def given(noises: Sequence[Tensor], noisy_rows: Sequence[int]) -> Draws:
    """The noise of a list, one tensor for each of the noisy rows in turn."""
    if len(noises) != len(noisy_rows):
        raise InvalidSchedule(
            f"step_noise: the plan draws {len(noisy_rows)} times, found {len(noises)} tensors"
        )
    of_row = dict(zip(noisy_rows, noises, strict=True))

    def draw(row: int, like: Tensor) -> Tensor:
        if of_row[row].shape != like.shape:
            raise InvalidSchedule(
                f"step_noise: the states have the shape {tuple(like.shape)}, found "
                f"{tuple(of_row[row].shape)}"
            )
        return of_row[row].to(like)

    return draw


def from_generator(generator: torch.Generator) -> Draws:
    """What a generator gives in turn, on its device."""

    def draw(row: int, like: Tensor) -> Tensor:
        drawn = torch.randn(
            like.shape, generator=generator, device=generator.device, dtype=like.dtype
        )
        return drawn.to(like)

    return draw
