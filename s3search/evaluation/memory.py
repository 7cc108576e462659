"""Batches that fit: where a GPU's memory runs out, the batch is halved and tried again."""

import warnings
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed

T = TypeVar("T")


_SHARE = 0.5  # of the free memory
_KEPT_CPU_BYTES = 2**28
_KEPT_GPU_SHARE = 1 / 16  # of all its memory
_FEW, _SOME = 2, 8  # images of the calls that are measured


def size_for_memory(peak_of: Callable[[int], int], free_bytes: int, most: int) -> int:
    """Images, at most ``most``, whose call takes half of the free memory; ``peak_of`` makes a call
    on some images and says how many bytes that took.
    """
    peak_of(_FEW)  # what is loaded at the first call is no image's
    each = (peak_of(_SOME) - peak_of(_FEW)) / (_SOME - _FEW)
    return max(1, min(most, int(_SHARE * free_bytes / max(each, 1.0))))


def room_on(device: torch.device) -> int:
    """Bytes that each of the things may take which are kept only to save time."""
    if device.type != "cuda":
        return _KEPT_CPU_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory * _KEPT_GPU_SHARE)


def bytes_of(tensor: Tensor) -> int:
    """What its numbers take."""
    return tensor.numel() * tensor.element_size()


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

        def of_part(_: slice, part: slice) -> list[Tensor]:
            return [make(batch[part], {key: value[part] for key, value in condition.items()})]

        (made,) = self.over_each(of_part, 1, len(batch))
        return made

    def over_each(
        self, make: Callable[[slice, slice], list[Tensor]], n_members: int, n_images: int
    ) -> list[Tensor]:  # (n_images, ...) each
        """What ``make`` makes of some members of a population and some images, for all of both:
        for as many at once as the memory takes, images cut down before members are.
        """
        made: list[list[Tensor]] = [[] for _ in range(n_members)]
        start = 0
        while start < n_images:

            def portion(size: int, first: int = start) -> list[Tensor]:
                n = min(max(1, size // n_members), n_images - first)
                step = max(1, size // n)
                members = [slice(k, k + step) for k in range(0, n_members, step)]
                return [own for some in members for own in make(some, slice(first, first + n))]

            found = self.fitting(portion, n_members * (n_images - start))
            start += len(found[0])
            for all_of_one, new in zip(made, found, strict=True):
                all_of_one.append(new)
        return [own[0] if len(own) == 1 else torch.cat(own) for own in made]

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
