"""Batches that fit: where a GPU's memory runs out, the batch is halved and tried again."""

import warnings
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed

T = TypeVar("T")


class BatchSize:
    """How many images go through a network at once; what was too many is not tried again.

    What is made does not depend on it: each image has its own noise.
    """

    def __init__(self, size: int, what: str) -> None:
        self.size = size
        self._what = what

    def over(
        self,
        make: Callable[[Tensor, dict[str, Tensor]], Tensor],
        batch: Tensor,  # (b, ...)
        condition: Mapping[str, Tensor],  # (b, ...) each
    ) -> Tensor:  # (b, ...)
        """What ``make`` makes of the batch, in portions that the memory takes."""
        made = list[Tensor]()
        start = 0
        while start < len(batch):

            def portion(size: int, first: int = start) -> Tensor:
                part = slice(first, first + size)
                return make(batch[part], {key: value[part] for key, value in condition.items()})

            made.append(self.fitting(portion, len(batch) - start))
            start += min(self.size, len(batch) - start)
        return made[0] if len(made) == 1 else torch.cat(made)

    def fitting(self, run: Callable[[int], T], most: int) -> T:
        """``run(size)`` of the largest of size, size / 2, ... whose memory there is.

        Raises `EvaluationFailed` where a single image is too much.
        """
        while True:
            size = min(self.size, most)
            try:
                return run(size)
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise EvaluationFailed(
                        f"out of memory while {self._what}, with a single image; use a GPU with "
                        f"more memory, or a smaller dtype ({error})"
                    ) from error
            # only here does the error no longer hold the tensors of the attempt
            torch.cuda.empty_cache()
            self.size = size // 2
            warnings.warn(
                f"out of memory while {self._what} with batches of {size} images; going on with "
                f"{self.size}. Set cluster.batch_size to {self.size} to start there",
                RuntimeWarning,
                stacklevel=2,
            )
