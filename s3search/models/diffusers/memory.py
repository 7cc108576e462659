"""Batches that fit: where memory runs out a batch is run in parts."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed


class Parts:
    """Runs a function on parts of a batch, smaller ones after each time that memory ran out.

    >>> parts = Parts("the network", largest=8)
    >>> parts(len(x), lambda part: network(x[part]))
    """

    def __init__(self, what: str, largest: int | None = None) -> None:
        self._what = what
        self.largest = largest  # images that fitted; None: no limit known

    def __call__(self, n: int, answer: Callable[[slice], Tensor]) -> Tensor:
        """Answers for ``n`` images, in their order; raises `EvaluationFailed` if one is too
        many.
        """
        found: list[Tensor] = []
        done = 0
        while done < n:
            size = min(n - done, self.largest or n)
            part = self._tried(answer, slice(done, done + size))
            if part is not None:
                found.append(part)
                done += size
            elif size == 1:
                raise EvaluationFailed(
                    f"out of memory: {self._what} does not fit with a single image; use a smaller "
                    "dtype (model.dtype), a smaller image or a larger GPU"
                )
            else:
                self.largest = size // 2
                _release()
        return found[0] if len(found) == 1 else torch.cat(found)

    def _tried(self, answer: Callable[[slice], Tensor], part: slice) -> Tensor | None:
        try:
            return answer(part)
        except torch.cuda.OutOfMemoryError:
            return None  # and with it goes the traceback, which held the tensors


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
