"""Common random numbers: the noise of image i depends on the seed and i alone.

Noise is drawn in blocks of `BLOCK` images, each from its own generator, always on the CPU: the
first n images of a larger evaluation are those of a smaller one, whatever the batch size or
device. So is the noise that steps draw, by row too (`s3search.solvers.step_noise`). Conditions are
drawn with the noise, so another seed has other labels; a model that keeps prompts for validation
is asked for them by ``condition(n, generator, held_out=True)``.

What images are compared with one by one comes under the name `TARGET`, to those who ask for it:
what the model's ``condition`` draws under this name, or a fine solve of the noise, which is made
once.  The network never sees it.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from s3search.evaluation.memory import bytes_of, room_on
from s3search.solvers.step_noise import BLOCK, Draws, block_generator, block_noise

TARGET = "target"
"""The name of what images are compared with (b, ...), among the conditions."""

_Block = tuple[int, int, bool, int]
"""Seed, number, whether its conditions are held out, and how many of its images there are."""

Drawn = tuple[Tensor, dict[str, Tensor]]
"""Noise (b, ...) and what each image is conditioned on (b, ...)."""


class Solves(Protocol):
    """Makes targets (b, ...) of noise (b, ...) and conditions, and counts them."""

    @property
    def n_solved(self) -> int:
        """Images that were made, and not read from somewhere."""

    def __call__(self, noise: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """The targets."""


class NoiseBank:
    """Noise and conditions for one denoiser, kept on its device up to ``max_bytes``: of the seed
    that was asked for last as much as there is room for, then of others.
    """

    def __init__(
        self,
        denoiser: Any,
        device: torch.device,
        max_bytes: int | None = None,
        fine_solve: Solves | None = None,
    ) -> None:
        """``fine_solve`` makes the targets where the model draws none itself."""
        self._denoiser, self._fine_solve = denoiser, fine_solve
        self.device = device
        self._max_bytes = room_on(device) if max_bytes is None else max_bytes
        self._kept: dict[_Block, Drawn] = {}
        self._kept_steps: dict[tuple[int, int, int], Tensor] = {}
        self._kept_bytes = 0
        condition = getattr(denoiser, "condition", None)
        self._knows_held_out = condition is not None and (
            "held_out" in inspect.signature(condition).parameters
        )

    @property
    def n_solved(self) -> int:
        """Images that were solved finely here."""
        return 0 if self._fine_solve is None else self._fine_solve.n_solved

    def batches(
        self,
        seed: int,
        n_images: int,
        batch_size: int,
        cuts: Sequence[int] = (),
        *,
        held_out: bool = False,
        with_targets: bool = False,
        solves: bool = True,
        whole_blocks: bool = True,
    ) -> Iterator[Drawn]:
        """Noise (b, ...) and condition, in batches of at most ``batch_size``, ``n_images`` in
        all; a batch ends at every number of images in ``cuts``.

        With ``held_out`` the conditions are those that the model keeps for validation, if any;
        ``with_targets`` their targets are among them, if there are any; those that nobody has yet
        only if it ``solves``: of whole blocks, which others of the seed will want too, or of
        these images alone.
        """
        n_drawn = None if whole_blocks else n_images
        start = 0
        for edge in sorted({n for n in cuts if 0 < n < n_images} | {n_images}):
            while start < edge:
                stop = min(edge, start + batch_size)
                key = seed, held_out and self._knows_held_out
                span = self._span(*key, start, stop, solves=with_targets and solves, n=n_drawn)
                yield span if with_targets else (span[0], for_network(span[1]))
                start = stop

    def solve(self, seed: int, first: int, n_images: int, *, held_out: bool) -> int:
        """Makes the targets of so many images from the ``first`` on, a block at a time; how many
        had to be solved finely.
        """
        before, stop = self.n_solved, first + n_images
        key = seed, held_out and self._knows_held_out
        for start in range(first - first % BLOCK, stop, BLOCK):
            self._span(*key, start, min(stop, start + BLOCK), solves=True)
        return self.n_solved - before

    def step_noise(self, seed: int, first: int) -> Draws:
        """What the steps of the images from the ``first`` on draw; of every seed other noise."""

        def draw(row: int, like: Tensor) -> Tensor:
            stop = first + len(like)
            blocks = range(first // BLOCK, -(-stop // BLOCK))
            drawn = torch.cat([self._steps(seed, block, row) for block in blocks])
            return drawn[first - blocks.start * BLOCK :][: len(like)].to(like)

        return draw

    def _steps(self, seed: int, block: int, row: int) -> Tensor:
        """What a row draws for one block of images."""
        key = seed, block, row
        found = self._kept_steps.get(key)
        if found is None:
            found = block_noise(seed, block, row, self._denoiser.sample_shape).to(self.device)
            size = bytes_of(found)
            others = [k for k in self._kept_steps if k[0] != seed]
            while others and self._kept_bytes + size > self._max_bytes:
                self._kept_bytes -= bytes_of(self._kept_steps.pop(others.pop(0)))
            if self._kept_bytes + size <= self._max_bytes:
                self._kept_steps[key] = found
                self._kept_bytes += size
        return found

    def _span(
        self,
        seed: int,
        held_out: bool,
        start: int,
        stop: int,
        *,
        solves: bool,
        n: int | None = None,
    ) -> Drawn:
        """Images ``start`` to ``stop``, of whole blocks or of ``n`` images in all."""
        first, last = start // BLOCK, -(-stop // BLOCK)
        sizes = (BLOCK if n is None else min(BLOCK, n - k * BLOCK) for k in range(first, last))
        drawn = [self._block((seed, k, held_out, m)) for k, m in enumerate(sizes, start=first)]
        if solves:
            drawn = [self._with_target(each) for each in drawn]
        elif any(TARGET not in condition for _, condition in drawn):  # some blocks have theirs
            drawn = [(noise, for_network(condition)) for noise, condition in drawn]
        inside = slice(start - first * BLOCK, stop - first * BLOCK)
        noise = torch.cat([noise for noise, _ in drawn])[inside]
        return noise, {key: torch.cat([c[key] for _, c in drawn])[inside] for key in drawn[0][1]}

    def _block(self, key: _Block) -> Drawn:
        found = self._kept.get(key)
        if found is not None:
            return found
        seed, block, held_out, size = key
        generator = block_generator(seed, block)
        noise = torch.randn((BLOCK, *self._denoiser.sample_shape), generator=generator)
        condition: dict[str, Tensor] = {}
        if hasattr(self._denoiser, "condition"):
            which = {"held_out": held_out} if self._knows_held_out else {}
            condition = self._denoiser.condition(BLOCK, generator, **which)
        drawn = (
            noise[:size].to(self.device),
            {name: value[:size].to(self.device) for name, value in condition.items()},
        )
        self._keep(key, drawn)
        return drawn

    def _with_target(self, drawn: Drawn) -> Drawn:
        """The block with what its images are compared with, which is solved once where it is
        kept.
        """
        noise, condition = drawn
        if self._fine_solve is not None and TARGET not in condition:
            condition[TARGET] = self._fine_solve(noise, condition)
            if any(kept is drawn for kept in self._kept.values()):
                self._kept_bytes += bytes_of(condition[TARGET])
        return drawn

    def _keep(self, key: _Block, drawn: Drawn) -> None:
        """Keeps a block; where there is no room, others of its seed are of more use."""
        others = [k for k in self._kept if (k[0], k[2]) != (key[0], key[2])]
        size = _bytes_of_block(drawn)
        while others and self._kept_bytes + size > self._max_bytes:
            self._kept_bytes -= _bytes_of_block(self._kept.pop(others.pop(0)))
        if self._kept_bytes + size <= self._max_bytes:
            self._kept[key] = drawn
            self._kept_bytes += size


def for_network(condition: dict[str, Tensor]) -> dict[str, Tensor]:
    """The conditions that a network takes: all but the target."""
    return {key: value for key, value in condition.items() if key != TARGET}


def _bytes_of_block(drawn: Drawn) -> int:
    noise, condition = drawn
    return bytes_of(noise) + sum(map(bytes_of, condition.values()))
