"""What a network predicted, kept for the schedules that call it alike.

Schedules of a search have their noise in common, and many their first steps: those predictions are
computed once.  Where there is no room for more, those of the latest calls of plans go first, the
oldest of them, since far more schedules share a first call than a third.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Hashable

from torch import Tensor

from s3search.evaluation.memory import bytes_of


class DenoiserCaches:
    """A denoiser's caches, one for each batch of images, with ``max_bytes`` of room in all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._by_call: defaultdict[int, OrderedDict[Hashable, Tensor]] = defaultdict(OrderedDict)
        self._call_of: dict[Hashable, int] = {}
        self._bytes = 0

    def of(self, images: Hashable) -> "CacheOfImages":
        """The cache for some images, which their name must tell from all others."""
        return CacheOfImages(self, images)

    def get(self, key: Hashable) -> Tensor | None:
        """The prediction under this key, None where there is none."""
        if key not in self._call_of:
            return None
        kept = self._by_call[self._call_of[key]]
        kept.move_to_end(key)
        return kept[key]

    def keep(self, key: Hashable, call: int, prediction: Tensor) -> None:
        """Takes the prediction of the ``call``-th call of a plan, and drops others for it."""
        size = bytes_of(prediction)
        if key in self._call_of or size > self._max_bytes:
            return
        self._call_of[key] = call
        self._by_call[call][key] = prediction
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop_one()

    def clear(self) -> None:
        """Gives all memory back."""
        self._by_call.clear()
        self._call_of.clear()
        self._bytes = 0

    def _drop_one(self) -> None:
        latest = max(call for call, kept in self._by_call.items() if kept)
        key, prediction = self._by_call[latest].popitem(last=False)
        del self._call_of[key]
        self._bytes -= bytes_of(prediction)


class CacheOfImages:
    """The part of the caches that is about some images, as the sampling loop asks it."""

    def __init__(self, caches: DenoiserCaches, images: Hashable) -> None:
        self._caches, self._images = caches, images

    def get(self, key: str) -> Tensor | None:
        """The prediction (B, C, H, W) under this key, None where there is none."""
        return self._caches.get((self._images, key))

    def keep(self, key: str, call: int, prediction: Tensor) -> None:
        """Takes the prediction (B, C, H, W) of the ``call``-th call of a plan."""
        self._caches.keep((self._images, key), call, prediction)
